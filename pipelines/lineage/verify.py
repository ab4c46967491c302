"""Checks that a lineage holds together: every hash anew, every record against the others.

Nothing is trusted because of where it lies: the workspace is compared with dvc.lock, dvc.lock with params.yaml and
dvc.yaml, each stage's inputs with the outputs of the stage that made them, the cache with its own names, the verdict
with the bytes it judged, weights with what their metadata says, and code with the commit it claims.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from fra.files import sha256, sha256_each
from fra.validation.verdict import ValidationFailed
from fra.validation.verdict import read as read_verdict
from pipelines import params
from pipelines.lineage import approval, in_toto, record
from pipelines.project import paths
from pipelines.repo.definition import definitions
from pipelines.repo.git_commit import committed_digest
from pipelines.repo.lock import Hashes, LineageError, Stage, above, contains, maker, md5, read


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is off: what (a path or a stage), and how."""

    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}"


def verify(
    root: Path = Path(),
    artifact: str | None = None,
    remote: Path | None = None,
    public_key: Path | None = None,
) -> list[Problem]:
    """Everything that is off, sorted; empty where all holds. With `artifact`, only what it was made from.

    `remote` is a folder that DVC pushes to: its objects are checked too. With `public_key` there must be a statement
    about the backbone that is signed by it.

    Raises:
        LineageError: there is no lineage, or `artifact` is not in it.
    """
    stages = read(root)
    if artifact is not None:
        stages = ancestry(stages, artifact)
    hashes = Hashes(root)
    hashes.read({path for stage in stages.values() for path in (*stage.deps, *stage.outs)})
    checks = (
        workspace(stages, hashes),
        chain(stages),
        graph(stages, root, complete=artifact is None),
        cache(stages, hashes, root / ".dvc/cache", root),
        cache(stages, hashes, remote, root) if remote else (),
        verdicts(stages, root),
        weights(stages, root),
        commits(stages, root),
        withdrawn(stages, root),
        approvals(root),
        statements(stages, root, public_key),
    )
    return sorted({problem for check in checks for problem in check})


def ancestry(stages: dict[str, Stage], artifact: str) -> dict[str, Stage]:
    """The stages that `artifact` was made by. Raises `LineageError`."""
    made = maker(stages, artifact)
    if made is None:
        outs = ", ".join(sorted(out for stage in stages.values() for out in stage.outs))
        raise LineageError(f"{artifact}: made by no stage of dvc.lock; artifacts are: {outs}")
    waiting, found = [made[0]], {}
    while waiting:
        stage = waiting.pop()
        if stage.name not in found:
            found[stage.name] = stage
            waiting += above(stages, stage)
    return {name: stage for name, stage in stages.items() if name in found}


def workspace(stages: dict[str, Stage], hashes: Hashes) -> Iterator[Problem]:
    """Files on disk against dvc.lock."""
    for stage in stages.values():
        for kind, files in (("read", stage.deps), ("wrote", stage.outs)):
            for path, expected in files.items():
                found = hashes.of(path)
                if found is None:
                    yield Problem(path, f"gone; {stage.name} {kind} it")
                elif found != expected:
                    yield Problem(path, f"not what {stage.name} {kind}: MD5 {found}, dvc.lock has {expected}")


def chain(stages: dict[str, Stage]) -> Iterator[Problem]:
    """What one stage read against what another wrote, by dvc.lock alone."""
    for stage in stages.values():
        for path, digest in stage.data.items():
            for other in stages.values():
                written = other.outs.get(path)
                if written is not None and written != digest:
                    yield Problem(
                        "dvc.lock",
                        f"{stage.name} read {path} as {digest}, but {other.name} wrote it as {written}",
                    )


