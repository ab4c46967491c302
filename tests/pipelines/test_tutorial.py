"""Every command of the tutorial and the Python in it, on 120 photographs and with a quick recipe."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.workspace import ROOT, few_faces, make_workspace, run

PAGE = ROOT / "docs/tutorial.md"
PHOTOS = "/path/to/photos"
SET_UP = ("make .venv/ready", "source ")
QUICK = " recipe=tiny ++transfer.baselines.released=demo"
"""Added to the parameters: seconds of training instead of minutes, with the baseline of the default recipe."""


def blocks() -> list[tuple[str, str]]:
    """(language, code) of each block of the page, in order; shell has no language."""
    return re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def own_photographs(folder: Path) -> Path:
    """Four photographs of each embedded person who is not a test person: those would be quarantined as copies."""
    few_faces(folder)
    splits = pd.read_csv(ROOT / "data/orl/splits.csv")
    for subject in splits["subject"][splits["split"] == "test"]:
        shutil.rmtree(folder / f"s{subject}")
    return folder


def add_labels(photos: Path) -> None:
    """Writes the labels.csv that the tutorial describes, with the embedded annotations."""
    table = pd.read_csv(ROOT / "data/orl/annotations.csv", usecols=["image", "subject", "Smiling"])
    table = table[[(photos / image).is_file() for image in table["image"]]]
    table.insert(1, "person", "s" + table.pop("subject").astype(str))
    table.to_csv(photos / "labels.csv", index=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "workspace")
    photos = own_photographs(tmp_path / "photos")
    seen = []
    for language, code in blocks():
        if language == "csv":
            add_labels(photos)
            header = (photos / "labels.csv").read_text().splitlines()[0]
            assert code.splitlines()[0] == header
            continue
        code = code.replace(PHOTOS, str(photos))
        if language == "python":
            done = run(workspace, sys.executable, "-c", code, PYTHONPATH=str(workspace))
            assert done.returncode == 0, done.stdout
            assert 0 <= float(done.stdout.strip().strip("[]")) <= 1
            continue
        for command in code.replace("\\\n", " ").splitlines():
            if command.startswith(SET_UP):
                continue
            seen.append(command.split()[0])
            if command.startswith("python -m pipelines.params"):
                command += QUICK
            done = run(workspace, "bash", "-c", command, timeout=1800, PYTHONPATH=str(workspace))
            assert done.returncode == 0, f"{command}\n{done.stdout}"
    assert {"python", "dvc", "fra"} == set(seen)
    for name in (
        "regions.png",
        "similar.png",
        "faces.parquet",
        "smiles.parquet",
        "drawn",
        "backbone.pt2",
        "smile.onnx",
        "smile",
    ):
        assert (workspace / name).exists(), name
    assert (workspace / "artifacts/report/index.html").is_file()
    results = pd.read_csv(workspace / "artifacts/transfer/attributes/results.csv")
    assert set(results["model"]) >= {"pretrained", "random", "released"}
