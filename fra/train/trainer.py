"""The training loop: epochs of steps, with logging, checkpoints, rollbacks and stop signals."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch.optim import Optimizer

from fra import dist
from fra.data.loader.protocol import Loader
from fra.data.views.views import Views
from fra.files import write_text
from fra.method.backbone import Backbone
from fra.method.networks import FRA
from fra.train import optim
from fra.train.checkpoint import Checkpoints, check_identity, load_on_all_ranks
from fra.train.config import TrainConfig
from fra.train.interrupt import StopSignal
from fra.train.mask_init import init_masks_from_clusters
from fra.train.memory import batch_size_advice, batches_in_memory, free_memory, is_out_of_memory
from fra.train.monitoring.collapse import INDICATORS, CollapseMonitor, collapse_indicators
from fra.train.monitoring.divergence import DivergedError, LossReader
from fra.train.monitoring.history import SPEED, as_csv
from fra.train.monitoring.measure import Measures
from fra.train.monitoring.progress import ProgressBar
from fra.train.monitoring.representation import MEASURES
from fra.train.prefetch import Batch, StepTimer, check_batch_size, prefetch
from fra.train.probe import Probe
from fra.train.schedule import cap_warmup, target_momentum, warmup_cosine
from fra.train.state import TrainState
from fra.train.step import LOSSES, StepOutput, TrainStep, check_image_size, choose_precision

logger = logging.getLogger(__name__)

Observer: TypeAlias = Callable[[dict[str, float]], None]
"""Called with each new row of the history."""


@dataclass(frozen=True)
class Due:
    """What is to be done after a step."""

    log: bool
    probe: bool
    measure: bool
    save: bool
    stop: bool


class Trainer:
    """A run of pre-training: networks, optimiser, schedules and state.

    Args:
        model: The networks.
        config: The recipe.
        loader: Batches of this rank.
        views: Makes two views of each batch.
        checkpoints: Where the run is saved.
        identity: Values that a checkpoint must share to be resumed, by parameter name.
        observers: Called with each new row of the history, on rank 0.
        probe: Scores the backbone every few epochs.
        frozen_epochs: Epochs at the start in which the backbone does not change.
        measures: Measures the backbone without labels every `measure_every` steps.
    """

    def __init__(
        self,
        model: FRA,
        config: TrainConfig,
        loader: Loader,
        views: Views,
        checkpoints: Checkpoints,
        identity: Mapping[str, Any],
        observers: Sequence[Observer],
        probe: Probe | None = None,
        frozen_epochs: int = 0,
        measures: Measures | None = None,
    ) -> None:
        self.config = config
        self.loader = loader
        self.views = views
        self.checkpoints = checkpoints
        self.identity = dict(identity)
        self.observers = observers
        self.probe = probe
        self.measures = measures if config.measure_every else None
        self.device = dist.choose_device(config.device, "train.device")
        precision = choose_precision(config.precision, self.device)
        self.train_step = TrainStep(model, self.device, precision, config.accumulation_steps, config.compile)
        self.model = model
        self.optimizer = make_optimizer(model, config)
        self.steps = config.epochs * loader.steps_per_epoch
        self.frozen_steps = frozen_epochs * loader.steps_per_epoch
        self.region_start_step = config.region_start_epoch * loader.steps_per_epoch
        warmup = cap_warmup(config.warmup_epochs, config.epochs, "train")
        self.lr = warmup_cosine(config.lr, config.epochs, warmup, loader.steps_per_epoch)
        self.collectives = dist.CpuCollectives()
        lag = 1 if self.device.type == "cuda" else 0
        self.losses = LossReader(self.collectives, config.max_loss_ratio, lag, checkpoints.folder)
        self.collapse_monitor = CollapseMonitor()
        self.state = TrainState()

    # ---- the loop

    def train(self, stop: StopSignal) -> None:
        """Runs all remaining steps; after a divergence goes back to the last checkpoint and continues from there.

        Raises:
            SystemExit: With code `os.EX_TEMPFAIL`, after a stop signal, once a checkpoint is saved.
            RuntimeError: The loss diverged too often, or before the first checkpoint.
            MemoryError: A batch does not fit into memory; the message says what fits.
        """
        with closing(ProgressBar(self.steps, self.state.step, dist.rank() == 0, self.device)) as bar:
            if self.state.step == 0:
                self._run_probe()
                self._measure()
            while self.state.step < self.steps:
                try:
                    self._train_epoch(stop, bar)
                except DivergedError as error:
                    self._roll_back(error)
                    bar.rewind(self.state.step)

    def _train_epoch(self, stop: StopSignal, bar: ProgressBar) -> None:
        """Runs the remaining steps of the current epoch."""
        epoch, done = divmod(self.state.step, self.loader.steps_per_epoch)
        if self.state.step == self.region_start_step:
            self._start_regions(epoch)
        timer = StepTimer(self.state.step)
        with closing(prefetch(self.loader, self.views, epoch, done, self.device)) as feed:
            images = self.config.batch_size // dist.world_size()
            for batch in timer.time_waiting(batches_in_memory(feed, self.device, images)):
                output = self._step(batch)
                if output is not None:
                    self.losses.add(self.state.step, output, batch)
                self.state.step += 1
                bar.advance()
                end_of_epoch = self.state.step % self.loader.steps_per_epoch == 0
                due = self._due(stop, epoch, end_of_epoch)
                self.losses.read(self.state, wait=due.log or due.save or end_of_epoch)
                if due.probe:
                    with timer.paused():
                        self._run_probe()
                if due.measure:
                    with timer.paused():
                        self._measure()
                if due.log and output is not None:
                    bar.show(self._log(output, epoch, timer))
                if due.save or end_of_epoch:
                    self._add_time(timer)
                if due.save:
                    self.save()
                if due.stop:
                    raise SystemExit(os.EX_TEMPFAIL)
                if end_of_epoch:
                    return
        raise RuntimeError(
            f"the loader announced {self.loader.steps_per_epoch} batches per epoch, but epoch {epoch} had only "
            f"{self.state.step % self.loader.steps_per_epoch}"
        )

    def _due(self, stop: StopSignal, epoch: int, end_of_epoch: bool) -> Due:
        """Returns what is to be done after the step that was just made; the same on every rank."""
        step, config = self.state.step, self.config
        last = step == self.steps
        stops = self.collectives.any(stop.requested) and not last
        return Due(
            log=last or step % config.log_every == 0,
            probe=self.probe is not None and end_of_epoch and (epoch + 1) % self.probe.every == 0,
            measure=self.measures is not None and (last or step % config.measure_every == 0),
            # The last step is saved too: if writing the results fails, no step is lost.
            save=last or stops or step % config.checkpoint_every == 0,
            stop=stops,
        )

    def _step(self, batch: Batch) -> StepOutput | None:
        """Runs one optimiser step; returns None for a batch that is left out after a rollback."""
        state, config = self.state, self.config
        if state.step in state.skipped_steps:
            return None
        check_batch_size(batch, config.batch_size)
        self._check_image_size(batch.view1_B3HW.shape[-1])
        # Dropout depends on seed, step and rank alone, so a checkpoint needs no random state.
        torch.manual_seed(
            int(np.random.SeedSequence([config.seed, state.step, dist.rank()]).generate_state(1)[0])
        )
        try:
            return self.train_step(
                batch.view1_B3HW,
                batch.view2_B3HW,
                self.optimizer,
                lr=float(self.lr[state.step]),
                target_momentum=self._target_momentum(state.step),
                prototype_momentum=config.prototype_momentum,
                regional=state.step >= self.region_start_step,
                frozen=state.step < self.frozen_steps,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = error.with_traceback(None)  # a traceback would keep the failed step's tensors alive
        raise MemoryError(self._memory_advice(batch)) from failure

    def _check_image_size(self, size: int) -> None:
        """Raises ValueError if the backbone cannot process the first images it gets; their size is recorded."""
        if self.state.image_size == 0:
            name = str(self.identity.get("model.backbone", "given"))
            check_image_size(self.model.online.backbone, name, size, self.device)
            self.state.image_size = size

    # ---- regions that start late

    def _start_regions(self, epoch: int) -> None:
        """Prepares for the first step with region losses: a new running mean, and masks from clusters if chosen."""
        self.state.mean_loss = None  # the total loss has more terms from here on
        if self.config.mask_init == "clusters" and self.model.online.region_neck is not None:
            self._check_weights()
            with closing(self._micro_batches(epoch)) as feed, self.train_step.autocast():
                init_masks_from_clusters(self.model, feed, self.config.seed)

    def _micro_batches(self, epoch: int) -> Generator[Batch, None, None]:
        """Yields the micro-batches of an epoch, without those of skipped steps."""
        first = epoch * self.loader.steps_per_epoch
        with closing(prefetch(self.loader, self.views, epoch, 0, self.device)) as feed:
            for step, batch in enumerate(feed, first):
                if step not in self.state.skipped_steps:
                    check_batch_size(batch, self.config.batch_size)
                    self._check_image_size(batch.view1_B3HW.shape[-1])
                    parts = (tensor.chunk(self.config.accumulation_steps) for tensor in batch)
                    yield from map(Batch, *parts)

    # ---- divergence

    def _check_weights(self) -> None:
        """Raises DivergedError if a weight is not finite."""
        norms = torch.stack(torch._foreach_norm(list(self.model.parameters())))
        if not bool(norms.isfinite().all()):
            raise DivergedError(self.state.step - 1, f"a weight is not finite after step {self.state.step}")

    def _roll_back(self, error: DivergedError) -> None:
        """Restores the last checkpoint and leaves out the batch that diverged; RuntimeError if that is impossible."""
        rollbacks, skipped = self.state.rollbacks + 1, [*self.state.skipped_steps, error.step]
        if rollbacks > self.config.max_rollbacks:
            raise RuntimeError(
                f"{error}. Gave up after {self.state.rollbacks} rollbacks: lower train.lr, lengthen "
                "train.warmup_epochs, or use train.precision=float32"
            ) from error
        self.losses.clear()
        logger.warning("%s; going back to the last checkpoint and leaving this batch out", error)
        if not self.restore():
            raise RuntimeError(
                f"{error}. There is no checkpoint to go back to yet: lower train.lr"
            ) from error
        self.state.rollbacks, self.state.skipped_steps = rollbacks, skipped

    # ---- checkpoints

    def save(self) -> None:
        """Saves a checkpoint and the history.

        Raises:
            DivergedError: A weight is not finite; nothing is saved.
        """
        self._check_weights()
        if dist.rank() == 0:
            checkpoint = {
                "identity": self.identity,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                **self.state.as_dict(),
            }
            self.checkpoints.save(self.state.step, checkpoint)
            write_text(as_csv(self.state.history), self.checkpoints.folder / "history.csv")
        self.collectives.barrier()

    def restore(self) -> bool:
        """Restores the newest checkpoint on all ranks; returns False without one.

        Raises:
            ValueError: The checkpoint was made with other parameters.
            RuntimeError: The ranks do not share the folder.
        """
        checkpoint = load_on_all_ranks(self.checkpoints, self.collectives)
        if checkpoint is None:
            return False
        check_identity(checkpoint["identity"], self.identity, self.checkpoints.folder)
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.state = TrainState.from_dict(checkpoint)
        return True

    # ---- logging

    def _log(self, output: StepOutput, epoch: int, timer: StepTimer) -> dict[str, float]:
        """Appends a row to the history, averaged over all ranks, passes it to the observers and returns it."""
        losses = self.state.take_mean_losses()
        indicators = collapse_indicators(output.embeddings, self.model.objective.student_temp).tolist()
        seconds, steps = self._add_time(timer)
        row = {
            "step": self.state.step,
            "epoch": epoch,
            "lr": float(self.lr[self.state.step - 1]),
            "target_momentum": self._target_momentum(self.state.step - 1),
            **dict(zip((*LOSSES, *INDICATORS), self.collectives.mean([*losses, *indicators]), strict=True)),
            SPEED: steps * self.config.batch_size / seconds,
            **self.state.scores,
        }
        self.state.history.append(row)
        self.collapse_monitor.update(row, regional=output.embeddings.regions is not None)
        if dist.rank() == 0:
            for observe in self.observers:
                observe(row)
        return row

    def _run_probe(self) -> None:
        """Scores the backbone on rank 0 and shares the score; nothing without a probe."""
        if self.probe is not None:
            if dist.rank() == 0:
                self._check_image_size(self.probe.pixels_NHW3.shape[1])
            score = self.probe(self.model.online.backbone, self.device) if dist.rank() == 0 else 0.0
            self.state.scores["knn"] = self.collectives.broadcast(score)

    def _measure(self) -> None:
        """Measures the backbone on rank 0 and shares the values; nothing without images to measure on."""
        if self.measures is not None:
            found = dict.fromkeys(MEASURES, 0.0)
            if dist.rank() == 0:
                self._check_image_size(self.measures.size)
                found = self.measures(self.model.online.backbone, self.device)
            for name, value in found.items():
                self.state.scores[name] = self.collectives.broadcast(value)

    def _add_time(self, timer: StepTimer) -> tuple[float, int]:
        """Adds the time since the last call to the state; returns its seconds and steps."""
        lap = timer.lap(self.state.step)
        self.state.seconds += lap.seconds
        self.state.seconds_waiting += lap.seconds_waiting
        return lap.seconds, lap.steps

    def _target_momentum(self, step: int) -> float:
        return target_momentum(self.config.target_momentum, step, self.steps)

    def _memory_advice(self, batch: Batch) -> str:
        """Returns the message for a step that ran out of memory."""
        trial = TrainStep(self.model, self.device, self.train_step.precision)

        def backward(images: int) -> None:
            self.optimizer.zero_grad(set_to_none=True)
            free_memory(self.device)
            trial.backward(batch.view1_B3HW[:images], batch.view2_B3HW[:images])

        images = len(batch.view1_B3HW) // self.config.accumulation_steps
        return batch_size_advice(
            backward, images, self.config.batch_size, self.config.accumulation_steps, self.device
        )


def make_optimizer(model: FRA, config: TrainConfig) -> Optimizer:
    """Returns the optimiser of the recipe over the trained parameters.

    Raises:
        ValueError: The recipe has a rate per layer, and the layers of the backbone are not known.
    """
    named, scales = model.trained_parameters(), {}
    if config.layer_decay != 1:
        backbone = cast(Backbone, model.online.backbone)
        scales = optim.layer_scales(backbone, config.layer_decay, "train.layer_decay", "online.backbone.")
    if config.optimizer == "adamw":
        return optim.adamw(named, config.lr, config.weight_decay, scales)
    return optim.lars(
        named, config.lr, config.momentum, config.weight_decay, config.trust_coefficient, scales
    )
