"""Embeddings of many images in one file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fra.files import check_output, sha256
from fra.gallery.files import SUFFIXES, write
from fra.inference.detection import Detection
from fra.inference.encoder import FaceEncoder, device_of, load
from fra.inference.image_files import Batch, Skipped, Source, batches, check_names, resolve
from fra.parallel import map_batches
from fra.weights import released


def embed(
    patterns: Sequence[str],
    weights: Path,
    out: Path,
    *,
    batch_size: int = 64,
    device: str = "auto",
    detection: Detection | None = None,
) -> Skipped:
    """Write the embeddings of images, or of the faces in them, to `out`: one row per image or face.

    Args:
        patterns: Files, folders, glob patterns or tar shards.
        weights: Weights file, or the name of released weights.
        out: .parquet or .arrow (columns `image`, `embedding`; metadata `fra` names the weights), or .npz (arrays
            `images`, `embeddings`, `weights`). `read` maps an .arrow file into memory, the
            fastest for `search`. With `detection` also `face` (number in the image, the largest first), `box` (left,
            top, width and height in pixels of the upright image) and `score` (.npz: `faces`, `boxes`, `scores` and
            `crop`).
        batch_size: Images per batch.
        device: "cpu", "cuda" or "auto".
        detection: How faces are found and cropped; None: each image is one face.

    Returns:
        The files that cannot be decoded, and those in which no face was found.

    Raises:
        ValueError: `out` has another suffix, a name is not UTF-8, no image could be decoded, or no face was found.
        FileNotFoundError: A path or pattern matches nothing, or the weights are missing.
        OSError: `out` cannot be written.
    """
    check_output(out, SUFFIXES)
    paths = resolve(patterns)
    if out.suffix == ".parquet":
        check_names(paths)
    encoder = load(weights).to(device_of(device))
    skipped = Skipped()
    sources: list[Source] = []
    parts: list[NDArray[np.float32]] = []
    unit = "image" if detection is None else "face"
    with tqdm(desc="embed", unit=unit, mininterval=1) as bar:
        found = batches(paths, encoder.image_size, batch_size, skipped, detection)
        for batch_sources, part in map_batches(partial(_embed, encoder), found, encoder.device):
            sources += batch_sources
            parts.append(part)
            bar.update(len(batch_sources))
    if not parts:
        raise skipped.nothing_left()
    origin = {"weights": sha256(released.find(weights)), **description(encoder)}
    if detection is not None:
        origin["faces"] = detection.description()
    write(sources, np.concatenate(parts), origin, out)
    return skipped


def _embed(encoder: FaceEncoder, batch: Batch) -> tuple[list[Source], NDArray[np.float32]]:
    return batch.sources, encoder.embed(batch.pixels_N3HW, len(batch.sources)).cpu().numpy()


def description(encoder: FaceEncoder) -> dict[str, object]:
    """Return the architecture and image size of an encoder, stored with its embeddings."""
    return {"backbone": encoder.metadata["backbone"], "image_size": encoder.image_size}