def graph(stages: dict[str, Stage], root: Path, complete: bool) -> Iterator[Problem]:
    """dvc.lock against dvc.yaml and params.yaml as they stand."""
    try:
        values = params.read(root / "params.yaml")  # refuses aliases, which can make a small file huge
        defined = definitions((root / "dvc.yaml").read_text(encoding="utf-8"), values)
    except (OSError, yaml.YAMLError, KeyError, TypeError, params.ParamsError) as error:
        yield Problem("params.yaml", f"does not fit dvc.yaml ({' '.join(str(error).split())})")
        return
    for name, definition in defined.items():
        stage = stages.get(name)
        if stage is None:
            if complete:
                yield Problem("dvc.lock", f"has no stage {name}, which dvc.yaml has: it did not run")
            continue
        if stage.command != definition.command:
            yield Problem("dvc.lock", f"{name} ran `{stage.command}`, dvc.yaml has `{definition.command}`")
        for kind, locked, named in (
            ("reads", stage.deps, definition.deps),
            ("writes", stage.outs, definition.outs),
        ):
            if set(locked) != set(named):
                odd = ", ".join(sorted(set(locked) ^ set(named)))
                yield Problem("dvc.lock", f"{name} {kind} other files than dvc.yaml says: {odd}")
        for key in definition.params:
            if lookup(stage.params, key) != lookup(values, key):
                yield Problem("params.yaml", f"{key} is not what {name} ran with")
    if complete:
        for name in stages.keys() - defined.keys():
            yield Problem("dvc.lock", f"has a stage {name}, which dvc.yaml does not have")


def lookup(values: Any, key: str) -> Any:
    """The value of a dotted key; dvc.lock keeps a dotted key as it is."""
    if isinstance(values, dict) and key in values:
        return values[key]
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def cache(stages: dict[str, Stage], hashes: Hashes, store: Path, root: Path) -> Iterator[Problem]:
    """DVC's objects against their own names; a missing object is only a problem in a remote that was asked for."""
    objects = {digest for stage in stages.values() for digest in stage.outs.values()}
    for digest in [name for name in objects if name.endswith(".dir")]:
        listing = object_path(store, digest)
        if listing.is_file():
            with suppress(ValueError, KeyError, TypeError):  # its own hash will not fit either
                objects |= {entry["md5"] for entry in json.loads(listing.read_bytes())}
    places = {digest: object_path(store, digest) for digest in sorted(objects)}
    present = {digest: path for digest, path in places.items() if path.is_file()}
    same = {(stat.st_dev, stat.st_ino): digest for digest, stat in inodes(hashes)}
    read = {}
    for digest, path in present.items():
        stat = path.stat()
        linked = same.get((stat.st_dev, stat.st_ino))  # one file under two names: it was read already
        if linked is None:
            read[digest] = path
        elif linked != digest:
            yield Problem(
                shown(path, root), f"the cached object holds other bytes than its name says (MD5 {linked})"
            )
    with ThreadPoolExecutor(hashes.workers) as pool:
        for (digest, path), found in zip(read.items(), pool.map(md5, read.values()), strict=True):
            if found != digest.removesuffix(".dir"):
                yield Problem(
                    shown(path, root), f"the cached object holds other bytes than its name says (MD5 {found})"
                )


def inodes(hashes: Hashes) -> Iterator[tuple[str, Any]]:
    for path, digest in hashes.files.items():
        yield digest, (hashes.root / path).stat()


def object_path(store: Path, digest: str) -> Path:
    return store / "files/md5" / digest[:2] / digest[2:]


