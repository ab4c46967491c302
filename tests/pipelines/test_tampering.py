"""Tampering with dvc.lock made to agree: each is detected, or `verify` lists it among what it cannot check.

The workspace is in no git repository and has no run cache, so that nothing but the artifacts and their records can
contradict dvc.lock. A second test repeats those that are only listed with the run cache, which detects them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from fra.files import sha256
from fra.validation import verdict
from pipelines.lineage.attest import attest
from pipelines.lineage.verify import verify
from pipelines.repo.hashes import Hashes
from pipelines.repo.lock import LineageError

PRETRAIN, TASK = Path("artifacts/pretrain"), Path("artifacts/transfer/alignment")
VALIDATION, RECORDS = Path("artifacts/validation"), Path("artifacts/lineage")


def replace(path: Path, content: bytes) -> None:
    """Writes a new file, so that hard links to the old one keep their content."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def flip(name: str | Path, place: float = 0.5) -> Callable[[Path], None]:
    """Inverts one bit."""

    def change(workspace: Path) -> None:
        content = bytearray((workspace / name).read_bytes())
        content[int(len(content) * place)] ^= 1
        replace(workspace / name, bytes(content))

    return change


def edit(name: str | Path, old: str, new: str) -> Callable[[Path], None]:
    """Replaces the first occurrence of a text."""

    def change(workspace: Path) -> None:
        text = (workspace / name).read_text(encoding="utf-8")
        assert old in text, name
        replace(workspace / name, text.replace(old, new, 1).encode())

    return change


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    """Several changes, one after the other."""

    def change(workspace: Path) -> None:
        for each in changes:
            each(workspace)

    return change


