"""Lineage of a finished chain: an untouched workspace passes, each tampering is detected and named."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.serving import commit
from support.workspace import run_fra

from fra.validation import verdict
from pipelines.cli.compare import labels, side_by_side
from pipelines.lineage import verify as verification
from pipelines.lineage.approval import approve
from pipelines.lineage.impact import impact
from pipelines.lineage.page import page
from pipelines.lineage.problem import Problem, report
from pipelines.lineage.record import code, metadata, provenance
from pipelines.lineage.show import trace
from pipelines.repo.definition import definitions
from pipelines.repo.hashes import md5
from pipelines.repo.lock import LineageError, parse, read


def verify(workspace: Path, artifact: str | None = None) -> list[Problem]:
    return verification.verify(workspace, artifact).problems


def replace(path: Path, content: bytes) -> None:
    """Replaces a file, also where DVC made it read-only, without changing the object it is linked to."""
    path.unlink()
    path.write_bytes(content)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    replace(path, text.replace(old, new, 1).encode())


def cached(workspace: Path, name: str) -> Path:
    digest = next(stage.outs[name] for stage in read(workspace).values() if name in stage.outs)
    path = workspace / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    assert path.is_file()
    return path


def change_metadata(path: Path) -> None:
    """Another number of masks in the metadata of weights, with unchanged tensors."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    changed = header.replace(b'\\"num_masks\\": 4', b'\\"num_masks\\": 8')
    assert changed != header
    replace(path, content[:8] + changed + content[8 + size :])


def lock_digest(name: str) -> Callable[[Path], None]:
    """Another hash in dvc.lock wherever a path is an output."""

    def change(workspace: Path) -> None:
        lock = yaml.safe_load((workspace / "dvc.lock").read_text())
        for stage in lock["stages"].values():
            for out in stage.get("outs", []):
                if out["path"] == name:
                    out["md5"] = "0" * 32 + (".dir" if out["md5"].endswith(".dir") else "")
        replace(workspace / "dvc.lock", yaml.safe_dump(lock, sort_keys=False).encode())

    return change


def lock_text(old: str, new: str) -> Callable[[Path], None]:
    return lambda workspace: edit(workspace / "dvc.lock", old, new)