def shown(path: Path, root: Path) -> str:
    """A path as a reader should see it: relative where it lies below the project."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def verdicts(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """Each verdict: passed, unedited, and on the very bytes that are there."""
    for stage in stages.values():
        for path in stage.outs:
            if Path(path).name != "verdict.json" or not (root / path).is_file():
                continue
            try:
                verdict = read_verdict(root / path)
            except ValidationFailed as error:
                yield Problem(path, str(error).removeprefix(f"{root / path}: "))
                continue
            if not verdict.success:
                yield Problem(path, f"the data did not pass: {'; '.join(verdict.reasons)}")
            now = sha256_each(file for file in map(root.joinpath, verdict.validated_files) if file.is_file())
            for name, digest in verdict.validated_files.items():
                if root / name not in now:
                    yield Problem(name, f"gone; {path} judged it")
                elif now[root / name] != digest:
                    yield Problem(name, f"not the bytes that {path} judged")


def weights(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """What weights say of themselves against dvc.lock: parameters, and the data they were trained on."""
    for stage in stages.values():
        for path in stage.outs:
            file = root / path
            if file.suffix != ".safetensors" or not file.is_file():
                continue
            try:
                provenance = record.metadata(file)["provenance"]
            except (SafetensorError, KeyError, ValueError, OSError) as error:
                yield Problem(path, f"carries no provenance that can be read ({error})")
                continue
            for section, values in provenance.get("params", {}).items():
                if section in stage.params and stage.params[section] != values:
                    yield Problem(path, f"its metadata name other `{section}` parameters than dvc.lock")
            for name, digest in provenance.get("inputs", {}).items():
                source = root / name
                if source.is_file() and sha256(source) != digest:
                    yield Problem(path, f"its metadata name another {name} than the one that is there")


def commits(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """Each record: there, whole, and the code that dvc.lock names is the code of the commit that it names."""
    for stage in stages.values():
        path = record.path_of(stage.name)
        if path.as_posix() not in stage.outs or not (root / path).is_file():
            continue
        try:
            code = json.loads((root / path).read_text(encoding="utf-8"))["code"]
            commit, modified = code["commit"], code["modified"]
        except (ValueError, KeyError, TypeError):
            yield Problem(path.as_posix(), "not a record")
            continue
        if commit is None or modified:
            continue  # `show` tells that the code was in no commit
        for dep, digest in stage.code.items():
            committed = committed_digest(dep, commit, root)
            if committed is None:
                yield Problem(
                    path.as_posix(), f"commit {commit[:12]} is not in this repository, or lacks {dep}"
                )
                break
            if committed != digest:
                yield Problem(
                    dep, f"not the code of commit {commit[:12]}, with which {stage.name} says it ran"
                )


def withdrawn(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """Artifacts that a withdrawal marked: made from pictures of somebody who took the consent back."""
    for file in sorted((root / "data/withdrawn").glob("*/*.json")):
        stale = json.loads(file.read_text(encoding="utf-8"))["stale"]
        for stage in stages.values():
            for path, digest in stage.outs.items():
                if stale.get(path) == digest:
                    yield Problem(path, f"stale: made before the withdrawal {file.stem}; run `dvc repro`")


def approvals(root: Path) -> Iterator[Problem]:
    """Approvals of other data than those that are there."""
    for path, message in approval.outdated(root):
        yield Problem(path, message)


def statements(stages: dict[str, Stage], root: Path, public_key: Path | None) -> Iterator[Problem]:
    """The statement about the backbone, where one was written (`fra lineage attest`) or its signature is asked for."""
    backbone = paths.BACKBONE
    if not any(backbone.as_posix() in stage.outs for stage in stages.values()):
        return
    if not (root / paths.STATEMENT).is_file():
        if public_key is not None:
            yield Problem(
                paths.STATEMENT.as_posix(), "not there: `fra lineage attest --key …` writes and signs it"
            )
    elif (root / backbone).is_file():
        for message in in_toto.check(root / paths.STATEMENT, root / backbone, public_key, root):
            yield Problem(paths.STATEMENT.as_posix(), message)


def report(problems: Iterable[Problem]) -> str:
    """What `fra lineage verify` prints."""
    lines = [str(problem) for problem in problems]
    return "\n".join([*lines, f"{len(lines)} problems"]) if lines else "pass: every hash and record fits"


__all__ = ["Problem", "contains", "report", "verify"]
