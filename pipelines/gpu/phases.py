"""The phases of `make gpu`: each writes its result to `<phase>.json` in the folder of the results.

Without a GPU everything is smaller, as a rehearsal: the same code with batches of `REHEARSAL` images, uncompiled.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from fra import dist
from fra.data.loader.config import DataConfig
from fra.data.views.config import ViewsConfig
from fra.files import write_json
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.train.config import TrainConfig
from pipelines import params
from pipelines.gpu import PARAMS
from pipelines.lineage import record

logger = logging.getLogger(__name__)

REHEARSAL = 8
"""Images per batch without a GPU."""
BATCHES = 8
"""Batches in an epoch of the end-to-end benchmark; half as many in a rehearsal."""
WARM_UP, TRIAL = 5, 20
"""Steps before and in the measurement from which the number of epochs follows."""
MARGIN = 0.9
"""Share of the time that the planned epochs should take."""
DRAWING = 0.2
"""Share of the time in which faces are drawn, at most."""


@dataclass(frozen=True)
class Setup:
    """The parameters of the bundle, smaller for a rehearsal."""

    data: DataConfig
    views: ViewsConfig
    model: ModelConfig
    objective: ObjectiveConfig
    train: TrainConfig
    images: int
    seed: int
    rehearsal: bool

    @classmethod
    def read(cls) -> Setup:
        """Reads the parameters of the bundle."""
        gpu = torch.cuda.is_available()
        train = params.section("train", TrainConfig, PARAMS)
        dataset = params.read(PARAMS)["dataset"]
        return cls(
            params.section("data", DataConfig, PARAMS),
            params.section("views", ViewsConfig, PARAMS),
            params.section("model", ModelConfig, PARAMS),
            params.section("objective", ObjectiveConfig, PARAMS),
            train if gpu else replace(train, batch_size=REHEARSAL, compile=False, accumulation_steps=1),
            int(dataset["images"]),
            int(dataset["seed"]),
            not gpu,
        )


def benchmarks(setup: Setup, out: Path) -> dict[str, Any]:
    """Runs the benchmarks one after the other; the result so far is written after each. An error ends one of them."""
    found: dict[str, Any] = {"failed": []}
    for benchmark in (machine, step, regions, end_to_end):
        start = time.perf_counter()
        try:
            found[benchmark.__name__] = benchmark(setup)
        except Exception as error:
            traceback.print_exc()
            found["failed"].append(f"{benchmark.__name__}: {error!r}")
        logger.info("%s: %.0f s", benchmark.__name__, time.perf_counter() - start)
        write_json(found, out / "benchmarks.json")
    return found


def machine(setup: Setup) -> dict[str, Any]:
    """Returns device, versions and commit."""
    properties = torch.cuda.get_device_properties(0) if not setup.rehearsal else None
    return {
        "rehearsal": setup.rehearsal,
        "gpu": properties and {"name": properties.name, "memory": properties.total_memory},
        **record.environment(),
        "code": record.code(),
        "params": {"data": asdict(setup.data), "model": asdict(setup.model), "train": asdict(setup.train)},
    }


class Outcomes:
    """A pytest plugin that counts what became of the tests."""

    def __init__(self) -> None:
        self.passed, self.skipped, self.failed = 0, 0, list[str]()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest after each part of a test."""
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1


def tests() -> dict[str, Any]:
    """Runs the tests that need a GPU; they are skipped without one. Returns their numbers.

    Plugins that happen to be installed are not loaded: one that lacks a package would stop pytest.
    """
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    outcomes = Outcomes()
    code = pytest.main(["-p", "no:cacheprovider", "tests/train/test_gpu.py"], plugins=[outcomes])
    failed = [*outcomes.failed] or ([] if code in (0, 5) else [f"pytest exited with {int(code)}"])
    return {"passed": outcomes.passed, "skipped": outcomes.skipped, "failed": failed}


def step(setup: Setup) -> dict[str, Any]:
    """Compares our training step with a plain one."""
    from fra.bench.training.step import compare_steps

    return compare_steps(
        setup.model,
        setup.data.image_size,
        setup.train.batch_size,
        rounds=1 if setup.rehearsal else 10,
        compiled=setup.train.compile,
    )


def regions(setup: Setup) -> dict[str, Any]:
    """Compares a step with regions with one at image level (uncompiled)."""
    from fra.bench.training.regions import compare_regions

    return compare_regions(
        setup.model, setup.data.image_size, setup.train.batch_size, rounds=1 if setup.rehearsal else 20
    )


