from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import official

from fra.method.networks import FRA
from fra.train import checkpoint
from fra.weights import files
from fra.weights import official as official_weights


def test_official_weights_are_all_found_and_assigned() -> None:
    model = official.networks()
    theirs = official.under("state/")
    for name, value in model.state_dict().items():
        assert torch.equal(value.flatten().float(), theirs[official_weights.official_name(name)].flatten()), (
            name
        )


def test_official_weights_inside_a_training_checkpoint() -> None:
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in official.under("state/").items()}}
    report = official_weights.load_official(official.networks(), wrapped)
    assert not report.missing
    assert not report.unexpected


def test_official_weights_missing_and_unexpected_are_reported() -> None:
    weights = official.under("state/")
    del weights["predictor.mlp.0.weight"]
    weights["stray"] = torch.ones(1)
    report = official_weights.load_official(official.networks(), weights)
    assert report.missing == ["global_predictor.expand.weight"]
    assert report.unexpected == ["stray"]


def test_official_weights_of_another_size_or_format_are_refused() -> None:
    other = FRA(official.TinyBackbone(), feature_dim=32, num_masks=5, hidden_dim=48, projection_dim=32)
    with pytest.raises(ValueError, match="num_masks"):
        official_weights.load_official(other, official.under("state/"))
    with pytest.raises(ValueError, match="no name of an official"):
        official_weights.load_official(other, {"conv1.weight": torch.ones(2)})


def test_weights_and_metadata_are_read_as_written(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 4).T, "b": torch.tensor(7)}
    metadata = {"backbone": "small", "mean": [0.5, 0.4, 0.3], "provenance": {"commit": "abc", "é": None}}
    path = tmp_path / "new" / "weights.safetensors"
    files.save_weights(path, weights, metadata)
    back, about = files.read_weights(path)
    assert about == metadata
    assert all(torch.equal(back[name], value) for name, value in weights.items())
    assert [p.name for p in path.parent.iterdir()] == ["weights.safetensors"]


def test_unusable_weights_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        files.read_weights(tmp_path / "absent.safetensors")
    truncated = tmp_path / "truncated.safetensors"
    files.save_weights(truncated, {"a": torch.ones(100)}, {})
    truncated.write_bytes(truncated.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"truncated\.safetensors: not a complete"):
        files.read_weights(truncated)


def test_the_last_checkpoints_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    checkpoints = checkpoint.Checkpoints(tmp_path / "run", keep=2)
    assert checkpoints.load() is None
    for step in (1, 2, 10):
        checkpoints.save(step, {"step": step, "weights": {"w": torch.full((2,), float(step))}})
    assert [p.name for p in checkpoints.paths()] == ["step-000000002.pt", "step-000000010.pt"]
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 10
    assert state["weights"]["w"].tolist() == [10, 10]
    checkpoints.remove()
    assert not checkpoints.folder.exists()


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, {"step": 1})
    damaged = checkpoints.save(2, {"step": 2, "weights": torch.ones(1000)})
    damaged.write_bytes(damaged.read_bytes()[:500])
    (tmp_path / "step-000000003.partial").write_bytes(b"killed while writing")
    state = checkpoints.load()
    assert state == {"step": 1}
    assert "step-000000002.pt" in caplog.text


def test_a_killed_process_releases_the_lock(tmp_path: Path) -> None:
    """kill -9 of a process of its own that holds it."""
    program = (
        "import sys, time; from pathlib import Path; from fra.train.checkpoint import Checkpoints\n"
        "with Checkpoints(Path(sys.argv[1])).exclusive():\n    print('locked', flush=True); time.sleep(600)"
    )
    own = checkpoint.Checkpoints(tmp_path)
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(RuntimeError, match="in use by another run"), own.exclusive(timeout=0):
            pass
        holder.kill()
    assert holder.returncode == -signal.SIGKILL
    with own.exclusive(timeout=0):
        pass


def test_one_run_at_a_time(tmp_path: Path) -> None:
    one, other = checkpoint.Checkpoints(tmp_path / "run"), checkpoint.Checkpoints(tmp_path / "run")
    with (
        one.exclusive(),
        pytest.raises(RuntimeError, match="in use by another run"),
        other.exclusive(timeout=0),
    ):
        pass
    with other.exclusive(timeout=0):
        other.remove()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_cannot_execute_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pickle that would create an object of its choice is refused, not executed."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    torch.save({"evil": Path("x")}, tmp_path / "step-000000001.pt")
    assert checkpoints.load() is None
    assert "weights_only" in caplog.text.lower() or "unsupported" in caplog.text.lower()
