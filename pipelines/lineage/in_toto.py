"""The statement about a backbone: what it was built from, in a format that supply-chain tools check.

An in-toto Statement v1 with SLSA Provenance v1 as its predicate; with a key, in a DSSE envelope signed with Ed25519.
The same run gives the same statement and signature, byte for byte, as it has no times.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from safetensors import SafetensorError

from fra.files import sha256, write_json
from pipelines.lineage.record import metadata
from pipelines.repo.hashes import files_of, folder_digest, md5
from pipelines.repo.lock import LineageError, Stage, read

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUILD = "urn:fra:dvc-stage:v1"
"""What `externalParameters` and `resolvedDependencies` mean: docs/reference/lineage-formats.md."""
BUILDER = "urn:fra:pipelines"
KEY = "FRA_SIGNING_KEY"
"""Environment variable with the path of the private key, used where no key is given."""


def write(backbone: Path, out: Path, key: Path | None = None, root: Path = Path()) -> bool:
    """Writes the statement about `backbone`; returns whether it is signed, by `key` or the key `FRA_SIGNING_KEY`.

    Raises:
        LineageError: dvc.lock does not have the file, or it has no provenance.
        FileNotFoundError, ValueError: the key is missing, or is not an Ed25519 key in PEM.
    """
    named = os.environ.get(KEY)
    key = key or (Path(named) if named else None)
    signer = private_key(key) if key else None
    made = statement(backbone, root)
    write_json(envelope(made, signer) if signer else made, out)
    return signer is not None


def check(
    statement_file: Path, backbone: Path, public_key: Path | None = None, root: Path | None = Path()
) -> list[str]:
    """How a statement differs from a backbone, one line each; empty where they agree.

    With `public_key` the statement must be signed by it; without, signatures are ignored. `root` None leaves out the
    comparison with dvc.lock, for those who have only the two files.

    Raises:
        FileNotFoundError, ValueError: the key or the backbone is missing, or the key is not an Ed25519 key in PEM.
    """
    if not backbone.is_file():
        raise FileNotFoundError(f"{backbone}: missing")
    key = load_public(public_key) if public_key else None
    found: list[str] = []
    try:
        content = json.loads(statement_file.read_bytes())
        if "payloadType" in content:
            if content["payloadType"] != PAYLOAD:
                return [f"{statement_file}: contains {content['payloadType']!r}, not an in-toto statement"]
            body = decode(content["payload"])
            if key and not signed(body, content["signatures"], key):
                found.append(f"{statement_file}: no signature by {public_key}")
            content = json.loads(body)
        elif key:
            found.append(f"{statement_file}: not signed, though a public key was given")
        if (content["_type"], content["predicateType"]) != (STATEMENT, PREDICATE):
            return [*found, f"{statement_file}: not a statement of SLSA provenance v1"]
        subjects = {subject["name"]: subject["digest"].get("sha256") for subject in content["subject"]}
        definition = content["predicate"]["buildDefinition"]
        parameters = definition["externalParameters"]
        given = {entry["name"]: entry["digest"] for entry in definition["resolvedDependencies"]}
        found += [
            f"{statement_file}: the files of {entry['name']} do not have its hash"
            for entry in definition["resolvedDependencies"]
            if (files := entry.get("annotations", {}).get("files"))
            and folder_digest(files.items()) != f"{entry['digest'].get('dvcDir')}.dir"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [*found, f"{statement_file}: not a statement ({type(error).__name__}: {error})"]
    found += about(statement_file, subjects, backbone)
    if root is not None:
        found += differences(statement_file, parameters, given, backbone, root)
    return found


def about(statement_file: Path, subjects: dict[str, str | None], backbone: Path) -> list[str]:
    """How the statement's subject differs from the backbone, one line each.

    Args:
        statement_file: The statement, for the messages.
        subjects: The SHA-256 of each file that the statement is about, by name.
        backbone: The file to compare with.
    """
    digest = sha256(backbone)
    if digest in subjects.values():
        return []
    if backbone.name in {Path(name).name for name in subjects}:
        return [f"{backbone}: SHA-256 is {digest}, {statement_file} is about another file of that name"]
    return [f"{statement_file}: about {', '.join(subjects) or 'nothing'}, not about {backbone}"]


def differences(
    statement_file: Path, parameters: Any, given: dict[str, Any], backbone: Path, root: Path
) -> list[str]:
    """How the statement differs from the one that would be written now, one line each.

    Args:
        statement_file: The statement, for the messages.
        parameters: Its `externalParameters`.
        given: The digests of each of its dependencies, by name.
        backbone: The file that it is about.
        root: The project, whose dvc.lock is read.
    """
    try:
        expected = statement(backbone, root)["predicate"]["buildDefinition"]
    except LineageError as error:
        return [str(error)]
    wanted = {entry["name"]: entry["digest"] for entry in expected["resolvedDependencies"]}
    found = [
        f"{statement_file}: dependency {name} is {shown(given.get(name))}; by dvc.lock and the weights it is "
        f"{shown(wanted.get(name))}"
        for name in sorted(given.keys() | wanted.keys())
        if given.get(name) != wanted.get(name)
    ]
    if parameters != expected["externalParameters"]:
        found.append(f"{statement_file}: has another command or other parameters than dvc.lock")
    return found


def shown(digest: dict[str, str] | None) -> str:
    """The hashes of a dependency as text; "missing" for None."""
    return "missing" if digest is None else ", ".join(f"{name} {value}" for name, value in digest.items())


def statement(backbone: Path, root: Path = Path()) -> dict[str, Any]:
    """The statement about a backbone, from dvc.lock and the metadata of the weights.

    Raises:
        LineageError: dvc.lock does not have the file, or it has no provenance.
    """
    stage, path = made_by(backbone, root)
    try:
        provenance = metadata(backbone)["provenance"]
        depends = dependencies(stage, provenance, root)
        environment = provenance["environment"]
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise LineageError(f"{backbone}: has no provenance that can be read ({error})") from None
    return {
        "_type": STATEMENT,
        "subject": [{"name": path, "digest": {"sha256": sha256(backbone)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {
                    "stage": stage.name,
                    "command": stage.command,
                    "params": dict(stage.params),
                },
                "internalParameters": {"environment": environment},
                "resolvedDependencies": depends,
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "byproducts": [
                    {"name": out, "digest": dvc_digest(digest)}
                    for out, digest in sorted(stage.outs.items())
                    if out != path
                ],
            },
        },
    }


def made_by(file: Path, root: Path = Path()) -> tuple[Stage, str]:
    """The stage of dvc.lock that wrote a file with this content, and the output's path. Raises `LineageError`."""
    if not file.is_file():
        raise LineageError(f"{file}: missing: run `dvc repro`")
    digest = md5(file)
    for stage in read(root).values():
        for path, made in stage.outs.items():
            if made == digest:
                return stage, path
    raise LineageError(f"{file}: not an output in dvc.lock (MD5 {digest}): run `dvc checkout` or `dvc repro`")


