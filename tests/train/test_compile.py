"""`train.compile`: equal results up to rounding, and a fallback without a compiler."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import toy_training
from support.toy_training import SIZE, run

from fra.data.views.config import ViewsConfig
from fra.train.config import ProbeConfig
from fra.train.probe import load_probe
from fra.weights.files import read_weights

TOY = Path(toy_training.__file__)


def differing(folder: Path, other: Path) -> list[str]:
    ours, theirs = (read_weights(one / "out" / "model.safetensors")[0] for one in (folder, other))
    return [name for name in theirs if not torch.equal(ours[name], theirs[name])]


def losses(folder: Path) -> list[float]:
    with (folder / "out" / "history.csv").open() as file:
        return [float(row["total"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_compiled_training_is_the_same_up_to_rounding(
    faces: ProbeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a probe, which runs the same networks on batches of another size."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    probe = load_probe(faces, SIZE, ViewsConfig(), frozenset())
    compiled, eager = tmp_path / "compiled", tmp_path / "eager"
    metrics = run(compiled, epochs=1, compile=True, probe=probe)
    assert metrics["knn"] == pytest.approx(run(eager, epochs=1, probe=probe)["knn"], abs=0.2)
    assert differing(compiled, eager), "nothing was compiled"
    (ours, late), (theirs, later) = losses(compiled), losses(eager)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert late == pytest.approx(later, rel=1e-2)


@pytest.mark.slow
def test_without_a_compiler_it_trains_uncompiled_with_one_warning(tmp_path: Path) -> None:
    without, eager = tmp_path / "without", tmp_path / "eager"
    without.mkdir()
    own = {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(TOY.parents[2])}
    done = subprocess.run(
        [sys.executable, str(TOY), str(without), json.dumps({"epochs": 1, "compile": True})],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be compiled and runs as written") == 1, done.stderr
    assert "Traceback" not in done.stderr
    run(eager, epochs=1)
    assert differing(without, eager) == []
