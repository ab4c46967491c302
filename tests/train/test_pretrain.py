from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy_training import MODEL, SIZE, ToyLoader, run

import fra
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Crops, Views
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.train.config import TrainConfig
from fra.train.monitoring.history import COLUMNS, as_csv
from fra.train.step import TrainStep
from fra.weights.files import read_weights


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "out" / "model.safetensors")[0]


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "history.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_results_are_complete(whole: Path) -> None:
    assert sorted(path.name for path in (whole / "out").iterdir()) == [
        "backbone.safetensors",
        "history.csv",
        "metrics.json",
        "model.safetensors",
        "speed.json",
    ]
    assert not (whole / "checkpoints").exists()
    rows = history(whole)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 10, 12]
    metrics = json.loads((whole / "out" / "metrics.json").read_text())
    assert metrics["step"] == 12
    assert metrics["total"] == pytest.approx(float(rows[-1]["total"]))
    for row in rows:
        parts = float(row["global"]) + float(row["region"]) + 0.1 * float(row["relation"])
        assert float(row["total"]) == pytest.approx(parts, rel=1e-5)
        assert 1 <= float(row["masks_used"]) <= 3


def test_a_value_without_a_column_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in fieldnames: 'new'"):
        as_csv([{"step": 1, "images_per_second": 2.0, "new": 3.0}])


def test_written_model_can_be_loaded(whole: Path) -> None:
    encoder = fra.load(whole / "out" / "model.safetensors")
    assert encoder.image_size == SIZE
    assert encoder.metadata["provenance"] == {"data": "toy"}
    assert encoder.heatmaps(torch.zeros(2, 3, 40, 40, dtype=torch.uint8)).shape == (2, 3, 4, 4)
    assert encoder.metadata["mean"] == list(ViewsConfig().mean)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "same")
    assert_same(weights(whole), weights(tmp_path / "same"))
    run(tmp_path / "other", seed=1)
    assert not torch.equal(
        weights(whole)["backbone.stem.0.weight"], weights(tmp_path / "other")["backbone.stem.0.weight"]
    )


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    run(tmp_path, epochs=10, optimizer="adamw", lr=2e-3, weight_decay=0.05)
    rows = history(tmp_path)
    assert float(rows[-1]["total"]) < 0.8 * float(rows[0]["total"])


class StopsAt:
    """Observer that interrupts a run after some steps, as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, reading: dict[str, Any]) -> None:
        if reading["step"] >= self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [8, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 12))])
def test_an_interrupted_run_ends_bit_identical(whole: Path, tmp_path: Path, step: int) -> None:
    """Interrupted before the first checkpoint, between two, and after the last."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, observe=StopsAt(step))
    assert not (tmp_path / "out").exists()
    run(tmp_path)
    assert_same(weights(whole), weights(tmp_path))
    assert history(tmp_path) == history(whole)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, observe=StopsAt(4))
    with pytest.raises(ValueError, match=r"train\.lr: 0\.5 in the checkpoint, 0\.25 in this run"):
        run(tmp_path, lr=0.25)


LATE = {"epochs": 3, "region_start_epoch": 2, "max_loss_ratio": 1.5}
"""The loss doubles when regions start, which must not count as divergence."""


def test_regions_start_late(tmp_path: Path) -> None:
    run(tmp_path, **LATE, max_rollbacks=0)
    rows = history(tmp_path)
    before, after = rows[:4], rows[4:]
    assert all(float(row["region"]) == float(row["relation"]) == 0 for row in before)
    assert all(float(row["region"]) > 0 and float(row["relation"]) > 0 for row in after)
    assert float(after[0]["total"]) > 1.5 * float(before[-1]["total"])


