"""The whole chain with `dvc repro`, on few images and with a tiny network."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from support.workspace import add_bad_files, environment, few_faces, make_workspace, run, run_fra

from fra.validation.verdict import ValidationFailed
from fra.weights.files import read_weights
from pipelines.pretrain import pretrain
from pipelines.transfer import transfer

TASKS = ("expression", "attributes", "alignment", "verification")
ARTIFACTS = (
    "data/raw/orl/records.parquet",
    "data/shards/orl/index.json",
    "data/shards/orl/train-000000.tar",
    "data/beton/orl/train.beton",
    "data/manifest/orl.parquet",
    "artifacts/validation/verdict.json",
    "artifacts/validation/quarantine.csv",
    "artifacts/validation/data_docs/index.html",
    "artifacts/pretrain/backbone.safetensors",
    "artifacts/pretrain/model.safetensors",
    "artifacts/pretrain/metrics.json",
    "artifacts/pretrain/history.csv",
    *(
        f"artifacts/transfer/{task}/{name}"
        for task in TASKS
        for name in ("metrics.json", "predictions.parquet", "model.safetensors")
    ),
    "artifacts/report/index.html",
    "artifacts/results.json",
)


def ran(output: str) -> list[str]:
    """Returns the stages that DVC ran, in order."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_every_artifact_is_written(finished: Path) -> None:
    assert [name for name in ARTIFACTS if not (finished / name).is_file()] == []


def test_metrics_are_recomputed_and_curves_are_plotted(finished: Path) -> None:
    """By `fra transfer recompute` and `dvc plots`."""
    done = run_fra(finished, "transfer", "recompute")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == [f"{task}: pass" for task in sorted(TASKS)]
    done = run(finished, "dvc", "plots", "show", "--json")
    plots = json.loads(done.stdout)["data"]
    for name, x, places in (("errors, alignment", "error", 101), ("ROC, verification", "false_accepts", 101)):
        (drawn,) = [plot[0]["content"] for title, plot in plots.items() if name in title]
        assert drawn["encoding"]["x"]["field"] == x
        assert len(drawn["data"]["values"]) == 2 * places  # pre-trained and random
    assert sum("few labels" in title for title in plots) == 3


def test_task_models_give_the_stored_predictions(finished: Path, tmp_path: Path) -> None:
    """`fra predict` on the images' files: the landmarks of the evaluation, to 1e-6 of a pixel of 100."""
    model = "artifacts/transfer/alignment/model.safetensors"
    out = tmp_path / "points.parquet"
    faces = Path(yaml.safe_load((finished / "params.yaml").read_text())["dataset"]["root"])
    stored = pd.read_parquet(finished / "artifacts/transfer/alignment/predictions.parquet")
    stored = stored.query("model == 'pretrained' and seed == 0 and fraction == 1 and protocol == 'linear'")
    source = pd.read_parquet(finished / "data/manifest/orl.parquet").set_index("key")["source"]
    images = {str(faces / source[key]): key for key in stored["key"].unique()}
    done = run_fra(finished, "predict", model, *images, "-o", str(out))
    assert done.returncode == 0, done.stdout
    table = pd.read_parquet(out)
    found = table.set_index(table["image"].map(images))[list(stored["output"].unique())].stack()
    wanted = stored.set_index(["key", "output"])["prediction"]
    assert (found.loc[wanted.index] - wanted).abs().max() < 1e-4


def test_task_models_have_lineage(finished: Path) -> None:
    model = "artifacts/transfer/expression/model.safetensors"
    done = run_fra(finished, "lineage", "show", model)
    assert done.returncode == 0, done.stdout
    assert "transfer@expression" in done.stdout
    assert "artifacts/pretrain/backbone.safetensors" in done.stdout
    _, metadata = read_weights(finished / model)
    assert "artifacts/pretrain/backbone.safetensors" in metadata["provenance"]["inputs"]
    assert str(finished) not in json.dumps(metadata)
    person = pd.read_parquet(finished / "data/manifest/orl.parquet")["person"].iloc[0]
    found = json.loads(run_fra(finished, "lineage", "who", "--subject", person).stdout)
    assert model in found["datasets"]["orl"]["artifacts"]  # so a withdrawal marks it as stale


def test_regions_are_compared_with_untrained_networks(finished: Path) -> None:
    metrics = json.loads((finished / "artifacts/report/regions.json").read_text())
    assert set(metrics) == {"pretrained", "random", "colours", "features", "place"}


