from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.toy_training import run

from fra.train.monitoring.history import COLUMNS
from fra.train.monitoring.representation import MEASURES


@pytest.mark.slow
def test_tensorboard_has_each_row_once_after_an_interruption(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def stop(reading: dict[str, Any]) -> None:
        if reading["step"] == 8:  # the checkpoint of step 4 is the last: rows 6 and 8 come once more
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tensorboard=True, checkpoint_every=4, observe=stop)
    run(tmp_path, tensorboard=True, checkpoint_every=4)
    events = EventAccumulator(str(tmp_path / "checkpoints" / "tensorboard")).Reload()
    history = pd.read_csv(tmp_path / "out" / "history.csv").drop(columns=["knn", *MEASURES])
    assert sorted(events.Tags()["scalars"]) == sorted([*history.columns.drop("step"), "images_per_second"])
    for name in history.columns.drop("step"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == history["step"].tolist()
        assert [scalar.value for scalar in scalars] == pytest.approx(history[name].tolist())
    assert set(history.columns) < set(COLUMNS)


def test_a_missing_tensorboard_package_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(
        sys.modules, "tensorboard", None
    )  # as Python does for a package that is not installed
    with pytest.raises(
        RuntimeError, match="tensorboard is not installed: `pip install tensorboard`, or set it"
    ):
        run(tmp_path, tensorboard=True)
    assert not (tmp_path / "out").exists()