def on(name: str, action: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda workspace: action(workspace / name)


def edited_result_with_new_digest(workspace: Path) -> None:
    """A validation result with another number and a digest that agrees."""
    from fra.validation.verdict import digest

    path = workspace / "artifacts/validation/verdict.json"
    content = json.loads(path.read_text())
    del content["digest"]
    content["quarantined"] = 0
    replace(path, json.dumps({**content, "digest": digest(content)}, indent=2, sort_keys=True).encode())


def change_backbone_and_lock(workspace: Path) -> None:
    """A changed backbone whose new hash was put into dvc.lock: the transfer stages read another one."""
    path = workspace / "artifacts/pretrain/backbone.safetensors"
    flip(path)
    lock = yaml.safe_load((workspace / "dvc.lock").read_text())
    for out in lock["stages"]["pretrain"]["outs"]:
        if out["path"].endswith("backbone.safetensors"):
            out["md5"] = md5(path)
    replace(workspace / "dvc.lock", yaml.safe_dump(lock, sort_keys=False).encode())


TAMPERINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shard": (on("data/shards/orl/train-000000.tar", flip), "data/shards/orl"),
    "a shard's index": (on("data/shards/orl/index.json", flip), "data/shards/orl"),
    "a beton": (on("data/beton/orl/test.beton", flip), "data/beton/orl"),
    "a beton is missing": (on("data/beton/orl/val.beton", Path.unlink), "data/beton/orl"),
    "an additional shard": (
        on("data/shards/orl/train-000009.tar", lambda path: path.touch()),
        "data/shards/orl",
    ),
    "the manifest": (on("data/manifest/orl.parquet", flip), "data/manifest/orl.parquet"),
    "the records": (on("data/raw/orl/records.parquet", flip), "data/raw/orl"),
    "the validation result": (
        on("artifacts/validation/verdict.json", lambda path: edit(path, '"rows": 164', '"rows": 163')),
        "artifacts/validation/verdict.json",
    ),
    "the verdict, with a matching digest": (
        edited_result_with_new_digest,
        "artifacts/validation/verdict.json",
    ),
    "the quarantine list": (
        on("artifacts/validation/quarantine.csv", lambda path: edit(path, "empty", "full")),
        "artifacts/validation/quarantine.csv",
    ),
    "the Data Docs": (
        on("artifacts/validation/data_docs/index.html", flip),
        "artifacts/validation/data_docs",
    ),
    "params": (on("params.yaml", lambda path: edit(path, "num_masks: 4", "num_masks: 8")), "params.yaml"),
    "a parameter is missing": (
        on("params.yaml", lambda path: edit(path, "  num_masks: 4\n", "")),
        "params.yaml",
    ),
    "the graph": (
        on("dvc.yaml", lambda path: edit(path, "python -m pipelines.validate", "echo fine")),
        "dvc.lock",
    ),
    "code": (
        on("fra/method/losses.py", lambda path: edit(path, "import", "import ")),
        "fra/method/losses.py",
    ),
    "dvc.lock: an output's hash": (lock_digest("data/manifest/orl.parquet"), "dvc.lock"),
    "dvc.lock: a parameter": (lock_text("num_masks: 4", "num_masks: 8"), "params.yaml"),
    "dvc.lock: a command": (lock_text("cmd: python -m pipelines.shard", "cmd: echo fine"), "dvc.lock"),
    "dvc.lock: a stage renamed": (lock_text("  validate:\n", "  invalidate:\n"), "dvc.lock"),
    "the backbone": (
        on("artifacts/pretrain/backbone.safetensors", flip),
        "artifacts/pretrain/backbone.safetensors",
    ),
    "the backbone and dvc.lock": (change_backbone_and_lock, "dvc.lock"),
    "the provenance metadata": (
        on("artifacts/pretrain/model.safetensors", change_metadata),
        "artifacts/pretrain/model.safetensors",
    ),
    "metrics": (
        on("artifacts/transfer/alignment/metrics.json", flip),
        "artifacts/transfer/alignment/metrics.json",
    ),
    "predictions": (
        on("artifacts/transfer/expression/predictions.parquet", flip),
        "artifacts/transfer/expression/predictions.parquet",
    ),
    "a record": (
        on("artifacts/lineage/pretrain.json", lambda path: edit(path, "python", "Python")),
        "artifacts/lineage/pretrain.json",
    ),
    "the report": (on("artifacts/report/index.html", flip), "artifacts/report"),
    "a cached object": (
        lambda workspace: flip(cached(workspace, "artifacts/pretrain/backbone.safetensors")),
        r"\.dvc/cache/files/md5/",
    ),
    "a cached listing": (
        lambda workspace: flip(cached(workspace, "data/shards/orl")),
        r"\.dvc/cache/files/md5/",
    ),
}


def test_an_untouched_workspace_passes(finished: Path) -> None:
    assert verify(finished) == []


def some_are_slow(names: Iterable[str]) -> list[Any]:
    """The names; four of five are slow tests, as each verifies a whole workspace."""
    return [
        pytest.param(name, marks=pytest.mark.slow if place % 5 else ()) for place, name in enumerate(names)
    ]


@pytest.mark.parametrize("name", some_are_slow(TAMPERINGS))
def test_each_tampering_is_detected_and_named(name: str, workspace: Path) -> None:
    change, subject = TAMPERINGS[name]
    change(workspace)
    problems = verify(workspace)
    assert any(re.match(subject, problem.subject) for problem in problems), problems


def test_of_one_artifact_only_its_ancestry_is_verified(workspace: Path) -> None:
    flip(workspace / "artifacts/report/index.html")
    assert verify(workspace, "artifacts/pretrain/backbone.safetensors") == []
    assert verify(workspace, "artifacts/report/index.html")