@pytest.mark.slow
def test_backbone_of_an_experiment_becomes_a_baseline(workspace: Path) -> None:
    """It is read from DVC's cache; a baseline must be in the folder that the stage depends on."""
    lock = (workspace / "dvc.lock").read_bytes()
    header = b"commit refs/exps/aa/byol\ncommitter T <t@example.org> 0 +0000\ndata 0\n"
    stream = header + b"M 644 inline dvc.lock\ndata %d\n%s\n" % (len(lock), lock)
    subprocess.run(["git", "init", "--quiet"], cwd=workspace, check=True)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=workspace, input=stream, check=True)
    refused = run_fra(workspace, "transfer", "baseline", "absent")
    assert (refused.returncode, refused.stdout) == (1, "error: no experiment 'absent'; there are: byol\n")
    done = run_fra(workspace, "transfer", "baseline", "byol")
    assert done.returncode == 0, done.stdout
    taken = workspace / "data/baselines/byol.safetensors"
    assert taken.read_bytes() == (workspace / "artifacts/pretrain/backbone.safetensors").read_bytes()
    params = workspace / "params.yaml"
    text = params.read_text()
    for file, code in (
        ("elsewhere/byol.safetensors", 1),
        ("demo", 0),
        ("data/baselines/byol.safetensors", 0),
    ):
        params.write_text(text.replace("baselines: {}", f"baselines:\n    byol: {file}"))
        done = run(workspace, sys.executable, "-m", "pipelines.transfer", "verification")
        assert done.returncode == code, done.stdout
    metrics = json.loads((workspace / "artifacts/transfer/verification/metrics.json").read_text())
    assert metrics["byol"] == metrics["pretrained"]
    assert "data/baselines" in run(workspace, "dvc", "status", "transfer@expression").stdout


def test_second_repro_runs_nothing(workspace: Path) -> None:
    done = run(workspace, "dvc", "repro")
    assert done.returncode == 0, done.stdout
    assert ran(done.stdout) == []


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("fra/data/datasets/adapters/celeba.py", {"ingest"}),
        ("fra/transfer/heads.py", {"transfer", "report"}),
        ("fra/method/losses.py", {"pretrain", "report"}),
    ],
    ids=["adapter", "task head", "loss"],
)
def test_an_edit_changes_these_stages_only(workspace: Path, edited: str, stages: set[str]) -> None:
    """As DVC sees it; stages after these run if their outputs differ."""
    with (workspace / edited).open("a") as file:
        file.write("# an edit\n")
    done = run(workspace, "dvc", "status", "--json")
    assert {name.partition("@")[0] for name in json.loads(done.stdout)} == stages


def test_bad_files_are_named_and_quarantined(finished: Path) -> None:
    quarantined = pd.read_csv(finished / "artifacts/validation/quarantine.csv").set_index("source")["reason"]
    assert set(quarantined.index) == {
        f"s1/{name}" for name in ("text.jpg", "truncated.pgm", "empty.png", "dot.png")
    }
    assert "0 bytes" in quarantined["s1/empty.png"]
    assert "shorter than 32 pixels" in quarantined["s1/dot.png"]
    log = (finished / "log.txt").read_text()
    assert all(f"quarantined: {name}" in log for name in quarantined.index)


def test_backbone_contains_its_provenance(finished: Path) -> None:
    _, metadata = read_weights(finished / "artifacts/pretrain/backbone.safetensors")
    provenance = metadata["provenance"]
    assert provenance["params"]["model"]["num_masks"] == 4
    assert "data/beton/orl/train.beton" in provenance["inputs"]
    assert str(finished) not in json.dumps(metadata)


@pytest.mark.slow
def test_changed_num_masks_runs_pretraining_and_later_stages_only(workspace: Path) -> None:
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("num_masks: 4", "num_masks: 2"))
    done = run(workspace, "dvc", "repro")
    assert done.returncode == 0, done.stdout
    assert ran(done.stdout) == [
        "pretrain",
        *sorted((f"transfer@{task}" for task in TASKS), key=ran(done.stdout).index),
        "report",
    ]


@pytest.mark.slow
def test_too_many_damaged_files_stop_the_run(tmp_path: Path) -> None:
    faces = few_faces(tmp_path / "faces")
    add_bad_files(faces)
    (tmp_path / "workspace").mkdir()
    workspace = make_workspace(
        tmp_path / "workspace", f"dataset.root={faces}", "validate.max_quarantined=0.01"
    )
    done = run(workspace, "dvc", "repro", "pretrain")
    assert done.returncode != 0
    assert "4 of 164 images would be quarantined, more than validate.max_quarantined 1.0%" in done.stdout
    assert "pretrain" not in ran(done.stdout)
    verdict = json.loads((workspace / "artifacts/validation/verdict.json").read_text())
    assert not verdict["success"]