def test_without_global_loss_regions_cannot_start_late(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.region_start_epoch is 2 with objective\.global_weight 0"):
        run(tmp_path, **LATE, objective=ObjectiveConfig(global_weight=0.0))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("mask_init", ["random", pytest.param("clusters", marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", [8, *(pytest.param(step, marks=pytest.mark.slow) for step in (6, 10, 12))])
def test_a_run_interrupted_around_the_start_of_regions_ends_bit_identical(
    tmp_path: Path, step: int, mask_init: str
) -> None:
    late = {**LATE, "mask_init": mask_init}
    run(tmp_path / "whole", **late)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", observe=StopsAt(step), **late)
    run(tmp_path / "broken", **late)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def test_byol_baseline_trains_and_loads(tmp_path: Path) -> None:
    metrics = run(tmp_path, epochs=1, model=ModelConfig("small", 1, 16, 32))
    assert metrics["region"] == metrics["relation"] == 0
    assert metrics["masks_used"] == 1
    assert fra.load(tmp_path / "out" / "model.safetensors").neck is None


@pytest.mark.parametrize(
    "backbone", ["timm:vit_tiny_patch16_224", pytest.param("timm:convnext_atto", marks=pytest.mark.slow)]
)
def test_other_architectures_train_and_load(backbone: str, tmp_path: Path) -> None:
    metrics = run(tmp_path, epochs=1, optimizer="adamw", lr=1e-3, model=ModelConfig(backbone, 3, 16, 32))
    assert metrics["step"] == 4
    encoder = fra.load(tmp_path / "out" / "model.safetensors")
    assert encoder.embed(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)).isfinite().all()


def test_progress_bar_shows_losses_indicators_and_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "12/12" in shown
    for name in ("images/s", "total", "global", "region", "relation", "std", "masks", "lr"):
        assert re.search(rf"{name}=\d", shown), shown


def test_accumulation_takes_one_step_per_batch(tmp_path: Path) -> None:
    metrics = run(tmp_path, epochs=1, accumulation_steps=2)
    assert metrics["step"] == 4
    with pytest.raises(
        ValueError, match="batch_size 8 cannot be split into accumulation_steps 3 equal micro-batches"
    ):
        run(tmp_path / "odd", accumulation_steps=3)


@pytest.mark.parametrize(("images", "micro_batches"), [(1, 1), (8, 8)])
def test_micro_batches_of_one_image_are_refused(images: int, micro_batches: int, tmp_path: Path) -> None:
    """Batch norm cannot normalise one image; the message names the parameters before anything is trained."""
    message = rf"batch_size {images} with accumulation_steps {micro_batches} leaves one image per micro-batch"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, batch_size=images, accumulation_steps=micro_batches)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("timm:resmlp_12_224", "doesn't match model"),  # an AssertionError of timm
        ("timm:levit_128s", "must match the size"),  # a RuntimeError of PyTorch
    ],
)
@pytest.mark.parametrize("mask_init", ["random", "clusters"])
def test_a_backbone_of_another_image_size_is_named(
    backbone: str, reason: str, mask_init: str, tmp_path: Path
) -> None:
    message = rf"model\.backbone {backbone} does not accept images of 32×32 .*{reason}.* set data\.image_size"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, model=ModelConfig(backbone, 3, 16, 32), mask_init=mask_init)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bfloat16_stays_close_to_float32(tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        run(tmp_path / precision, precision=precision, epochs=10, batch_size=16, lr=0.1)
    for half, full in zip(history(tmp_path / "bfloat16"), history(tmp_path / "float32"), strict=True):
        assert float(half["total"]) == pytest.approx(float(full["total"]), rel=0.01)


class Poisoned(Views):
    """Views with NaN for one image, as from a broken image or augmentation."""

    def __init__(self, index: int) -> None:
        super().__init__(ViewsConfig(), seed=0)
        self.index = index

    def __call__(self, crops: Crops, epoch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        view1, view2 = super().__call__(crops, epoch, device)
        if epoch == 1:
            view1[crops.index_B == self.index] = float("nan")
        return view1, view2


def test_a_batch_with_a_diverging_loss_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = run(tmp_path, views=Poisoned(5))
    assert metrics["rollbacks"] == 1
    (skipped,) = metrics["skipped_steps"]
    assert 4 <= skipped < 8
    assert f"the loss of step {skipped} diverged" in caplog.text
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


@pytest.mark.parametrize("region_start_epoch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_divergence_around_the_start_of_regions_is_rolled_back(
    tmp_path: Path, region_start_epoch: int
) -> None:
    """A batch with NaN in the epoch in which regions start, and in the one before."""
    metrics = run(
        tmp_path,
        views=Poisoned(5),
        region_start_epoch=region_start_epoch,
        mask_init="clusters",
        checkpoint_every=3,
    )
    assert metrics["rollbacks"] == 1
    assert 4 <= metrics["skipped_steps"][0] < 8
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_masks_are_not_initialised_from_weights_that_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call = TrainStep.__call__
    broken: list[int] = []

    def breaks_once(train_step: TrainStep, *arguments: Any, **options: Any) -> Any:
        output = call(train_step, *arguments, **options)
        broken.append(0)
        if len(broken) == 8:
            train_step.model.online.global_mlp.expand.weight.data[0] = float("nan")
        return output

    monkeypatch.setattr(TrainStep, "__call__", breaks_once)
    metrics = run(tmp_path, **LATE, mask_init="clusters", checkpoint_every=3)
    assert metrics["rollbacks"] == 1
    assert "a weight is not finite after step 8" in caplog.text


def test_too_many_rollbacks_stop_the_run_with_the_inputs_saved(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"diverged .*Gave up after 0 rollbacks"):
        run(tmp_path, views=Poisoned(5), max_rollbacks=0)
    (saved,) = (tmp_path / "checkpoints").glob("diverged-step-*.safetensors")
    inputs, about = read_weights(saved)
    assert 5 in inputs["index_B"]
    assert inputs["view1_B3HW"].isnan().any()
    assert not inputs["view2_B3HW"].isnan().any()
    assert 4 <= about["step"] < 8
    assert not (tmp_path / "out").exists()


def test_divergence_before_the_first_checkpoint_stops_the_run(tmp_path: Path) -> None:
    class Always(Poisoned):
        def __call__(
            self, crops: Crops, epoch: int, device: torch.device
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return super().__call__(crops, 1, device)

    with pytest.raises(RuntimeError, match="no checkpoint to go back to"):
        run(tmp_path, views=Always(5), checkpoint_every=100)


def test_a_loader_of_the_wrong_size_is_named(tmp_path: Path) -> None:
    for mask_init in ("random", "clusters"):  # the latter reads batches before the first step
        with pytest.raises(ValueError, match=r"train\.batch_size is 8, but 1 loader\(s\) gave 4 images"):
            run(tmp_path / mask_init, loader=ToyLoader(4), mask_init=mask_init)

    class Short(ToyLoader):
        def epoch(self, epoch: int, start_step: int = 0):
            yield from list(super().epoch(epoch, start_step))[:-1]

    with pytest.raises(RuntimeError, match="announced 4 batches per epoch, but epoch 0 had only 3"):
        run(tmp_path, loader=Short(8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": -1.0},
        {"optimizer": "sgd"},
        {"precision": "float16"},
        {"warmup_epochs": -1},
        {"region_start_epoch": 3},
        {"mask_init": "centres"},
        {"target_momentum": 1.5},
        {"max_loss_ratio": 1.0},
        {"batch_size": 1},
        {"accumulation_steps": 3, "batch_size": 8},
        {"accumulation_steps": 8, "batch_size": 8},
        {"epoch": 3},
    ],
)
def test_impossible_recipes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**{"epochs": 3, **wrong})


def test_model_and_objective_are_the_configured_ones(tmp_path: Path) -> None:
    run(tmp_path, epochs=1, objective=ObjectiveConfig(region_weight=0.0, relation_weight=0.0))
    assert not any("region" in name for name in weights(tmp_path))
    assert MODEL.num_masks == 3