def json_file(name: str | Path, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Changes the content of a JSON file."""

    def apply(workspace: Path) -> None:
        content = json.loads((workspace / name).read_text(encoding="utf-8"))
        change(content)
        replace(workspace / name, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

    return apply


def yaml_file(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Changes the content of a YAML file."""

    def apply(workspace: Path) -> None:
        content = yaml.safe_load((workspace / name).read_text(encoding="utf-8"))
        change(content)
        replace(workspace / name, yaml.safe_dump(content, sort_keys=False).encode())

    return apply


def param(section: str, key: str, value: Any) -> Callable[[Path], None]:
    """Another value of a parameter, in params.yaml and in every stage of dvc.lock."""

    def lock(content: Any) -> None:
        for stage in content["stages"].values():
            params = stage.get("params", {}).get("params.yaml", {})
            if section in params:
                params[section][key] = value

    return both(
        yaml_file("params.yaml", lambda content: content[section].update({key: value})),
        yaml_file("dvc.lock", lock),
    )


def without(kind: str, stage: str, path: str) -> Callable[[Path], None]:
    """A dependency or output removed from dvc.yaml and dvc.lock."""

    def graph(content: Any) -> None:
        content["stages"][stage][kind].remove(path)

    def lock(content: Any) -> None:
        entries = content["stages"][stage][kind]
        named = path.replace("${dataset.name}", "orl")
        content["stages"][stage][kind] = [entry for entry in entries if entry["path"] != named]

    return both(yaml_file("dvc.yaml", graph), yaml_file("dvc.lock", lock))


def without_stage(name: str) -> Callable[[Path], None]:
    """A stage removed from dvc.yaml and dvc.lock."""
    return both(
        *(yaml_file(file, lambda content: content["stages"].pop(name)) for file in ("dvc.yaml", "dvc.lock"))
    )


def command(stage: str, text: str) -> Callable[[Path], None]:
    """Another command in dvc.yaml and dvc.lock."""
    return both(
        *(
            yaml_file(file, lambda content: content["stages"][stage].update(cmd=text))
            for file in ("dvc.yaml", "dvc.lock")
        )
    )


def new_digest(**fields: Any) -> Callable[[Path], None]:
    """A validation result with other content and a digest that agrees."""

    def change(content: Any) -> None:
        del content["digest"]
        content.update(fields)
        content["digest"] = verdict.digest(content)

    return json_file(VALIDATION / "verdict.json", change)


def shard_and_index(workspace: Path) -> None:
    """A changed shard whose new hash is in index.json."""
    shard = "data/shards/orl/train-000000.tar"
    flip(shard)(workspace)

    def change(content: Any) -> None:
        content["splits"]["train"]["shards"][0]["sha256"] = sha256(workspace / shard)

    json_file("data/shards/orl/index.json", change)(workspace)


def additional_shard(workspace: Path) -> None:
    shutil.copy(workspace / "data/shards/orl/val-000000.tar", workspace / "data/shards/orl/train-000001.tar")


def manifest_label(workspace: Path) -> None:
    """Another split of one image."""
    path = workspace / "data/manifest/orl.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "split"] = "test"
    path.unlink()
    table.to_parquet(path)


def better_predictions(workspace: Path) -> None:
    """Predictions equal to the truth, with the stored metrics unchanged."""
    path = workspace / TASK / "predictions.parquet"
    table = pd.read_parquet(path)
    table["prediction"] = table["truth"]
    path.unlink()
    table.to_parquet(path)


def approval(**fields: Any) -> Callable[[Path], None]:
    """An approval written without the command; `fields` differ from a correct one."""

    def change(workspace: Path) -> None:
        result = json.loads((workspace / VALIDATION / "verdict.json").read_text())
        content = {key: result[key] for key in ("dataset", "digest", "rows", "quarantined")} | {
            "verdict": str(VALIDATION / "verdict.json"),
            "signed_off_by": "A. Forger",
            "date": "2026-01-01",
        }
        (workspace / "data/approved").mkdir(parents=True, exist_ok=True)
        (workspace / "data/approved/orl.json").write_text(json.dumps(content | fields))

    return change


def text_file(name: str, text: str) -> Callable[[Path], None]:
    def change(workspace: Path) -> None:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        replace(workspace / name, text.encode())

    return change


LOSS = '"loss":'
NOT_RECORDED = "neither DVC's run cache nor git has a run to compare"
IN_NO_COMMIT = "by their records it was in none"

DETECTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "backbone: a tensor": (
        flip(PRETRAIN / "backbone.safetensors", 0.9),
        "backbone.safetensors: changed since it was",
    ),
    "model: a tensor": (flip(PRETRAIN / "model.safetensors", 0.9), "model.safetensors: changed since it was"),
    "model: truncated": (
        lambda workspace: replace(
            workspace / PRETRAIN / "model.safetensors",
            (workspace / PRETRAIN / "model.safetensors").read_bytes()[:-9],
        ),
        "model.safetensors: ",
    ),
    "pretrain: metrics": (
        flip(PRETRAIN / "metrics.json"),
        "pretrain/metrics.json: dvc.lock has another hash",
    ),
    "pretrain: history": (flip(PRETRAIN / "history.csv"), "history.csv: dvc.lock has another hash"),
    "profile": (flip(VALIDATION / "profile.json"), "profile.json: not the bytes that"),
    "quarantine list: emptied": (
        lambda workspace: replace(
            workspace / VALIDATION / "quarantine.csv",
            (workspace / VALIDATION / "quarantine.csv").read_bytes().splitlines(keepends=True)[0],
        ),
        "quarantine.csv: not the bytes that",
    ),
    "validation result: a number": (
        edit(VALIDATION / "verdict.json", '"rows": 164', '"rows": 163'),
        "edited after",
    ),
    "validation result: a number and the digest": (
        new_digest(rows=163),
        "verdict.json: dvc.lock has another hash",
    ),
    "validation result: no files, and the digest": (
        new_digest(validated_files={}),
        "verdict.json: dvc.lock has another hash",
    ),
    "Data Docs": (flip(VALIDATION / "data_docs/index.html"), "data_docs: dvc.lock has another hash"),
    "shard": (flip("data/shards/orl/train-000000.tar"), "train-000000.tar: not the bytes that data/shards"),
    "shard and index": (shard_and_index, "train-000000.tar: not the bytes that artifacts/validation"),
    "shard: additional": (additional_shard, "train-000001.tar: not in data/shards/orl/index.json"),
    "shard: missing": (
        lambda workspace: (workspace / "data/shards/orl/val-000000.tar").unlink(),
        "val-000000.tar: missing",
    ),
    "index: a number": (
        edit("data/shards/orl/index.json", '"images": 40', '"images": 41'),
        "not the bytes that",
    ),
    "beton of training": (flip("data/beton/orl/train.beton"), "its metadata name another data/beton"),
    "beton of the test": (flip("data/beton/orl/test.beton"), "test.beton: not the bytes that"),
    "manifest": (manifest_label, "orl.parquet: not the bytes that"),
    "records": (flip("data/raw/orl/records.parquet"), "data/raw/orl: dvc.lock has another hash"),
    "task: a metric": (
        json_file(TASK / "metrics.json", lambda content: content["pretrained"]["nme"].update(mean=0.01)),
        "metrics.json: not what the stored predictions give",
    ),
    "task: predictions": (better_predictions, "not what the stored predictions give"),
    "task: results": (edit(TASK / "results.csv", ",nme,0.", ",nme,0.0"), "results.csv: not what the stored"),
    "task: curves": (flip(TASK / "curves/errors.csv"), "curves"),
    "report: HTML": (flip("artifacts/report/index.html"), "report: dvc.lock has another hash"),
    "results of all tasks": (flip("artifacts/results.json"), "results.json: dvc.lock has another hash"),
    "parameter: transfer.seeds": (
        param("transfer", "seeds", 5),
        "has 2 seeds, dvc.lock has transfer.seeds 5",
    ),
    "parameter: validate.max_quarantined": (
        param("validate", "max_quarantined", 0.5),
        "was computed with max_quarantined 0.05",
    ),
    "parameter: train.lr": (param("train", "lr", 0.5), "its metadata name other `train` parameters"),
    "parameter: shard.jpeg_quality": (param("shard", "jpeg_quality", 10), "shard ran with other parameters"),
    "graph: a stage removed": (without_stage("report"), "report.json: the record of a stage that dvc.lock"),
    "graph: a dependency removed": (
        without("deps", "validate", "fra/validation"),
        "validate read other files",
    ),
    "graph: an output removed": (
        without("outs", "pretrain", "artifacts/pretrain/history.csv"),
        "history.csv: dvc.lock has another hash",
    ),
    "graph: a record removed": (
        without("outs", "pretrain", "artifacts/lineage/pretrain.json"),
        "pretrain does not write its record",
    ),
    "graph: a command": (command("validate", "echo passed"), "dvc.lock has another command"),
    "requirements.lock": (edit("requirements.lock", "==", "== "), "requirements.lock: not the libraries"),
    "code of a stage": (
        edit("pipelines/pretrain.py", "import", "import "),
        "pipelines/pretrain.py: not the code",
    ),
    "code of all stages": (
        edit("pipelines/stage.py", "import", "import "),
        "pipelines/stage.py: not the code",
    ),
    "code of the library": (
        edit("fra/method/losses.py", "import", "import "),
        "fra/method/losses.py: not the code",
    ),
    "record: an output": (
        json_file(RECORDS / "pretrain.json", lambda content: content["outs"].popitem()),
        "dvc.lock has another hash than artifacts/lineage/pretrain.json",
    ),
    "record: not JSON": (text_file("artifacts/lineage/pretrain.json", "{"), "pretrain.json: not a record"),
    "approval: other numbers": (
        approval(rows=400),
        "orl.json: differs from artifacts/validation/verdict.json in rows",
    ),
    "approval: no name": (approval(signed_off_by=" "), "orl.json: not an approval"),
    "approval: not JSON": (text_file("data/approved/orl.json", "yes"), "orl.json: not an approval"),
    "withdrawal: not a record": (
        text_file("data/withdrawn/orl/s1.json", "{}"),
        "s1.json: not a withdrawal record",
    ),
    "YAML aliases": (
        lambda workspace: replace(
            workspace / "params.yaml", (workspace / "params.yaml").read_bytes() + b"a: &a [1]\nb: [*a, *a]\n"
        ),
        "YAML aliases",
    ),
}

LISTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "approval: correct, but written without the command": (approval(), "that A. Forger gave this approval"),
    "record: the environment": (
        json_file(RECORDS / "pretrain.json", lambda content: content["environment"].update(python="2.7")),
        NOT_RECORDED,
    ),
    "record: the commit": (
        json_file(RECORDS / "pretrain.json", lambda content: content["code"].update(modified=True)),
        IN_NO_COMMIT,
    ),
    "code: a file that was not imported": (edit("fra/report/templates/style.css", "{", "{ "), IN_NO_COMMIT),
    "data: annotations": (edit("data/orl/annotations.csv", "s1/", "s2/"), IN_NO_COMMIT),
    "report and its record": (
        both(
            flip("artifacts/report/index.html"),
            lambda workspace: json_file(
                RECORDS / "report.json",
                lambda content: content["outs"].update(
                    {"artifacts/report": Hashes(workspace).of("artifacts/report")}
                ),
            )(workspace),
        ),
        NOT_RECORDED,
    ),
}


@pytest.fixture
def linked(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workspace by hard links, without DVC's run cache."""
    workspace = tmp_path / "workspace"
    ignore = shutil.ignore_patterns("__pycache__", "runs")
    shutil.copytree(finished, workspace, copy_function=os.link, ignore=ignore)
    return workspace


def relock(workspace: Path) -> None:
    """Makes dvc.lock agree with every file in the workspace, as `dvc commit` does."""
    hashes = Hashes(workspace)

    def change(content: Any) -> None:
        for stage in content["stages"].values():
            for entry in (*stage.get("deps", []), *stage.get("outs", [])):
                entry["md5"] = hashes.of(entry["path"]) or entry["md5"]

    yaml_file("dvc.lock", change)(workspace)


def test_forty_tamperings() -> None:
    assert len(DETECTED) + len(LISTED) >= 40


EVERY_TIME = 4
"""Tamperings that run with the quick tests, evenly over the list; the others are slow ones."""


def spread_over(names: list[str]) -> list[Any]:
    step = -(-len(names) // EVERY_TIME)
    return [
        name if place % step == 0 else pytest.param(name, marks=pytest.mark.slow)
        for place, name in enumerate(names)
    ]


@pytest.mark.parametrize("name", spread_over(list(DETECTED)))
def test_it_is_detected_although_the_lock_agrees(name: str, linked: Path) -> None:
    change, expected = DETECTED[name]
    change(linked)
    relock(linked)
    found = [str(problem) for problem in verify(linked).problems]
    assert any(expected in problem for problem in found), found
    assert not any(re.search(r"not what \w+ (read|wrote)", problem) for problem in found), (
        "dvc.lock does not agree"
    )


@pytest.mark.parametrize("name", spread_over(list(LISTED)))
def test_it_is_listed_as_not_checked(name: str, linked: Path, finished: Path) -> None:
    change, expected = LISTED[name]
    change(linked)
    relock(linked)
    found = verify(linked)
    assert found.problems == []
    assert any(expected in limit for limit in found.limits), found.limits
    if "approval" not in name:
        shutil.copytree(finished / ".dvc/cache/runs", linked / ".dvc/cache/runs", copy_function=os.link)
        assert any("is not a recorded run" in str(problem) for problem in verify(linked).problems)


def test_what_does_not_verify_is_not_attested(linked: Path, tmp_path: Path) -> None:
    backbone, out = linked / PRETRAIN / "backbone.safetensors", tmp_path / "statement.json"
    assert attest(backbone, out, root=linked) is False
    out.unlink()
    flip(PRETRAIN / "backbone.safetensors", 0.9)(linked)
    relock(linked)
    with pytest.raises(LineageError, match="not attested, as its lineage does not verify"):
        attest(backbone, out, root=linked)
    assert not out.exists()


def test_a_remote_that_does_not_exist_is_an_error(linked: Path, tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="nowhere: no such folder, or not a DVC remote"):
        verify(linked, remote=tmp_path / "nowhere")
