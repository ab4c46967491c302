"""What a busy machine costs: embedding and a small training alone, and next to processes that never wait."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean, median

from fra.bench.busy.loops import busy_loops, cpu_seconds_of, fair_loss, runnable_threads
from fra.bench.embedding import write_untrained_backbone
from fra.bench.inputs import fastest_loader, images_and_source, write_images
from fra.bench.measure import Measurement, Work, alternate, measure
from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.gallery.embed import embed
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.parallel import cores
from fra.train.config import TrainConfig
from fra.train.pretrain import pretrain

MODEL = ModelConfig("mini", hidden_dim=256, projection_dim=64)
IMAGE_SIZE = 48
BATCH_SIZE = 64


def measure_busy(
    loops: int = 4, images: int = 2048, epochs: int = 1, rounds: int = 3
) -> dict[str, float | str]:
    """Measures embedding, from files to a file, and a training of a small network, both on the CPU.

    Each runs once as a warm-up, then in `rounds` rounds alone and next to the loops in turn.

    Args:
        loops: Number of busy processes.
        images: Number of synthetic JPEG files of 64×64 pixels.
        epochs: Epochs of the training.
        rounds: Number of alternating rounds.

    Returns:
        For each work, from medians over the rounds: wall seconds `alone` and `busy`; `lost` = busy / alone; `threads`,
        the average number of runnable threads alone; `lost_over_fair`, `lost` over what `fair_loss` gives, which needs
        a machine without other work; `lost_over_share`, how many times longer it took than it would have with the CPU
        time that a loop got meanwhile for each of its threads, which other work does not disturb.
    """
    found: dict[str, float | str] = {}
    with _works(images, epochs) as works:
        for name, work in works.items():
            list(work())
            counts: list[int] = []
            shares: list[float] = []
            contenders = {
                "alone": partial(_alone, work, counts),
                "busy": partial(_next_to, loops, work, shares),
            }
            taken = alternate(contenders, rounds)
            alone, busy = (median(one.wall for one in taken[key]) for key in contenders)
            cpu = {key: median(one.cpu for one in taken[key]) for key in contenders}
            threads = max(1.0, fmean(counts or [1]))
            values = {
                "alone": alone,
                "busy": busy,
                "lost": busy / alone,
                "threads": threads,
                "lost_over_fair": busy / alone / fair_loss(threads, loops, cores()),
                "lost_over_share": busy / (cpu["alone"] / (threads * median(shares))),
            }
            found |= {f"{name}_{key}": value for key, value in values.items()}
    return {**found, "loops": loops, "cores": cores(), "images": images, "epochs": epochs, "rounds": rounds}


def _alone(work: Work, counts: list[int]) -> Measurement:
    with runnable_threads(counts):
        return measure(work, release=False)


def _next_to(count: int, work: Work, shares: list[float]) -> Measurement:
    """Runs work next to loops, and adds the cores that one of them got to `shares`."""
    with busy_loops(count) as loops:
        before = cpu_seconds_of(loops)
        taken = measure(work, release=False)
        shares.append((cpu_seconds_of(loops) - before) / count / taken.wall)
        return taken


@contextmanager
def _works(images: int, epochs: int) -> Iterator[dict[str, Work]]:
    """Yields both works by name."""
    reader = fastest_loader()
    data, views = DataConfig(reader, image_size=IMAGE_SIZE), ViewsConfig()
    recipe = TrainConfig(
        epochs=epochs, batch_size=BATCH_SIZE, optimizer="adamw", lr=1e-3, warmup_epochs=0, device="cpu"
    )
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder = Path(name)
        write_images(folder / "faces", images, side=64)
        weights = write_untrained_backbone(MODEL.backbone, IMAGE_SIZE, folder / "backbone.safetensors")
        with images_and_source(folder / "faces", images, cores(), reader) as (_, source):
            loader = build_loader(
                data, views, source=source, exclude=frozenset(), batch_size=BATCH_SIZE, seed=0
            )

            def embed_files() -> Iterator[int]:
                embed([str(folder / "faces")], weights, folder / "out.arrow", device="cpu")
                yield images

            def train() -> Iterator[int]:
                out, checkpoints = folder / "pretrain", folder / "checkpoints"
                out.mkdir(exist_ok=True)
                pretrain(MODEL, ObjectiveConfig(), recipe, loader, Views(views, 0), out, checkpoints, {})
                yield epochs * images

            yield {"embedding": embed_files, "training": train}
