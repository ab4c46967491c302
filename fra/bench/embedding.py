"""`fra embed`, from image files to a finished file, beside the bare model on pixels that lie ready; one run."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from fra.bench.synthetic_images import made_up_faces
from fra.inference.embed import embed
from fra.inference.encoder import FaceEncoder, load
from fra.method.backbone import build
from fra.weights.files import save_weights

NORMAL = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def untrained(backbone: str, image_size: int, path: Path) -> Path:
    """A file of weights: what they are does not change how long they take."""
    says = {"contents": "backbone", "backbone": backbone, "image_size": image_size, **NORMAL}
    save_weights(path, build(backbone).state_dict(), says)
    return path


@torch.inference_mode()
def bare(encoder: FaceEncoder, count: int, batch_size: int) -> float:
    """Seconds of the backbone alone on `count` images that are decoded, scaled and normalised already.

    In the channels-last layout, which is faster, and which decoded images have.
    """
    batch = torch.rand(batch_size, 3, encoder.image_size, encoder.image_size)
    batch = batch.contiguous(memory_format=torch.channels_last)
    start = time.perf_counter()
    for done in range(0, count, batch_size):
        encoder.backbone(batch[: count - done]).mean((2, 3))
    return time.perf_counter() - start


def embedding(
    weights: Path | None, backbone: str, image_size: int, images: int, batch_size: int, rounds: int
) -> dict[str, float | int | str]:
    """Images a second of both, on the CPU, and their ratio; the median of alternating rounds.

    The images are JPEGs of 200×200. Without `weights`, an untrained `backbone` at `image_size`.
    """
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder = Path(name)
        made_up_faces(folder / "faces", images)
        file = weights or untrained(backbone, image_size, folder / "backbone.safetensors")
        encoder = load(file)
        bare(encoder, batch_size, batch_size)
        seconds: dict[str, list[float]] = {"bare": [], "embed": []}
        for _ in range(rounds):
            seconds["bare"].append(bare(encoder, images, batch_size))
            start = time.perf_counter()
            embed([str(folder / "faces")], file, folder / "out.parquet", batch_size=batch_size, device="cpu")
            seconds["embed"].append(time.perf_counter() - start)
    rates = {name: images / median(times) for name, times in seconds.items()}
    return {
        "backbone": str(encoder.metadata["backbone"]),
        "image_size": encoder.image_size,
        "images": images,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "bare_images_per_second": rates["bare"],
        "embed_images_per_second": rates["embed"],
        "of_bare": rates["embed"] / rates["bare"],
    }