def end_to_end(setup: Setup) -> dict[str, Any]:
    """Compares training from JPEG files with a plain loader and step."""
    from fra.bench.training.pretraining import compare_training

    return compare_training(
        None,
        setup.model,
        setup.data.image_size,
        setup.train.batch_size,
        images=setup.train.batch_size * (BATCHES // 2 if setup.rehearsal else BATCHES),
        rounds=1 if setup.rehearsal else 2,
        compiled=setup.train.compile,
    )


def training(setup: Setup, out: Path, epochs: int | None, until: float) -> dict[str, Any]:
    """Pre-trains on drawn faces in memory; at SIGTERM saves a checkpoint and the weights as they are.

    The number of images and of epochs is chosen in the first run and kept in `plan.json` for those that continue it.
    """
    from fra.data.loader.memory import MemoryPairs
    from fra.data.views.views import Views
    from fra.train.monitoring.measure import Measures
    from fra.train.pretrain import pretrain

    device = dist.choose_device(setup.train.device, "train.device")
    plan_file = out / "plan.json"
    plan = json.loads(plan_file.read_text("utf-8")) if plan_file.is_file() else {}
    limit = until if plan else time.monotonic() + DRAWING * (until - time.monotonic())
    faces, held_out = draw_faces(int(plan.get("images", setup.images)), setup.seed, device, limit)
    views = Views(setup.views, setup.train.seed)
    loader = MemoryPairs(faces, setup.data.image_size, setup.views, setup.train.batch_size, setup.train.seed)
    if not plan:
        seconds = seconds_per_step(setup, loader, views, device)
        steps = MARGIN * (until - time.monotonic()) / seconds
        fitting = max(1, int(steps / loader.steps_per_epoch))
        plan = {"images": len(faces), "epochs": epochs or fitting, "seconds_per_step": seconds}
        write_json(plan, plan_file)
    config = schedule(setup.train, int(plan["epochs"]), loader.steps_per_epoch)
    chosen = {"data": asdict(setup.data), "views": asdict(setup.views), "train": asdict(config)}
    chosen |= {"model": asdict(setup.model), "objective": asdict(setup.objective)}
    chosen["dataset"] = {"name": "generated", "seed": setup.seed, "images": plan["images"]}
    provenance = record.provenance(chosen, {})
    measures = Measures(lambda: list(held_out.numpy()), views, setup.data.image_size, "val")
    checkpoints = out / "checkpoints"
    found = {**plan, "steps": config.epochs * loader.steps_per_epoch, "finished": False}
    try:
        metrics = pretrain(
            setup.model,
            setup.objective,
            config,
            loader,
            views,
            out,
            checkpoints,
            provenance,
            measures=measures,
        )
    except SystemExit:
        write_json(found | write_stopped(setup, views, out, provenance), out / "training.json")
        raise
    return {**found, "step": metrics["step"], "finished": True, **metrics}


def draw_faces(
    images: int, seed: int, device: torch.device, until: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws faces, fewer if the time is up, in whole blocks.

    Returns:
        The faces (N, 64, 64, 3), uint8, on the device; and a further block on the CPU, for measures.
    """
    from fra.data.datasets.adapters import generated

    generator = generated.load().to(device)
    last = -(-images // generated.BLOCK)
    held_out = torch.from_numpy(generated.draw(generator, seed, last))
    blocks = []
    for block in range(last):
        blocks.append(torch.from_numpy(generated.draw(generator, seed, block)))
        if time.monotonic() > until:
            break
    return torch.cat(blocks)[:images].to(device), held_out


def seconds_per_step(setup: Setup, loader: Any, views: Any, device: torch.device) -> float:
    """Measures training from memory, after a warm-up in which it is compiled."""
    from fra.method.networks import build
    from fra.train.prefetch import prefetch
    from fra.train.step import AsyncCopy, TrainStep, choose_precision
    from fra.train.trainer import make_optimizer

    model, config = build(setup.model, setup.objective), setup.train
    precision = choose_precision(config.precision, device)
    train_step = TrainStep(model, device, precision, config.accumulation_steps, config.compile)
    optimizer = make_optimizer(model, config)
    batches = (batch for epoch in count() for batch in prefetch(loader, views, epoch, 0, device))
    warm_up, trial = (1, 2) if setup.rehearsal else (WARM_UP, TRIAL)
    start = 0.0
    for number, batch in enumerate(islice(batches, warm_up + trial)):
        if number == warm_up:
            start = time.perf_counter()
        output = train_step(
            batch.view1_B3HW,
            batch.view2_B3HW,
            optimizer,
            0.0,
            config.target_momentum,
            config.prototype_momentum,
        )
        if number in (warm_up - 1, warm_up + trial - 1):
            AsyncCopy(output.losses).read()
    batches.close()
    return (time.perf_counter() - start) / trial


def schedule(config: TrainConfig, epochs: int, steps_per_epoch: int) -> TrainConfig:
    """Returns the recipe with another number of epochs, phases in proportion, and rows and checkpoints to match."""
    steps = epochs * steps_per_epoch
    return replace(
        config,
        epochs=epochs,
        warmup_epochs=round(config.warmup_epochs * epochs / config.epochs),
        region_start_epoch=config.region_start_epoch * epochs // config.epochs,
        log_every=max(1, steps // 200),
        measure_every=max(1, steps // 10),
        checkpoint_every=max(1, steps // 20),
        keep_checkpoints=1,
    )


def write_stopped(setup: Setup, views: Any, out: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Writes the weights of the last checkpoint; returns its step and the speed until then."""
    from fra.method.networks import build
    from fra.train.checkpoint import Checkpoints
    from fra.train.pretrain import save_networks

    state = Checkpoints(out / "checkpoints").load()
    assert state is not None  # saved just before
    model = build(setup.model, setup.objective)
    model.load_state_dict(state["model"])
    save_networks(model, setup.model, views, state["image_size"], out, {**provenance, "step": state["step"]})
    last = state["history"][-1] if state["history"] else {}  # stopped before the first row
    return {
        "step": state["step"],
        "images_per_second": state["step"] * setup.train.batch_size / state["seconds"],
        "loader_wait": state["seconds_waiting"] / state["seconds"],
        **{name: value for name, value in last.items() if name != "images_per_second"},
    }


def main() -> None:
    """Runs one phase."""
    parser = argparse.ArgumentParser(
        "python -m pipelines.gpu.phases", description="Runs one phase of `make gpu`."
    )
    parser.add_argument("phase", choices=["tests", "benchmarks", "training"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--until", type=float, default=float("inf"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.phase == "tests":
        found = tests()
    elif arguments.phase == "benchmarks":
        found = benchmarks(Setup.read(), arguments.out)
    else:
        found = training(Setup.read(), arguments.out, arguments.epochs, arguments.until)
    write_json(found, arguments.out / f"{arguments.phase}.json")
    if found.get("failed"):
        sys.exit(1)


if __name__ == "__main__":
    main()