def test_the_command_prints_the_result_and_what_was_not_checked(workspace: Path) -> None:
    done = run_fra(workspace, "lineage", "verify")
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "pass: every hash and record agrees")
    assert all(line.startswith("not checked: ") for line in lines[:-1])
    assert any("dvc.lock is in no git repository" in line for line in lines)
    assert any("there is no signed statement" in line for line in lines)
    flip(workspace / "data/manifest/orl.parquet")
    done = run_fra(workspace, "lineage", "verify")
    assert done.returncode == 1
    assert "data/manifest/orl.parquet: not what shard wrote" in done.stdout


def test_our_reading_of_dvc_yaml_is_that_of_dvc(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(finished)
    ours = definitions(Path("dvc.yaml").read_text(), yaml.safe_load(Path("params.yaml").read_text()))
    theirs = {stage.name: stage for stage in Repo(".").index.stages}
    assert ours.keys() == theirs.keys()
    for name, stage in theirs.items():
        assert set(ours[name].deps) == {dep.def_path for dep in stage.deps if dep.def_path != "params.yaml"}
        assert set(ours[name].outs) == {out.def_path for out in stage.outs}


def test_a_metric_is_traced_to_the_images(finished: Path) -> None:
    origin = trace("artifacts/transfer/alignment/metrics.json#pretrained.nme", finished)
    assert origin["made_by"] == "transfer@alignment"
    assert set(origin["stages"]) == {"ingest", "shard", "validate", "pretrain", "transfer@alignment"}
    pretrained = origin["stages"]["pretrain"]
    assert pretrained["params"]["model"]["num_masks"] == 4
    assert pretrained["environment"]["libraries"]["torch"]
    assert pretrained["environment"]["device"]
    assert origin["verdicts"][0]["success"] is True
    assert origin["images"][0]["images"] == 164


def test_a_section_of_the_report_is_traced_to_its_task(finished: Path) -> None:
    assert trace("artifacts/report/index.html#verification", finished)["made_by"] == "transfer@verification"
    assert trace("artifacts/report/index.html", finished)["made_by"] == "report"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("transfer/alignment/metrics.json#nothing", "no 'nothing' in it: 'nothing' is missing; there are: "),
        (
            "transfer/alignment/metrics.json#pretrained.nothing",
            "'pretrained.nothing' is missing; there are: auc05",
        ),
        ("transfer/alignment/metrics.json#pretrained.nme.mean.x", "there are: none"),
        ("transfer/alignment/results.csv#nme", "only JSON files and the report have parts"),
        ("report/index.html#nothing", "no section 'nothing'; sections are: alignment, "),
    ],
)
def test_a_part_that_does_not_exist_is_an_error(finished: Path, part: str, message: str) -> None:
    with pytest.raises(LineageError, match=re.escape(message)):
        trace(f"artifacts/{part}", finished)


def test_code_is_shown_file_by_file(finished: Path) -> None:
    ran = trace("artifacts/pretrain/backbone.safetensors", finished)["stages"]["pretrain"]["ran"]
    assert ran["fra/method/losses.py"] == md5(finished / "fra/method/losses.py")
    assert not any(digest.endswith(".dir") for digest in ran.values())


def test_problems_with_one_message_are_grouped() -> None:
    problems = [
        Problem(f"data/{number:02}", "stale: run `dvc repro`", f"MD5 {number}") for number in range(20)
    ]
    lines = report([*problems, Problem("dvc.lock", "has no stage report")], ["the remote"]).splitlines()
    assert lines[0] == "stale: run `dvc repro` (20):"
    assert lines[1] == "  data/00  MD5 0"
    assert "  and 12 more, which --json lists" in lines
    assert lines[-3:] == ["dvc.lock: has no stage report", "not checked: the remote", "21 problems"]


