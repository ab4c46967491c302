"""The training loop: everything that changes while training, how it is saved, restored and judged."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.optim import Optimizer

from fra import dist
from fra.data.views.views import Views
from fra.files import write_text
from fra.method.networks import FRA
from fra.train import optim
from fra.train.checkpoint import Checkpoints
from fra.train.config import TrainConfig
from fra.train.diagnostics import CollapseWatch, Divergence, collapse
from fra.train.history import as_csv
from fra.train.interrupt import RESUME_ME, StopSignal
from fra.train.mask_init import start_at_clusters
from fra.train.memory import free_memory, is_out_of_memory, largest_that_fits
from fra.train.prefetch import Batch, Clock, Loader, batches
from fra.train.probe import Probe
from fra.train.progress import Progress
from fra.train.schedule import target_momentum, warmup_cosine
from fra.train.step import Late, Outcome, Trainer, choose_precision
from fra.weights.files import save_weights

logger = logging.getLogger(__name__)

LOSSES = ("total", "global", "region", "relation")
SIGNS = ("embedding_std", "mask_entropy", "masks_used")

Observer: TypeAlias = Callable[[dict[str, float]], None]
"""Called with each new row of the history."""


class Unread(NamedTuple):
    """A step whose losses are still on the way."""

    step: int
    losses: Late
    batch: Batch


class DivergedError(RuntimeError):
    """The loss of `step` was not finite, or exploded."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Run:
    """All that changes while training, and how it is saved and restored."""

    def __init__(
        self,
        model: FRA,
        config: TrainConfig,
        loader: Loader,
        views: Views,
        checkpoints: Checkpoints,
        identity: dict[str, Any],
        observers: Sequence[Observer],
        probe: Probe | None = None,
    ) -> None:
        self.config = config
        self.loader = loader
        self.views = views
        self.checkpoints = checkpoints
        self.identity = identity
        self.observers = observers
        self.probe = probe
        self.device = dist.choose_device(config.device)
        precision = choose_precision(config.precision, self.device)
        self.trainer = Trainer(model, self.device, precision, config.accumulation_steps, config.compile)
        self.optimizer = _optimizer(model, config)
        self.steps = config.epochs * loader.steps_per_epoch
        self.region_start = config.region_start_epoch * loader.steps_per_epoch
        self.lr = warmup_cosine(config.lr, config.epochs, config.warmup_epochs, loader.steps_per_epoch)
        self.agreement = dist.Agreement()
        self.collapse_watch = CollapseWatch()
        # What a checkpoint holds besides weights:
        self.step = 0
        self.image_size = 0
        self.seconds = 0.0
        self.waited = 0.0
        self.history: list[dict[str, float]] = []
        self.probed: dict[str, float] = {}
        self.sums = [0.0] * len(LOSSES)
        self.summed = 0
        self.divergence = Divergence(config.max_loss_ratio)
        self.rollbacks = 0
        self.skipped: list[int] = []

    def state(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "model": self.trainer.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "image_size": self.image_size,
            "seconds": self.seconds,
            "waited": self.waited,
            "history": self.history,
            "probed": self.probed,
            "sums": self.sums,
            "summed": self.summed,
            "mean_loss": self.divergence.mean,
            "rollbacks": self.rollbacks,
            "skipped": self.skipped,
        }

    def restore(self) -> bool:
        """Continue from the newest checkpoint, the same on all ranks; False where there is none."""
        state = self.checkpoints.load() if dist.rank() == 0 else None
        self.agreement.wait()  # rank 0 has set damaged checkpoints aside
        if dist.rank() > 0:
            state = self.checkpoints.load()
        step = -1 if state is None else int(state["step"])
        if self.agreement.any(self.agreement.mean([step]) != [step]):
            raise RuntimeError(
                f"ranks found different checkpoints in {self.checkpoints.folder}: "
                "it must be on storage that all machines share"
            )
        if state is None:
            return False
        if state["identity"] != self.identity:
            raise ValueError(
                f"{self.checkpoints.folder} holds another run's checkpoints: give each run its own folder, "
                f"or delete this one ({_differences(state['identity'], self.identity)})"
            )
        self.trainer.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.image_size = state["step"], state["image_size"]
        self.seconds, self.waited = state["seconds"], state["waited"]
        self.history, self.probed = state["history"], state["probed"]
        self.sums, self.summed = state["sums"], state["summed"]
        self.divergence.mean = state["mean_loss"]
        self.rollbacks, self.skipped = state["rollbacks"], state["skipped"]
        return True

    def save(self) -> None:
        """A checkpoint of this moment, unless a weight is not finite."""
        self._check_weights()
        if dist.rank() == 0:
            self.checkpoints.save(self.step, self.state())
            write_text(as_csv(self.history), self.checkpoints.folder / "history.csv")
        self.agreement.wait()

    def train(self, stop: StopSignal) -> None:
        """Every step that is left. Raises SystemExit(75) after a stop signal, once a checkpoint is saved."""
        progress = Progress(self.steps, self.step, dist.rank() == 0, self.device)
        if self.step == 0:
            self._ask_probe()
        try:
            while self.step < self.steps:
                try:
                    self._train_epoch(stop, progress)
                except DivergedError as error:
                    self._roll_back(error)
                    progress.rewind(self.step)
        finally:
            progress.close()

    def _train_epoch(self, stop: StopSignal, progress: Progress) -> None:
        """What is left of the present epoch."""
        epoch, start = divmod(self.step, self.loader.steps_per_epoch)
        end = self.step - start + self.loader.steps_per_epoch
        lag = 1 if self.device.type == "cuda" else 0
        unread: deque[Unread] = deque()
        clock = Clock(self.step)
        if self.step == self.region_start:
            self._join_regions(epoch)
        with closing(batches(self.loader, self.views, epoch, start, self.device)) as feed:
            for batch in clock.timed(self._in_memory(feed)):
                outcome = self._step(batch)
                if outcome is not None:
                    unread.append(Unread(self.step, Late(outcome.losses), batch))
                self.step += 1
                progress.advance()
                stops = self.agreement.any(stop.requested) and self.step < self.steps
                logs = self.step % self.config.log_every == 0 or self.step == self.steps
                # The end is saved too: should writing the results fail, no step is lost.
                saves = stops or self.step % self.config.checkpoint_every == 0 or self.step == self.steps
                # On a GPU a loss is read one step late, so that the GPU never waits for its reader.
                self._read(unread, leave=0 if logs or saves or self.step == end else lag)
                if self.probe is not None and self.step == end and (epoch + 1) % self.probe.every == 0:
                    with clock.paused():
                        self._ask_probe()
                if logs and outcome is not None:
                    progress.show(self._log(outcome, epoch, clock))
                if saves:
                    self._count(clock)
                    self.save()
                if stops:
                    raise SystemExit(RESUME_ME)
                if self.step == end:
                    self._count(clock)
                    return
        raise RuntimeError(
            f"the loader promised {self.loader.steps_per_epoch} batches an epoch, but epoch {epoch} gave "
            f"{self.step - end + self.loader.steps_per_epoch}"
        )

    def _in_memory(self, feed: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; raises MemoryError with advice where there is no room to make one."""
        try:
            yield from feed
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = error
        else:
            return
        images = self.config.batch_size // dist.world_size()
        raise MemoryError(
            f"out of memory on {self.device} while views of {images} images were made: use a smaller "
            "train.batch_size or data.image_size"
        ) from failure

    def _join_regions(self, epoch: int) -> None:
        """What is done once, before the first step that sees regions."""
        self.divergence.mean = None  # the loss has more terms from here on
        model = self.trainer.model
        if self.config.mask_init == "clusters" and model.online.region_neck is not None:
            self._check_weights()
            with closing(self._micro_batches(epoch)) as feed, self.trainer.autocast():
                start_at_clusters(model, feed, self.config.seed)

    def _micro_batches(self, epoch: int) -> Generator[Batch, None, None]:
        """The micro-batches of an epoch, less those of the steps that are left out."""
        first = epoch * self.loader.steps_per_epoch
        with closing(batches(self.loader, self.views, epoch, 0, self.device)) as feed:
            for step, batch in enumerate(feed, first):
                if step not in self.skipped:
                    self._check_size(batch)  # ranks wait for each other's rows: these must be as many
                    parts = (tensor.chunk(self.config.accumulation_steps) for tensor in batch)
                    yield from map(Batch, *parts)

    def _check_size(self, batch: Batch) -> None:
        """Raises ValueError where the ranks' shares do not make up a batch."""
        wanted, images = self.config.batch_size, len(batch.view1_B3HW) * dist.world_size()
        if images != wanted:
            raise ValueError(
                f"train.batch_size is {wanted}, but {dist.world_size()} loader(s) gave {images}: "
                f"build each with batch_size = {wanted} / {dist.world_size()}"
            )

    def _check_weights(self) -> None:
        """Raises DivergedError where a weight is not finite."""
        norms = torch.stack(torch._foreach_norm(list(self.trainer.model.parameters())))
        if not bool(norms.isfinite().all()):
            raise DivergedError(self.step - 1, f"a weight is not finite after step {self.step}")

    def _step(self, batch: Batch) -> Outcome | None:
        """One optimiser step, or None where a rollback told to leave this batch out."""
        config = self.config
        if self.step in self.skipped:
            return None
        self._check_size(batch)
        self.image_size = batch.view1_B3HW.shape[-1]
        # Dropout is a function of seed, step and rank: nothing random needs to be saved.
        torch.manual_seed(
            int(np.random.SeedSequence([config.seed, self.step, dist.rank()]).generate_state(1)[0])
        )
        try:
            return self.trainer.step(
                batch.view1_B3HW,
                batch.view2_B3HW,
                self.optimizer,
                float(self.lr[self.step]),
                self._target_momentum(self.step),
                config.prototype_momentum,
                regional=self.step >= self.region_start,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = error.with_traceback(None)  # which would keep the failed step's tensors alive
        raise MemoryError(self._memory_advice(batch)) from failure

    def _memory_advice(self, batch: Batch) -> str:
        """Which batch would fit, by trying."""
        size = len(batch.view1_B3HW) // self.config.accumulation_steps
        said = f"out of memory on {self.device} with {size} images at once"
        if dist.world_size() > 1:
            present = self.config.accumulation_steps
            return f"{said}: halve train.batch_size, or double train.accumulation_steps ({present})"

        trial = Trainer(self.trainer.model, self.device, self.trainer.precision)

        def backward(count: int) -> None:
            self.optimizer.zero_grad(set_to_none=True)
            free_memory(self.device)
            trial.backward(batch.view1_B3HW[:count], batch.view2_B3HW[:count])

        with torch.compiler.set_stance("force_eager"):  # not compiled anew for each size
            found = largest_that_fits(backward, size)
        if found is None:
            return f"{said}, and with two: use a smaller model.backbone, model.hidden_dim or data.image_size"
        accumulate = math.ceil(self.config.batch_size / found)
        return f"{said}: {found} fit, so set train.batch_size to {found}, or train.accumulation_steps to {accumulate}"

    def _read(self, unread: deque[Unread], leave: int) -> None:
        """Read losses of past steps back from the device; all ranks raise DivergedError if any has a bad
        one."""
        bad: Unread | None = None
        values: list[float] = []
        while len(unread) > leave and bad is None:
            oldest = unread.popleft()
            values = oldest.losses.read()
            if self.divergence.is_bad(values[0]):
                bad = oldest
            else:
                self.sums = [total + value for total, value in zip(self.sums, values, strict=True)]
                self.summed += 1
        step = self.agreement.earliest(None if bad is None else bad.step)
        if step is None:
            return
        if bad is None:
            raise DivergedError(step, f"the loss of step {step} diverged on another rank")
        path = self.checkpoints.folder / f"diverged-step-{step:09d}-rank-{dist.rank()}.safetensors"
        save_weights(path, bad.batch._asdict(), {"step": bad.step, "losses": repr(values)})
        losses = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSSES, values, strict=True))
        raise DivergedError(step, f"the loss of step {step} diverged ({losses}); its views are in {path}")

    def _roll_back(self, error: DivergedError) -> None:
        """Back to the last good checkpoint, to leave out the batch that broke it; or stop."""
        rollbacks, skipped = self.rollbacks + 1, [*self.skipped, error.step]
        if rollbacks > self.config.max_rollbacks:
            raise RuntimeError(
                f"{error}. Gave up after {self.rollbacks} rollbacks: lower train.lr, lengthen "
                "train.warmup_epochs, or use train.precision=float32"
            ) from error
        logger.warning("%s; going back to the last checkpoint and leaving this batch out", error)
        if not self.restore():
            raise RuntimeError(
                f"{error}. There is no checkpoint to go back to yet: lower train.lr"
            ) from error
        self.rollbacks, self.skipped = rollbacks, skipped

    def _log(self, outcome: Outcome, epoch: int, clock: Clock) -> dict[str, float]:
        """A new row of the history, over all ranks."""
        losses = [total / self.summed for total in self.sums]
        signs = collapse(outcome.seen, self.trainer.model.objective.student_temp).tolist()
        seconds, steps = self._count(clock)
        reading = {
            "step": self.step,
            "epoch": epoch,
            "lr": float(self.lr[self.step - 1]),
            "target_momentum": self._target_momentum(self.step - 1),
            **dict(zip((*LOSSES, *SIGNS), self.agreement.mean([*losses, *signs]), strict=True)),
            "images_per_second": steps * self.config.batch_size / seconds,
            **self.probed,
        }
        self.history.append(reading)
        self.sums, self.summed = [0.0] * len(LOSSES), 0
        self.collapse_watch.see(reading, regional=outcome.seen.regions is not None)
        if dist.rank() == 0:
            for observe in self.observers:
                observe(reading)
        return reading

    def _ask_probe(self) -> None:
        """Rank 0 asks, on behalf of all; the others wait for its score."""
        if self.probe is not None:
            backbone = self.trainer.model.online.backbone
            score = self.probe(backbone, self.device) if dist.rank() == 0 else 0.0
            self.probed = {"knn": self.agreement.of_first(score)}

    def _target_momentum(self, step: int) -> float:
        return target_momentum(self.config.target_momentum, step, self.steps)

    def _count(self, clock: Clock) -> tuple[float, int]:
        """Add a lap to the run's account; its seconds and steps."""
        seconds, waited, steps = clock.lap(self.step)
        self.seconds += seconds
        self.waited += waited
        return seconds, steps


def _optimizer(model: FRA, config: TrainConfig) -> Optimizer:
    named = model.trained_parameters()
    if config.optimizer == "adamw":
        return optim.adamw(named, config.lr, config.weight_decay)
    return optim.lars(named, config.lr, config.momentum, config.weight_decay, config.trust_coefficient)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    return ", ".join(f"{name}: {theirs.get(name)} there, {ours.get(name)} here" for name in names)
