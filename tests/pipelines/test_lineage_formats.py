from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from huggingface_hub import ModelCard
from openlineage.client import event_v2, facet_v2
from openlineage.client.serde import Serde

from fra.files import sha256
from pipelines.lineage import in_toto, model_card, openlineage, withdraw
from pipelines.lineage import verify as verification
from pipelines.lineage.problem import Problem
from pipelines.repo import hashes, lock

PARENT = "0192f1a0-5c3e-7b1a-9d2e-3f4a5b6c7d8e"
BACKBONE = Path("artifacts/pretrain/backbone.safetensors")


def verify(root: Path, public_key: Path | None = None) -> list[Problem]:
    return verification.verify(root, public_key=public_key).problems


# OpenLineage ---------------------------------------------------------------------------------------------------


@pytest.fixture
def inside(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a workspace that a test may change, as DVC runs a stage there."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("DVC_STAGE", "pretrain")
    monkeypatch.delenv(openlineage.URL, raising=False)
    shutil.rmtree(".work/openlineage", ignore_errors=True)
    return workspace


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a folder that holds no project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.delenv(openlineage.URL, raising=False)
    return tmp_path


def events() -> list[dict[str, Any]]:
    return [json.loads(line) for line in openlineage.EVENTS.read_text(encoding="utf-8").splitlines()]


def versions(datasets: list[dict[str, Any]]) -> dict[str, str | None]:
    return {entry["name"]: entry["facets"].get("version", {}).get("datasetVersion") for entry in datasets}


FACETS = {
    "executionParameters": facet_v2.execution_parameters_run.ExecutionParametersRunFacet,
    "parent": facet_v2.parent_run.ParentRunFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "sourceCodeLocation": facet_v2.source_code_location_job.SourceCodeLocationJobFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}


def official(event: dict[str, Any]) -> dict[str, Any]:
    """The event built with the official client's classes, which refuse what the schemas do not have."""

    def facets(given: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, content in given.items():
            fields = {key: value for key, value in content.items() if not key.startswith("_")}
            if name in FACETS:
                if name == "executionParameters":
                    kind = facet_v2.execution_parameters_run.ExecutionParameter
                    fields["parameters"] = [kind(**entry) for entry in fields["parameters"]]
                if name == "parent":
                    fields = {
                        "run": facet_v2.parent_run.Run(**fields["run"]),
                        "job": facet_v2.parent_run.Job(**fields["job"]),
                    }
                made[name] = FACETS[name](**fields, producer=content["_producer"])
            else:  # our own: a facet of the core schema with more in it
                made[name] = facet_v2.RunFacet(producer=content["_producer"]).with_additional_properties(
                    **fields
                )
        return made

    return Serde.to_dict(
        event_v2.RunEvent(
            eventTime=event["eventTime"],
            producer=event["producer"],
            eventType=event_v2.RunState[event["eventType"]],
            run=event_v2.Run(event["run"]["runId"], facets(event["run"]["facets"])),
            job=event_v2.Job(event["job"]["namespace"], event["job"]["name"], facets(event["job"]["facets"])),
            inputs=[
                event_v2.InputDataset(entry["namespace"], entry["name"], facets=facets(entry["facets"]))
                for entry in event["inputs"]
            ],
            outputs=[
                event_v2.OutputDataset(
                    entry["namespace"],
                    entry["name"],
                    facets(entry.get("outputFacets", {})),
                    facets=facets(entry["facets"]),
                )
                for entry in event["outputs"]
            ],
        )
    )


def lean(value: Any) -> Any:
    """Without what both sides may leave out: nulls and empty facets."""
    if isinstance(value, dict):
        return {key: lean(inner) for key, inner in value.items() if inner is not None and lean(inner) != {}}
    return [lean(inner) for inner in value] if isinstance(value, list) else value


def test_events_equal_those_of_the_official_classes(inside: Path) -> None:
    for command in (["init", "-q"], ["add", "fra", "pipelines", "dvc.yaml"], ["commit", "-qm", "code"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *command], check=True)
    with openlineage.run("pretrain", PARENT):
        pass
    with pytest.raises(ValueError, match="no good"), openlineage.run("pretrain", PARENT):
        raise ValueError("no good")
    found = events()
    assert [event["eventType"] for event in found] == ["START", "COMPLETE", "START", "FAIL"]
    for event in found:
        assert lean(official(event)) == lean(event)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert found[0]["job"]["facets"]["sourceCodeLocation"]["version"] == commit.strip()
    assert found[0]["run"]["facets"]["parent"]["run"]["runId"] == PARENT


def test_an_event_names_data_by_the_hashes_of_dvc(inside: Path) -> None:
    with openlineage.run("pretrain"):
        pass
    start, complete = events()
    stages = lock.read()
    assert start["run"]["runId"] == complete["run"]["runId"]
    # what pretrain reads is a file in shard's output: the event names the output, so that the two stages join
    assert versions(start["inputs"])["data/beton/orl"] == stages["shard"].outs["data/beton/orl"]
    assert not any(name.startswith("fra/") for name in versions(start["inputs"]))
    assert set(versions(start["outputs"]).values()) == {None}
    assert versions(complete["outputs"]) == dict(stages["pretrain"].outs)
    size = next(e for e in complete["outputs"] if e["name"] == str(BACKBONE))["outputFacets"]
    assert size["outputStatistics"]["size"] == BACKBONE.stat().st_size
    given = {e["key"]: e["value"] for e in start["run"]["facets"]["executionParameters"]["parameters"]}
    params = yaml.safe_load(Path("params.yaml").read_text())
    assert given["train.epochs"] == str(params["train"]["epochs"])
    assert set(start["run"]["facets"]["fra_record"]) >= {"code", "environment"}


def test_events_of_all_stages_join_into_one_graph(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = lock.read()
    made = {path for stage in stages.values() for path in stage.outs}
    for name in stages:
        monkeypatch.setenv("DVC_STAGE", name)
        event = openlineage.event(name.split("@")[0], PARENT, "COMPLETE")
        assert event["job"]["name"] == name
        assert lean(official(event)) == lean(event)
        assert versions(event["outputs"]).keys() == stages[name].outs.keys()
        for path in versions(event["inputs"]):
            assert path in made or lock.maker(stages, path) is None  # or else two names for one thing
    monkeypatch.setenv("DVC_STAGE", "benchmark@rafdb")
    assert openlineage.event("shard", PARENT, "START")["job"]["name"] == "benchmark@rafdb.shard"


def test_outside_of_dvc_hashes_are_those_of_the_files(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = "data/manifest/orl.parquet"
    Path(manifest).unlink()
    Path(manifest).write_bytes(b"other bytes")
    locked = lock.read()["shard"].outs[manifest]
    monkeypatch.setenv("DVC_STAGE", "validate")
    assert versions(openlineage.event("validate", PARENT, "START")["inputs"])[manifest] == locked
    monkeypatch.delenv("DVC_STAGE")
    assert versions(openlineage.event("validate", PARENT, "START")["inputs"])[manifest] == hashes.md5(
        Path(manifest)
    )


def test_a_stopped_run_is_aborted_not_failed(inside: Path) -> None:
    with pytest.raises(SystemExit), openlineage.run("pretrain"):
        sys.exit(75)
    assert [event["eventType"] for event in events()] == ["START", "ABORT"]


def test_events_of_parallel_stages_do_not_mix(empty: Path) -> None:
    work = (
        "import sys; from pipelines.lineage import openlineage\n"
        "for n in range(40): openlineage.append(sys.argv[1] * 50_000)"
    )
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", work, letter], env={**os.environ, "PYTHONPATH": str(root)})
        for letter in "abc"
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = openlineage.EVENTS.read_text().splitlines()
    assert len(lines) == 120
    assert set(lines) == {letter * 50_000 for letter in "abc"}


def test_an_event_after_a_truncated_one_is_complete(empty: Path) -> None:
    openlineage.append('{"a": 1}')
    with openlineage.EVENTS.open("a") as file:
        file.write('{"torn": ')
    openlineage.append('{"b": 2}')
    assert openlineage.EVENTS.read_text().splitlines() == ['{"a": 1}', '{"torn": ', '{"b": 2}']


@contextmanager
def receiver(
    status: int, **headers: str
) -> Iterator[tuple[str, list[tuple[str, str | None, dict[str, Any]]]]]:
    """A receiver of events on this machine: its address, and (path, token, event) of each request."""
    came: list[tuple[str, str | None, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            came.append((self.path, self.headers["Authorization"], body))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", came
        server.shutdown()


def test_events_go_to_a_receiver_where_one_is_configured(
    inside: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver(201) as (url, came):
        monkeypatch.setenv(openlineage.URL, url)
        monkeypatch.setenv(openlineage.API_KEY, "secret")
        with openlineage.run("pretrain"):
            pass
    assert [path for path, _, _ in came] == ["/api/v1/lineage"] * 2
    assert {token for _, token, _ in came} == {"Bearer secret"}
    assert [event for _, _, event in came] == events()
    assert caplog.text == ""


@pytest.mark.parametrize(("status", "headers"), [(500, {}), (302, {"Location": "/elsewhere"})])
def test_a_refusing_receiver_causes_one_warning(
    inside: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
    headers: dict[str, str],
) -> None:
    with receiver(status, **headers) as (url, came):
        monkeypatch.setenv(openlineage.URL, url)
        with openlineage.run("pretrain"):
            pass
    assert len(came) == 1
    assert len(caplog.records) == 1
    assert len(events()) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid", "file:///etc", "nonsense"])
def test_an_unreachable_receiver_causes_one_warning(
    inside: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    monkeypatch.setenv(openlineage.URL, url)
    done = []
    with openlineage.run("pretrain"):
        done.append(True)
    assert done
    assert len(events()) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_events_that_cannot_be_written_stop_no_stage(empty: Path, caplog: pytest.LogCaptureFixture) -> None:
    with openlineage.run("pretrain"):
        pass
    assert [event["eventType"] for event in events()] == ["START", "COMPLETE"]
    shutil.rmtree(".work")
    Path(".work").write_text("a file in the way")
    with pytest.raises(KeyError), openlineage.run("pretrain"):
        raise KeyError("the stage's own error comes through")
    assert len(caplog.records) == 1


# in-toto -------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key, as `openssl genpkey -algorithm ed25519` writes them."""
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(in_toto.KEY, raising=False)


def test_an_unsigned_statement_has_the_fields_of_slsa(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "backbone.intoto.json"
    assert in_toto.write(finished / BACKBONE, out, root=finished) is False
    said = json.loads(out.read_text())
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert said["subject"] == [{"name": str(BACKBONE), "digest": {"sha256": sha256(finished / BACKBONE)}}]
    built = said["predicate"]["buildDefinition"]
    params = yaml.safe_load((finished / "params.yaml").read_text())
    assert built["externalParameters"]["params"]["train"] == params["train"]
    depends = {entry["name"]: entry["digest"] for entry in built["resolvedDependencies"]}
    beton = "data/beton/orl/train.beton"
    assert depends[beton] == {
        "md5": hashes.md5(finished / beton),
        "sha256": sha256(finished / beton),
    }
    assert depends["fra/method"] == {
        "dvcDir": lock.read(finished)["pretrain"].deps["fra/method"].removesuffix(".dir")
    }
    files = next(entry for entry in built["resolvedDependencies"] if entry["name"] == "fra/method")[
        "annotations"
    ]["files"]
    assert files["losses.py"] == hashes.md5(finished / "fra/method/losses.py")
    assert hashes.folder_digest(files.items()) == f"{depends['fra/method']['dvcDir']}.dir"
    assert depends["requirements.lock"] == {"sha256": sha256(finished / "requirements.lock")}
    assert said["predicate"]["runDetails"]["builder"]["id"]
    assert in_toto.check(out, finished / BACKBONE, root=finished) == []


def test_a_signed_statement_is_a_dsse_envelope(
    finished: Path, tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys
    out, again = tmp_path / "signed.json", tmp_path / "again.json"
    assert in_toto.write(finished / BACKBONE, out, private, finished) is True
    monkeypatch.setenv(in_toto.KEY, str(private))
    assert in_toto.write(finished / BACKBONE, again, root=finished) is True
    assert out.read_bytes() == again.read_bytes()
    envelope = json.loads(out.read_text())
    body = base64.b64decode(envelope["payload"])
    # the bytes that DSSE signs, spelt out, and checked by another program
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"DSSEv1 28 application/vnd.in-toto+json " + str(len(body)).encode() + b" " + body)
    signature.write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", message]
    done = subprocess.run([*map(str, verify), "-sigfile", str(signature)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_toto.check(out, finished / BACKBONE, public, finished) == []
    copy = shutil.copy(finished / BACKBONE, tmp_path / "elsewhere.safetensors")
    assert in_toto.check(out, Path(copy), public, root=None) == []


def repacked(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the statement in an envelope and keeps its signature."""
    envelope = json.loads(out.read_text())
    said = json.loads(base64.b64decode(envelope["payload"]))
    change(said)
    envelope["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    out.write_text(json.dumps(envelope))


def resigned(out: Path, private: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the statement in an envelope and signs it again, as someone with the key could."""
    said = json.loads(base64.b64decode(json.loads(out.read_text())["payload"]))
    change(said)
    out.write_text(json.dumps(in_toto.envelope(said, in_toto.private_key(private))))


def depend(said: dict[str, Any], name: str) -> dict[str, Any]:
    entries = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    return next(entry for entry in entries if entry["name"] == name)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def longer(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()  # it may be a link into the cache
    path.write_bytes(content + b"\0")


METHOD = "fra/method"
TAMPERED: dict[str, tuple[Callable[[Path, Path, Path], None], str]] = {
    "backbone": (lambda w, out, key: longer(w / BACKBONE), "is about another file of that name"),
    "lock: a dependency": (
        lambda w, out, key: edit(w / "dvc.lock", lock.read(w)["pretrain"].deps[METHOD], "f" * 32 + ".dir"),
        f"dependency {METHOD}",
    ),
    "lock: a parameter": (
        lambda w, out, key: edit(w / "dvc.lock", "target_momentum: 0.99", "target_momentum: 0.5"),
        "other parameters than dvc.lock",
    ),
    "lock: gone": (lambda w, out, key: (w / "dvc.lock").unlink(), "dvc.lock"),
    "statement: a digest": (
        lambda w, out, key: repacked(
            out, lambda said: depend(said, METHOD)["digest"].update(dvcDir="1" * 32)
        ),
        "no signature by",
    ),
    "statement: a digest, signed again": (
        lambda w, out, key: resigned(
            out, key, lambda said: depend(said, METHOD)["digest"].update(dvcDir="1" * 32)
        ),
        f"dependency {METHOD}",
    ),
    "statement: other subject": (
        lambda w, out, key: resigned(
            out, key, lambda said: said.update(subject=[{"name": "x", "digest": {"sha256": "2" * 64}}])
        ),
        "about x, not about",
    ),
    "statement: other predicate": (
        lambda w, out, key: resigned(out, key, lambda said: said.update(predicateType="https://example.org")),
        "not a statement of SLSA",
    ),
    "statement: no dependencies": (
        lambda w, out, key: resigned(
            out, key, lambda said: said["predicate"]["buildDefinition"].update(resolvedDependencies=[])
        ),
        "is missing",
    ),
    "signature": (
        lambda w, out, key: edit(out, '"sig": "', '"sig": "AAAA'),
        "no signature by",
    ),
    "signatures: none": (
        lambda w, out, key: out.write_text(json.dumps(json.loads(out.read_text()) | {"signatures": []})),
        "no signature by",
    ),
    "envelope: another type": (
        lambda w, out, key: edit(out, "application/vnd.in-toto+json", "text/plain"),
        "not an in-toto statement",
    ),
    "envelope: not JSON": (lambda w, out, key: out.write_text("{"), "not a statement"),
    "envelope: a list": (lambda w, out, key: out.write_text("[]"), "not a statement"),
    "envelope: gone": (lambda w, out, key: out.unlink(), "not a statement"),
    "unsigned": (
        lambda w, out, key: out.write_text(base64.b64decode(json.loads(out.read_text())["payload"]).decode()),
        "not signed",
    ),
}


@pytest.fixture(scope="module")
def small_workspace(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a statement is checked against, and nothing else."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("dvc.lock", str(BACKBONE)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished / name, folder / name)
    return folder


@pytest.mark.parametrize("case", TAMPERED)
def test_differences_from_the_statement_are_named(
    small_workspace: Path, tmp_path: Path, keys: tuple[Path, Path], case: str
) -> None:
    private, public = keys
    root = Path(shutil.copytree(small_workspace, tmp_path / "root"))
    out = tmp_path / "signed.json"
    in_toto.write(root / BACKBONE, out, private, root)
    assert in_toto.check(out, root / BACKBONE, public, root) == []
    tamper, says = TAMPERED[case]
    tamper(root, out, private)
    problems = in_toto.check(out, root / BACKBONE, public, root)
    assert any(says in problem for problem in problems), problems


def test_a_signature_by_another_key_is_refused(
    small_workspace: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    _, public = keys
    other = tmp_path / "other.pem"
    other.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    out = tmp_path / "signed.json"
    in_toto.write(small_workspace / BACKBONE, out, other, small_workspace)
    assert in_toto.check(out, small_workspace / BACKBONE, root=small_workspace) == []
    assert in_toto.check(out, small_workspace / BACKBONE, public, small_workspace) == [
        f"{out}: no signature by {public}"
    ]


def test_verify_requires_a_signature_where_a_key_is_given(workspace: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    statement = workspace / "artifacts/attestation/backbone.intoto.json"
    assert ["missing" in str(found) for found in verify(workspace, public_key=public)] == [True]
    in_toto.write(workspace / BACKBONE, statement, root=workspace)
    assert verify(workspace) == []
    assert ["not signed" in str(found) for found in verify(workspace, public_key=public)] == [True]
    in_toto.write(workspace / BACKBONE, statement, private, root=workspace)
    assert verify(workspace, public_key=public) == []
    edit(statement, '"sig": "', '"sig": "AAAA')
    assert ["no signature by" in str(found) for found in verify(workspace, public_key=public)] == [True]


def test_only_what_the_pipeline_made_is_attested(small_workspace: Path, tmp_path: Path) -> None:
    strange = tmp_path / "backbone.safetensors"
    strange.write_bytes(b"whatever")
    with pytest.raises(lock.LineageError, match=r"not an output in dvc\.lock"):
        in_toto.write(strange, tmp_path / "out.json", root=small_workspace)
    assert not (tmp_path / "out.json").exists()


def test_keys_that_cannot_be_used_are_named_without_their_content(
    small_workspace: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    out = tmp_path / "out.json"
    rsa_key = tmp_path / "rsa.pem"
    made = rsa.generate_private_key(65537, 2048)
    rsa_key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for wrong in (rsa_key, keys[1], small_workspace / "dvc.lock"):
        with pytest.raises(ValueError, match=re.escape(f"{wrong}: not an Ed25519 private key")) as error:
            in_toto.write(small_workspace / BACKBONE, out, wrong, small_workspace)
        assert "BEGIN" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such key file"):
        in_toto.write(small_workspace / BACKBONE, out, tmp_path / "none.pem", small_workspace)
    assert not out.exists()
    in_toto.write(small_workspace / BACKBONE, out, keys[0], small_workspace)
    with pytest.raises(ValueError, match="not an Ed25519 public key"):
        in_toto.check(out, small_workspace / BACKBONE, keys[0], small_workspace)


# model card ----------------------------------------------------------------------------------------------------


def test_hugging_face_reads_the_card_and_its_numbers_are_those_of_the_run(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "README.md"
    model_card.write(out, finished)
    read = ModelCard.load(out)
    assert read.data.model_name == "fra-small-orl"
    results = {(e.dataset_config, e.metric_type): e for e in read.data.eval_results or []}
    assert len(results) == len(read.data.eval_results or [])
    params = yaml.safe_load((finished / "params.yaml").read_text())
    assert {task for task, _ in results} == set(params["tasks"])
    for task in params["tasks"]:
        metrics = json.loads((finished / "artifacts/transfer" / task / "metrics.json").read_text())
        for metric, entry in metrics["pretrained"].items():
            found = results[task, metric]
            assert found.metric_value == pytest.approx(entry["mean"])
            assert found.metric_args["random_weights"] == pytest.approx(metrics["random"][metric]["mean"])
            low, high = found.metric_args["interval_95"]
            assert low <= high
    rules = json.loads((finished / "artifacts/validation/verdict.json").read_text())["expectations"]
    broken = [rule for rule in rules if rule["severity"] == "quarantine" and not rule["success"]]
    assert broken
    for rule in broken:
        assert f"{rule['unexpected_count']} quarantined: {rule['reason']}" in read.text
    assert read.text.count("**Small data**") == len(params["tasks"])
    assert sha256(finished / BACKBONE) in read.text
    assert str(params["train"]["lr"]) in read.text
    for heading in (
        "Intended use",
        "Training data",
        "Results",
        "Limits",
        "Faces are personal data",
        "Provenance",
    ):
        assert f"## {heading}\n" in read.text


def test_the_card_has_no_paths_of_the_machine_and_no_names(finished: Path) -> None:
    text = model_card.card(finished)
    assert str(finished.parent) not in text
    assert yaml.safe_load((finished / "params.yaml").read_text())["dataset"]["root"] not in text
    quarantine = pd.read_csv(finished / "artifacts/validation/quarantine.csv")
    assert not [source for source in quarantine["source"] if source in text]


def test_the_numbers_of_the_card_follow_the_records(workspace: Path) -> None:
    before = model_card.card(workspace)
    results = workspace / "artifacts/transfer/alignment/results.csv"
    table = pd.read_csv(results)
    chosen = (
        (table["model"] == "pretrained")
        & (table["metric"] == "nme")
        & table["seed"].isna()
        & table["group"].isna()
    )
    assert chosen.any()
    table.loc[chosen, ["value", "low", "high"]] = [0.4321, 0.4123, 0.4567]
    group = table[chosen].assign(group="Eyeglasses:difference", seed=0, value=0.0987, low=None, high=None)
    results.unlink()
    assert "Not measured: whether it serves groups" in before
    pd.concat([table, group]).to_csv(results, index=False)
    text = model_card.card(workspace)
    assert "43.2 % (41.2 to 45.7)" in text
    assert "Normalised mean error differs by 9.9 % between groups by `Eyeglasses`" in text
    assert "Not measured: whether it serves groups" not in text
    assert "value: 0.4321" in text


def test_the_card_of_a_stale_backbone_warns(workspace: Path) -> None:
    assert "Do not use" not in model_card.card(workspace)
    withdraw.withdraw("s3", "A. Officer", workspace)
    assert "**Do not use.**" in model_card.card(workspace)


def test_no_card_of_a_backbone_that_is_not_in_the_lock(workspace: Path) -> None:
    longer(workspace / BACKBONE)
    with pytest.raises(lock.LineageError, match=r"not an output in dvc\.lock"):
        model_card.write(workspace / "README.md", workspace)