def test_a_copy_elsewhere_is_found_by_its_content(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "somewhere.safetensors"
    shutil.copy(finished / "artifacts/pretrain/backbone.safetensors", copy)
    assert trace(str(copy), finished)["made_by"] == "pretrain"


def test_weights_of_an_experiment_are_found_in_history(workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "theirs.safetensors"
    shutil.copy(workspace / "artifacts/pretrain/backbone.safetensors", copy)
    lock = (workspace / "dvc.lock").read_bytes()
    stream = []
    for number in range(30):  # of thirty experiments one wrote these bytes
        digest = read(workspace)["pretrain"].outs["artifacts/pretrain/backbone.safetensors"].encode()
        content = lock if number == 17 else lock.replace(digest, b"%032x" % number)
        stream.append(
            b"commit refs/exps/aa/exp-%d\ncommitter T <t@example.org> 0 +0000\ndata 0\n" % number
            + b"M 644 inline dvc.lock\ndata %d\n" % len(content)
            + content
            + b"\n"
        )
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=workspace, input=b"".join(stream), check=True)
    lock_digest("artifacts/pretrain/backbone.safetensors")(workspace)
    origin = trace(str(copy), workspace)
    assert (origin["run"], origin["made_by"]) == ("exp-17", "pretrain")
    assert len(impact("person", "s3", workspace)["datasets"]["orl"]["experiments"]) == 30


def test_provenance_in_weights_has_no_absolute_path() -> None:
    """A model is given away: it must not name folders of the machine, and so not its user."""
    values = {
        "transfer": {"pairs_file": "/home/ann/lfw/pairs.txt", "baselines": {"a": "~/a.pth"}, "seeds": 3}
    }
    found = provenance(values, {"/home/ann/imported.safetensors": "12", "data/manifest/a.parquet": "34"})
    assert found["params"] == {
        "transfer": {"pairs_file": "pairs.txt", "baselines": {"a": "a.pth"}, "seeds": 3}
    }
    assert found["inputs"] == {"imported.safetensors": "12", "data/manifest/a.parquet": "34"}


def test_weights_of_no_run_are_shown_by_their_metadata(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "changed.safetensors"
    shutil.copy(finished / "artifacts/pretrain/backbone.safetensors", copy)
    flip(copy)
    origin = trace(str(copy), finished)
    assert origin["run"] is None
    assert origin["metadata"]["provenance"] == metadata(copy)["provenance"]


def test_a_file_of_no_run_is_one_clear_error(finished: Path, tmp_path: Path) -> None:
    stray = tmp_path / "stray.txt"
    stray.write_text("hello")
    with pytest.raises(LineageError, match="no run in this project wrote this content"):
        trace(str(stray), finished)
    with pytest.raises(LineageError, match="artifacts are: artifacts/lineage"):
        trace("artifacts/nothing", finished)


def test_the_page_needs_no_network_and_links_its_stages(finished: Path) -> None:
    text = page(trace("artifacts/report/index.html", finished))
    assert "http" not in text.replace("http://www.w3.org", "")
    for name in ("ingest", "pretrain", "transfer@alignment"):
        assert f'href="#{name}"' in text
        assert f'id="{name}"' in text


def test_the_impact_of_a_person_is_every_artifact(finished: Path) -> None:
    found = impact("person", "s3", finished)["datasets"]["orl"]
    assert len(found["images"]) == 4
    assert found["shards"] == ["data/shards/orl/train-000000.tar"]
    stages = read(finished)
    assert set(found["stages"]) == set(stages)
    assert found["artifacts"].keys() == {out for stage in stages.values() for out in stage.outs}
    assert impact("key", "s3/1", finished)["datasets"]["orl"]["images"] == ["s3/1"]


def test_an_unknown_person_is_one_clear_error(finished: Path) -> None:
    with pytest.raises(LineageError, match="no data set has an image with person 'unknown'"):
        impact("person", "unknown", finished)


def test_an_approval_is_shown_until_the_data_change(workspace: Path) -> None:
    def command(by: str) -> subprocess.CompletedProcess[str]:
        return run_fra(workspace, "data", "approve", "--by", by)

    def approved() -> list[object]:
        return [found["approved"] for found in trace("artifacts/results.json", workspace)["verdicts"]]

    assert approved() == [None]
    assert command(" ").returncode == 1
    done = command("A. Officer")
    assert done.returncode == 0, done.stdout
    assert "approved by A. Officer: data/approved/orl.json" in done.stdout
    assert [record["signed_off_by"] for record in approved()] == ["A. Officer"]
    assert verify(workspace) == []
    file = workspace / "artifacts/validation/verdict.json"
    other = dataclasses.replace(verdict.read(file), rows=7)
    file.unlink()
    verdict.write(other, file)
    assert approved() == [None]
    named = {problem.subject: problem.message for problem in verify(workspace)}
    assert "A. Officer approved other data" in named["data/approved/orl.json"]


def test_a_failed_validation_is_not_approved(workspace: Path) -> None:
    file = workspace / "artifacts/validation/verdict.json"
    failed = dataclasses.replace(verdict.read(file), success=False, reasons=["too many"])
    file.unlink()
    verdict.write(failed, file)
    with pytest.raises(LineageError, match="did not pass; nothing is approved"):
        approve("A. Officer", workspace)
    assert not list((workspace / "data/approved").glob("*.json"))


def test_code_that_differs_from_the_recorded_commit_is_named(workspace: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        return subprocess.run(
            ("git", *identity, *arguments), cwd=workspace, capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    git("add", "fra", "pipelines", "dvc.yaml", "params.yaml")
    git("commit", "-q", "-m", "code")
    head = git("rev-parse", "HEAD").strip()
    record = workspace / "artifacts/lineage/pretrain.json"
    known = json.loads(record.read_text())
    replace(record, json.dumps({**known, "code": {"commit": head, "modified": False}}).encode())
    assert not [problem for problem in verify(workspace) if "not the code of commit" in problem.message]
    edit(workspace / "fra/train/optim.py", "import", "import ")
    git("commit", "-q", "-a", "-m", "other code")
    later = git("rev-parse", "HEAD").strip()
    replace(record, json.dumps({**known, "code": {"commit": later, "modified": False}}).encode())
    messages = [str(problem) for problem in verify(workspace)]
    assert any("fra/train: not the code of commit" in message for message in messages)


def test_the_chosen_parameters_are_no_change_of_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pipelines/conf/project.yaml is in the parameters, which are recorded; other files there are code."""
    for name in ("pipelines/conf/project.yaml", "pipelines/conf/model/mini.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    commit(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines/conf/project.yaml").write_text("a: 2\n")
    assert code()["modified"] is False
    (tmp_path / "pipelines/conf/model/mini.yaml").write_text("a: 2\n")
    assert code()["modified"] is True


def assert_in_order(page: Path) -> None:
    """In Chromium at desktop size: each title is above its table or chart, and left-aligned with it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    script = """() => [...document.querySelectorAll("section, figure:has(h3)")].map(box => {
        const [title, content] = [box.querySelector("h2, h3"), box.querySelector("table, svg")]
            .map(element => element.getBoundingClientRect());
        return [title.bottom <= content.top, title.left - box.getBoundingClientRect().left < 40];
    })"""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(page.as_uri())
        found = tab.evaluate(script)
        browser.close()
    assert found == [[True, True]] * 8, found  # two tables, gains, four tasks, losses


def add_experiment(workspace: Path, name: str, lock: bytes) -> None:
    header = f"commit refs/exps/aa/{name}\ncommitter T <t@example.org> 0 +0000\ndata 0\n".encode()
    stream = header + b"M 644 inline dvc.lock\ndata %d\n" % len(lock) + lock + b"\n"
    subprocess.run(["git", "fast-import", "--quiet"], cwd=workspace, input=stream, check=True)


def test_experiments_are_compared_on_one_page(workspace: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    lock = (workspace / "dvc.lock").read_bytes()
    add_experiment(workspace, "sixteen", lock.replace(b"num_masks: 4", b"num_masks: 16"))
    done = run_fra(workspace, "compare", "sixteen")
    assert done.returncode == 0, done.stdout
    text = (workspace / "artifacts/compare.html").read_text()
    assert re.search(
        r"model\.num_masks</th>.*workspace</th><td>4</td>.*sixteen</th><td>16</td>", text, re.DOTALL
    )
    assert "verification.roc_auc" in text
    assert text.count("<svg") == 5  # each task's gain over random weights, and the losses
    assert "num_masks 16: " in text or "num_masks 16;" in text
    assert "train.lr" not in text  # the same in both
    assert_in_order(workspace / "artifacts/compare.html")
    done = run_fra(workspace, "compare", "unknown")
    assert done.returncode == 1
    assert done.stdout.strip() == "error: no experiment 'unknown'; there are: sixteen"


@pytest.mark.slow
def test_runs_without_results_are_left_out_of_a_comparison(workspace: Path) -> None:
    """Such as a workspace in which a sweep was queued at once, and an experiment of which one stage was run."""
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    lock = (workspace / "dvc.lock").read_bytes()
    stages = yaml.safe_load(lock)
    del stages["stages"]["report"]
    (workspace / "dvc.lock").write_text(yaml.safe_dump(stages))
    add_experiment(workspace, "begun", yaml.safe_dump(stages).encode())
    done = run_fra(workspace, "compare")
    assert done.returncode == 1
    assert done.stdout.strip().startswith("error: no run has artifacts/results.json yet")
    add_experiment(workspace, "sixteen", lock.replace(b"num_masks: 4", b"num_masks: 16"))
    done = run_fra(workspace, "compare")
    assert done.returncode == 0, done.stdout
    assert "left out because they are not finished: workspace, begun" in done.stdout
    assert "begun" not in (workspace / "artifacts/compare.html").read_text()
    done = run_fra(workspace, "compare", "begun")
    assert done.returncode == 1
    assert done.stdout.startswith("error: experiment 'begun' has no artifacts/results.json")


def test_a_run_of_an_ablation_is_labelled_by_its_unusual_parameters() -> None:
    usual = {"model.num_masks": 8, "objective.relation_weight": 0.05, "train.lr": 0.1, "train.seed": 0}
    runs = {
        "a": usual,
        "b": usual | {"model.num_masks": 1},
        "c": usual | {"objective.relation_weight": 0.0},
        "d": usual | {"train.lr": 0.2, "train.seed": 1},
    }
    assert labels(runs) == {
        "a": "as most runs",
        "b": "num_masks 1",
        "c": "relation_weight 0",
        "d": "lr 0.2, seed 1",
    }
    assert labels(runs | {"e": usual})["b"] == "b", "two alike: their names tell them apart"
    assert labels({"alone": {}}) == {"alone": "alone"}


def test_the_longer_side_of_a_table_is_vertical() -> None:
    columns, rows = side_by_side({"one": {"x": 1, "y": 2}, "two": {"x": 3}})
    assert (columns, rows) == (["", "one", "two"], [["x", "1", "3"], ["y", "2", "–"]])
    columns, rows = side_by_side({"one": {"x": 1}, "two": {"x": 3}})
    assert (columns, rows) == (["", "x"], [["one", "1"], ["two", "3"]])


def test_a_merge_conflict_in_the_lock_file_has_its_remedy() -> None:
    text = "schema: '2.0'\nstages:\n<<<<<<< HEAD\n  ingest:\n=======\n  shard:\n>>>>>>> theirs\n    cmd: x\n"
    for content in (text, text.encode()):
        with pytest.raises(LineageError, match="take one side"):
            parse(content)
    with pytest.raises(LineageError, match="not a lock file"):
        parse("stages: [")
