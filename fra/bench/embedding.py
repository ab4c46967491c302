"""`fra embed`, from image files to a finished file, compared with the bare backbone on decoded images."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fra.bench.inputs import write_images
from fra.bench.measure import alternate, comparison, seconds_of
from fra.gallery.embed import embed
from fra.inference.encoder import FaceEncoder, load
from fra.method.backbone import build
from fra.weights.files import save_weights
from fra.weights.layouts import IMAGENET


def write_untrained_backbone(backbone: str, image_size: int, path: Path) -> Path:
    """Writes a weights file with random weights and returns its path; speed does not depend on the values."""
    mean, std = IMAGENET
    metadata = {
        "contents": "backbone",
        "backbone": backbone,
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
    }
    save_weights(path, build(backbone).state_dict(), metadata)
    return path


@torch.inference_mode()
def run_backbone(encoder: FaceEncoder, count: int, batch_size: int) -> None:
    """Runs the backbone alone on `count` images that are already decoded, scaled and normalised.

    They are in the channels-last layout, the faster one, which decoded images have.
    """
    batch = torch.rand(batch_size, 3, encoder.image_size, encoder.image_size)
    batch = batch.contiguous(memory_format=torch.channels_last)
    for done in range(0, count, batch_size):
        encoder.backbone(batch[: count - done]).mean((2, 3))


def compare_embedding(
    weights: Path | None, backbone: str, image_size: int, images: int, batch_size: int, rounds: int
) -> dict[str, Any]:
    """Compares `fra embed` on JPEG files of 200×200 pixels with the bare backbone, on the CPU.

    Args:
        weights: Weights file; None takes an untrained `backbone` at `image_size`.
        backbone: Name as in model.backbone, if there are no weights.
        image_size: Side in pixels, if there are no weights.
        images: Number of synthetic images.
        batch_size: Images per forward pass.
        rounds: Number of alternating rounds.

    Returns:
        `baseline` (bare backbone) and `ours` in images/s, medians over the rounds, `ratio` and the setup.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder = Path(name)
        write_images(folder / "faces", images)
        file = weights or write_untrained_backbone(backbone, image_size, folder / "backbone.safetensors")
        encoder = load(file)
        run_backbone(encoder, batch_size, batch_size)  # warm-up

        def embed_files() -> None:
            embed([str(folder / "faces")], file, folder / "out.parquet", batch_size=batch_size, device="cpu")

        contenders = {
            "baseline": partial(seconds_of, partial(run_backbone, encoder, images, batch_size)),
            "ours": partial(seconds_of, embed_files),
        }
        seconds = alternate(contenders, rounds)
    return {
        **comparison(images / median(seconds["baseline"]), images / median(seconds["ours"])),
        "backbone": str(encoder.metadata["backbone"]),
        "image_size": encoder.image_size,
        "images": images,
        "batch_size": batch_size,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }
