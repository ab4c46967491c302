"""Pre-training, from random or existing weights to `backbone.safetensors`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fra import dist
from fra.data.loader.protocol import Loader
from fra.data.views.views import Views
from fra.files import write_text
from fra.method.backbone import checkpoint_gradients
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import FRA, build
from fra.parallel import cores, torch_threads
from fra.train.checkpoint import Checkpoints
from fra.train.config import TrainConfig
from fra.train.init import InitReport, initialise
from fra.train.interrupt import StopSignal
from fra.train.monitoring.history import SPEED, as_csv
from fra.train.monitoring.measure import Measures
from fra.train.monitoring.tensorboard import TensorBoardLogger
from fra.train.probe import Probe
from fra.train.trainer import Observer, Trainer
from fra.weights.files import save_weights
from fra.weights.pretrained import PREDICTORS

logger = logging.getLogger(__name__)

SMALL_NETWORK = 10_000_000
"""Weights of the online and the target network up to which a step runs in one thread."""


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
    measures: Measures | None = None,
) -> dict[str, Any]:
    """Trains the networks and writes backbone, whole model, history, metrics and speed into `out` at the end.

    Args:
        model_config: Sizes of the networks.
        objective_config: Weights and temperatures of the losses.
        train_config: The recipe.
        loader: This rank's share of each batch.
        views: Makes two views of each batch.
        out: Folder of the results.
        checkpoints: Folder of this run alone; name it by the hash of parameters, code and data. A run that finds
            checkpoints there resumes from them, on the CPU with bit-identical results. On success they are deleted;
            TensorBoard's files stay.
        provenance: Stored in the metadata of the weights.
        observe: Called with each new row of the history, on rank 0.
        probe: Scores the backbone during training; the weights do not depend on it.
        measures: Measures the backbone without labels during training; the weights do not depend on it.

    Returns:
        The contents of metrics.json and speed.json.

    Raises:
        SystemExit: With code `os.EX_TEMPFAIL` (75) after SIGTERM or SIGINT, once a checkpoint is saved; start again
            to continue.
        ValueError: The configuration cannot be trained; the message names the parameter.
        RuntimeError: The loss diverged more often than `max_rollbacks`.
        MemoryError: A batch does not fit into memory; the message says which batch size does.
    """
    check_training(objective_config, train_config)
    torch.manual_seed(train_config.seed)
    model = build(model_config, objective_config)
    if train_config.gradient_checkpointing:
        checkpoint_gradients(model.online.backbone, "train.gradient_checkpointing")
    start = None if train_config.init is None else initialise(model, model_config, train_config.init)
    if start is not None:
        train_config = _continued(train_config, start)
    identity = _identity(model_config, objective_config, train_config, start, loader)
    folder = Checkpoints(checkpoints, train_config.keep_checkpoints)
    with (
        folder.exclusive() if dist.rank() == 0 else nullcontext(),
        _observers(observe, train_config, checkpoints) as observers,
        StopSignal() as stop,
    ):
        trainer = Trainer(
            model,
            train_config,
            loader,
            views,
            folder,
            identity,
            observers,
            probe,
            frozen_epochs=train_config.init_warmup_epochs if start is not None and start.new else 0,
            measures=measures,
        )
        if trainer.restore():
            logger.info("continuing at step %d of %d from %s", trainer.state.step, trainer.steps, checkpoints)
        with torch_threads(step_threads(model, trainer.device)):
            trainer.train(stop)
        metrics, speed = _metrics(trainer), _speed(trainer)
        if dist.rank() == 0:
            _write(trainer, model_config, out, _origin(provenance, start), metrics, speed)
            folder.remove()
        trainer.collectives.barrier()
    return {**metrics, **speed}


def _identity(
    model_config: ModelConfig,
    objective_config: ObjectiveConfig,
    train_config: TrainConfig,
    start: InitReport | None,
    loader: Loader,
) -> dict[str, Any]:
    """Returns what a checkpoint must agree with to be continued."""
    return {
        **{f"model.{name}": value for name, value in asdict(model_config).items()},
        **{f"objective.{name}": value for name, value in asdict(objective_config).items()},
        **{f"train.{name}": value for name, value in asdict(train_config).items()},
        "init": None if start is None else start.sha256,
        "world_size": dist.world_size(),
        "steps_per_epoch": loader.steps_per_epoch,
    }


def _origin(provenance: Mapping[str, Any], start: InitReport | None) -> dict[str, Any]:
    """Returns the provenance with the weights that training started from, without an absolute path: it is published."""
    if start is None:
        return dict(provenance)
    file = Path(start.source)
    source = file.name if file.is_absolute() else start.source
    return {**provenance, "init": {**start._asdict(), "source": source}}


def step_threads(model: nn.Module, device: torch.device) -> int:
    """Returns the number of PyTorch's threads for training: one for small networks on a CPU, otherwise all cores.

    The threads of a step meet after each of its operations. In a small network that costs more than it gains as soon as
    anything else runs, such as the loader. The choice depends on the network alone, never on the load: another number
    of threads rounds differently, and a resumed run gives the same bits.
    """
    if device.type != "cpu":
        return torch.get_num_threads()
    return cores() if sum(weight.numel() for weight in model.parameters()) > SMALL_NETWORK else 1


def _continued(config: TrainConfig, start: InitReport) -> TrainConfig:
    """Returns the recipe without the initialisation of masks where those of the existing weights fit; logs the start.

    They fit if the region losses start at once. After epochs at image level the features have moved away from them.
    """
    logger.info("%s", start)
    if start.new == "heads" or config.mask_init == "random" or config.region_start_epoch > 0:
        return config
    logger.info("train.mask_init=%s is not used: the masks are those of train.init", config.mask_init)
    return replace(config, mask_init="random")


def check_training(objective: ObjectiveConfig, config: TrainConfig) -> None:
    """Raises ValueError, naming the parameter, for values that cannot be trained together on this many ranks."""
    ranks, micro_batches = dist.world_size(), config.accumulation_steps
    if config.batch_size % (ranks * micro_batches):
        raise ValueError(
            f"train.batch_size {config.batch_size} cannot be divided into equal micro-batches: it must be a multiple "
            f"of train.accumulation_steps ({micro_batches}) times the number of ranks ({ranks})"
        )
    if config.region_start_epoch and not objective.global_weight:
        raise ValueError(
            f"train.region_start_epoch is {config.region_start_epoch} with objective.global_weight 0: there is no loss "
            "before regions start; set train.region_start_epoch to 0"
        )


@contextmanager
def _observers(observe: Observer | None, config: TrainConfig, checkpoints: Path) -> Iterator[list[Observer]]:
    """Yields what is called with each row of the history: `observe`, and a TensorBoard logger if chosen."""
    observers = [] if observe is None else [observe]
    if not config.tensorboard or dist.rank() > 0:
        yield observers
        return
    with closing(TensorBoardLogger(checkpoints / "tensorboard")) as tensorboard:
        yield [*observers, tensorboard]


def _metrics(trainer: Trainer) -> dict[str, Any]:
    """Returns the contents of metrics.json: the last row of the history without schedules and times, and the setup."""
    last = trainer.state.history[-1] if trainer.state.history else {}
    return {
        **{name: value for name, value in last.items() if name not in ("lr", "target_momentum", SPEED)},
        "device": str(trainer.device),
        "precision": str(trainer.train_step.precision).removeprefix("torch."),
        "ranks": dist.world_size(),
        "rollbacks": trainer.state.rollbacks,
        "skipped_steps": trainer.state.skipped_steps,
        "measured_split": None if trainer.measures is None else trainer.measures.split,
    }


def _speed(trainer: Trainer) -> dict[str, float]:
    """Returns the contents of speed.json; not part of the metrics, which are equal for equal runs."""
    state = trainer.state
    return {
        "images_per_second": state.step * trainer.config.batch_size / state.seconds,
        "seconds": state.seconds,
        "loader_wait": state.seconds_waiting / state.seconds,
    }


def _write(
    trainer: Trainer,
    model_config: ModelConfig,
    out: Path,
    provenance: Mapping[str, Any],
    metrics: dict[str, Any],
    speed: dict[str, float],
) -> None:
    """Writes all results, each file atomically, metrics.json last."""
    save_networks(trainer.model, model_config, trainer.views, trainer.state.image_size, out, provenance)
    write_text(as_csv(trainer.state.history), out / "history.csv")
    write_text(json.dumps(speed, indent=2) + "\n", out / "speed.json")
    write_text(json.dumps(metrics, indent=2) + "\n", out / "metrics.json")


def save_networks(
    model: FRA,
    config: ModelConfig,
    views: Views,
    image_size: int,
    out: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Writes `backbone.safetensors` and the whole model, `model.safetensors`, with their metadata.

    Args:
        model: The trained networks.
        config: Their sizes.
        views: How the images were normalised.
        image_size: Side of the views in pixels.
        out: Folder of the files.
        provenance: Stored in the metadata.
    """
    metadata = {
        "backbone": config.backbone,
        "num_masks": config.num_masks if model.online.region_neck is not None else 1,
        "projection_dim": config.projection_dim,
        "hidden_dim": config.hidden_dim,
        "image_size": image_size,
        "mean": views.config.mean,
        "std": views.config.std,
        "provenance": dict(provenance),
    }
    save_weights(
        out / "backbone.safetensors",
        model.online.backbone.state_dict(),
        {**metadata, "contents": "backbone"},
    )
    predictors = {name: value for name, value in model.state_dict().items() if name.startswith(PREDICTORS)}
    whole = {
        **model.online.state_dict(),
        **predictors,
    }  # with predictors, a later training can continue exactly
    save_weights(out / "model.safetensors", whole, {**metadata, "contents": "model"})