def flip_a_byte(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()  # a read-only link to DVC's cache
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


CHANGED = "{victim}: changed since it was validated"
VICTIMS = {
    "data/shards/orl/val-000000.tar": CHANGED,
    "data/beton/orl/train.beton": CHANGED,
    "data/manifest/orl.parquet": CHANGED,
    "artifacts/validation/quarantine.csv": CHANGED,
    "artifacts/validation/verdict.json": (
        "{victim}: not a validation result|{victim}: edited after it was written"
    ),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_one_changed_byte_stops_pretraining_and_transfer(
    workspace: Path, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_a_byte(workspace / victim)
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(sys, "argv", ["transfer", "expression"])
    for stage in (pretrain, transfer):
        with pytest.raises(ValidationFailed, match=VICTIMS[victim].format(victim=re.escape(victim))):
            stage()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [["pipelines.pretrain"], ["pipelines.transfer", "expression"]])
def test_the_error_of_a_stage_is_one_line(workspace: Path, stage: list[str]) -> None:
    flip_a_byte(workspace / "data/shards/orl/val-000000.tar")
    done = run(workspace, sys.executable, "-m", *stage)
    assert done.returncode == 1
    assert "val-000000.tar: changed since it was validated" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout


@pytest.mark.slow  # quickly in tests/data/test_loader.py
def test_loader_webdataset_is_a_parameter(workspace: Path) -> None:
    done = run(
        workspace,
        sys.executable,
        "-m",
        "pipelines.params",
        "recipe=tiny",
        "data.loader=webdataset",
        "dataset.root=/unused",
    )
    assert done.returncode == 0, done.stdout
    done = run(workspace, sys.executable, "-m", "pipelines.pretrain")
    assert done.returncode == 0, done.stdout
    assert "pre-trained: loss" in done.stdout


@pytest.mark.slow
def test_probe_is_a_parameter(workspace: Path) -> None:
    """The weights stay the same."""
    before = read_weights(workspace / "artifacts/pretrain/model.safetensors")[0]
    done = run(workspace, sys.executable, "-m", "pipelines.params", "recipe=tiny", "probe=knn")
    assert done.returncode == 0, done.stdout
    done = run(workspace, "dvc", "repro", "-s", "pretrain")
    assert done.returncode == 0, done.stdout
    after = read_weights(workspace / "artifacts/pretrain/model.safetensors")[0]
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    history = pd.read_csv(workspace / "artifacts/pretrain/history.csv")
    assert history["knn"].between(0, 1).all()
    done = run(workspace, "dvc", "plots", "show", "--json")
    assert any("nearest neighbours" in title for title in json.loads(done.stdout)["data"])


@pytest.mark.slow
def test_dvc_repro_continues_an_interrupted_pretraining(workspace: Path) -> None:
    """After a stop signal and after kill -9 no incomplete output is left; the weights equal those of one whole run."""
    lock = (workspace / "dvc.lock").read_bytes()
    longer = ["train.epochs=60", "train.checkpoint_every=3"]
    done = run(workspace, sys.executable, "-m", "pipelines.params", "recipe=tiny", *longer)
    assert done.returncode == 0, done.stdout
    command = ["dvc", "repro", "-s", "pretrain"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = newest_checkpoint(workspace)
        process = subprocess.Popen(command, cwd=workspace, env=environment(), start_new_session=True)
        while newest_checkpoint(workspace) <= before:
            assert process.poll() is None, "ended too early"
            time.sleep(0.05)
        os.killpg(process.pid, number)
        assert process.wait(60) != 0
        assert not (workspace / "artifacts/pretrain/backbone.safetensors").exists()
        assert (workspace / "dvc.lock").read_bytes() == lock
    done = run(workspace, *command)
    assert done.returncode == 0, done.stdout
    assert re.search(r"continuing at step \d+", done.stdout), done.stdout
    weights = read_weights(workspace / "artifacts/pretrain/model.safetensors")[0]
    done = run(workspace, *command, "--force")
    assert "continuing at step" not in done.stdout
    undisturbed = read_weights(workspace / "artifacts/pretrain/model.safetensors")[0]
    assert [name for name in weights if not torch.equal(weights[name], undisturbed[name])] == []


def newest_checkpoint(workspace: Path) -> str:
    """Returns its name; empty if there is none."""
    return max((path.name for path in workspace.glob(".work/checkpoints/*/step-*.pt")), default="")


def test_wrong_root_is_reported_in_one_line(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "dataset=folder", "dataset.root=/nowhere/faces")
    done = run(workspace, sys.executable, "-m", "pipelines.ingest")
    assert done.returncode == 1
    assert done.stdout.strip() == (
        "error: ingest: /nowhere/faces: no such folder; set dataset.root to the folder that holds the images"
    )
