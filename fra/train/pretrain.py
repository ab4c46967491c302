"""Pre-training, from random weights to `backbone.safetensors`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fra import dist
from fra.data.views.views import Views
from fra.files import write_text
from fra.method.networks import ModelConfig, ObjectiveConfig, build
from fra.train.checkpoint import Checkpoints
from fra.train.config import TrainConfig
from fra.train.history import as_csv
from fra.train.interrupt import StopSignal
from fra.train.prefetch import Loader
from fra.train.probe import Probe
from fra.train.tensorboard import Board
from fra.train.trainer import Observer, Run
from fra.weights.files import save_weights

logger = logging.getLogger(__name__)

__all__ = ["TrainConfig", "pretrain"]


def pretrain(
    model_config: ModelConfig,
    objective_config: ObjectiveConfig,
    train_config: TrainConfig,
    loader: Loader,
    views: Views,
    out: Path,
    checkpoints: Path,
    provenance: Mapping[str, Any],
    observe: Observer | None = None,
    probe: Probe | None = None,
) -> dict[str, Any]:
    """Train, and write backbone.safetensors, model.safetensors, history.csv and metrics.json into `out` at
    the end.

    `loader` gives this rank's share of each batch. `checkpoints` is a folder of this run alone (name it by
    the hash of its params, code and data): a run that finds one there continues it, on the CPU bit for bit as if
    never interrupted; it is emptied on success. `provenance` is kept in the weights' metadata. `observe` is called
    with each new row of the history, on rank 0. `probe` scores the backbone on the side; the weights are the
    same with it and without.

    Returns what metrics.json holds. SIGTERM or SIGINT saves and raises SystemExit(75): start again to
    continue. Raises ValueError where there would be no loss before regions join, RuntimeError when the loss
    diverges more often than `max_rollbacks`, MemoryError with a batch size that fits.
    """
    if train_config.region_start_epoch and not objective_config.global_weight:
        raise ValueError(
            f"train.region_start_epoch is {train_config.region_start_epoch} with objective.global_weight 0: "
            "nothing would be learnt until regions join; set train.region_start_epoch to 0"
        )
    torch.manual_seed(train_config.seed)
    model = build(model_config, objective_config)
    identity = {
        **{f"model.{name}": value for name, value in asdict(model_config).items()},
        **{f"objective.{name}": value for name, value in asdict(objective_config).items()},
        **{f"train.{name}": value for name, value in asdict(train_config).items()},
        "world_size": dist.world_size(),
        "steps_per_epoch": loader.steps_per_epoch,
    }
    folder = Checkpoints(checkpoints, train_config.keep_checkpoints)
    with (
        folder.held() if dist.rank() == 0 else nullcontext(),
        _observers(observe, train_config, checkpoints) as observers,
        StopSignal() as stop,
    ):
        run = Run(model, train_config, loader, views, folder, identity, observers, probe)
        if run.restore():
            logger.info("continuing at step %d of %d from %s", run.step, run.steps, checkpoints)
        run.train(stop)
        metrics, speed = _metrics(run), _speed(run)
        if dist.rank() == 0:
            _write(run, model_config, out, provenance, metrics, speed)
            folder.remove()
        run.agreement.wait()
    return {**metrics, **speed}


@contextmanager
def _observers(observe: Observer | None, config: TrainConfig, checkpoints: Path) -> Iterator[list[Observer]]:
    """Who is called with each row of the history: `observe`, and TensorBoard's files in the run's folder."""
    observers = [] if observe is None else [observe]
    if not config.tensorboard or dist.rank() > 0:
        yield observers
        return
    with closing(Board(checkpoints / "tensorboard")) as board:
        yield [*observers, board]


def _metrics(run: Run) -> dict[str, Any]:
    last = run.history[-1] if run.history else {}
    return {
        **{
            name: value
            for name, value in last.items()
            if name not in ("lr", "target_momentum", "images_per_second")
        },
        "device": str(run.device),
        "precision": str(run.trainer.precision).removeprefix("torch."),
        "ranks": dist.world_size(),
        "rollbacks": run.rollbacks,
        "skipped_steps": run.skipped,
    }


def _speed(run: Run) -> dict[str, float]:
    """How fast it went: apart from the metrics, since no two runs take the same time."""
    return {
        "images_per_second": run.step * run.config.batch_size / run.seconds,
        "seconds": run.seconds,
        "loader_wait": run.waited / run.seconds,
    }


def _write(
    run: Run,
    model_config: ModelConfig,
    out: Path,
    provenance: Mapping[str, Any],
    metrics: dict[str, Any],
    speed: dict[str, float],
) -> None:
    """All outputs, each atomically, metrics.json last."""
    online = run.trainer.model.online
    about = {
        "backbone": model_config.backbone,
        "num_masks": model_config.num_masks if online.region_neck is not None else 1,
        "projection_dim": model_config.projection_dim,
        "hidden_dim": model_config.hidden_dim,
        "image_size": run.image_size,
        "mean": run.views.config.mean,
        "std": run.views.config.std,
        "provenance": dict(provenance),
    }
    save_weights(
        out / "backbone.safetensors", online.backbone.state_dict(), {**about, "contents": "backbone"}
    )
    save_weights(out / "model.safetensors", online.state_dict(), {**about, "contents": "model"})
    write_text(as_csv(run.history), out / "history.csv")
    write_text(json.dumps(speed, indent=2) + "\n", out / "speed.json")
    write_text(json.dumps(metrics, indent=2) + "\n", out / "metrics.json")