def dependencies(stage: Stage, provenance: dict[str, Any], root: Path) -> list[dict[str, Any]]:
    """All inputs: the commit, the locked libraries, code, and data by both hashes where both are known.

    A folder of code has its files as an annotation where the workspace has this folder; their listing has the hash
    `dvcDir`, so the annotation can be checked by itself.
    """
    code, lock, inputs = provenance["code"], provenance["environment"]["lock"], provenance["inputs"]
    found: list[dict[str, Any]] = []
    if code["commit"]:
        found.append(
            {
                "name": "commit",
                "uri": f"swh:1:rev:{code['commit']}",
                "digest": {"gitCommit": code["commit"]},
                "annotations": {"modified": code["modified"]},
            }
        )
    if lock:
        found.append({"name": "requirements.lock", "digest": {"sha256": lock}})
    for path in sorted(stage.deps.keys() | inputs.keys()):
        digest = dvc_digest(stage.deps[path]) if path in stage.deps else {}
        if path in inputs:
            digest["sha256"] = inputs[path]
        entry: dict[str, Any] = {"name": path, "digest": digest}
        if files := files_of(path, stage.code.get(path, ""), root):
            entry["annotations"] = {"files": files}
        found.append(entry)
    return found


def dvc_digest(digest: str) -> dict[str, str]:
    """DVC's hash under its name in in-toto: `md5` of a file, `dvcDir` (MD5 of the listing) of a folder."""
    return {"dvcDir": digest.removesuffix(".dir")} if digest.endswith(".dir") else {"md5": digest}


def envelope(content: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """A DSSE envelope (v1.0.0) with a statement and its signature."""
    body = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(body).decode(),
        "signatures": [
            {
                "keyid": hashlib.sha256(public).hexdigest(),
                "sig": base64.b64encode(key.sign(encoded(body))).decode(),
            }
        ],
    }


def encoded(body: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding of type and body."""
    kind = PAYLOAD.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def decode(text: str) -> bytes:
    """Decodes Base64 in either alphabet, as DSSE allows."""
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def signed(body: bytes, signatures: list[dict[str, str]], key: Ed25519PublicKey) -> bool:
    """Whether one of the signatures is by `key`; the id of the key in the envelope is ignored."""
    for signature in signatures:
        try:
            key.verify(decode(signature["sig"]), encoded(body))
        except (InvalidSignature, binascii.Error):
            continue
        return True
    return False


class KeyFileError(ValueError):
    """A key cannot be used; the message names the file and the remedy, never the file's content."""


def private_key(path: Path) -> Ed25519PrivateKey:
    """Reads a private key. Raises `FileNotFoundError` or `KeyFileError`."""
    try:
        key = load_pem_private_key(key_bytes(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(
            f"{path}: not an Ed25519 private key in PEM without a password: "
            "make one with `openssl genpkey -algorithm ed25519 -out KEY.pem`"
        )
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Reads a public key. Raises `FileNotFoundError` or `KeyFileError`."""
    try:
        key = load_pem_public_key(key_bytes(path))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(
            f"{path}: not an Ed25519 public key in PEM: "
            "make one from the private key with `openssl pkey -in KEY.pem -pubout -out PUBLIC.pem`"
        )
    return key


def key_bytes(path: Path) -> bytes:
    """The content of a key file. Raises `FileNotFoundError`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such key file")
    return path.read_bytes()
