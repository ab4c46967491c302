"""Embeddings of many images in one file, and search for the images nearest to a face."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fra.data.images import ImageError, decode, read_file
from fra.files import atomic, check_output, sha256
from fra.inference.encoder import FaceEncoder, load
from fra.inference.image_files import Unreadable, batches, resolve
from fra.weights import released

SUFFIXES = (".parquet", ".npz")


def device_of(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if one is available."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def embed(
    patterns: Sequence[str], weights: Path, out: Path, *, batch_size: int = 64, device: str = "auto"
) -> Unreadable:
    """Write the embeddings of images to `out`, one row per image.

    Args:
        patterns: Files, folders, glob patterns or tar shards.
        weights: Weights file, or the name of released weights.
        out: .parquet (columns `image`, `embedding`; metadata `fra` names the weights) or .npz (arrays `images`,
            `embeddings`, `weights`).
        batch_size: Images per batch.
        device: "cpu", "cuda" or "auto".

    Returns:
        The files that cannot be decoded as an image.

    Raises:
        ValueError: `out` has another suffix, or no image could be decoded.
        FileNotFoundError: A path or pattern matches nothing, or the weights are missing.
        OSError: `out` cannot be written.
    """
    check_output(out, SUFFIXES)
    paths = resolve(patterns)
    encoder = load(weights).to(device_of(device))
    unreadable = Unreadable()
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    with tqdm(desc="embed", unit="image", mininterval=1) as bar:
        for batch in batches(paths, encoder.image_size, batch_size, unreadable):
            names += batch.names
            parts.append(encoder.embed(batch.pixels_N3HW, batch_size).cpu().numpy())
            bar.update(len(batch.names))
    if not parts:
        name, reason = next(iter(unreadable.reasons.items()), ("", "no image found"))
        raise ValueError(f"none of {len(unreadable.reasons)} files is an image; {name}: {reason}")
    origin = {"weights": sha256(released.find(weights)), **description(encoder)}
    write(names, np.concatenate(parts), origin, out)
    return unreadable


def description(encoder: FaceEncoder) -> dict[str, object]:
    """Return the architecture and image size of an encoder, stored with its embeddings."""
    return {"backbone": encoder.metadata["backbone"], "image_size": encoder.image_size}


def write(names: list[str], embeddings_ND: NDArray[np.float32], origin: dict[str, object], out: Path) -> None:
    """Write embeddings atomically; `origin` says which encoder they come from."""
    with atomic(out) as partial:
        if out.suffix == ".npz":
            with partial.open("wb") as stream:
                np.savez(
                    stream, images=np.array(names), embeddings=embeddings_ND, weights=str(origin["weights"])
                )
            return
        values = pa.FixedSizeListArray.from_arrays(pa.array(embeddings_ND.ravel()), embeddings_ND.shape[1])
        table = pa.table({"image": pa.array(names), "embedding": values})
        pq.write_table(table.replace_schema_metadata({"fra": json.dumps(origin)}), partial)


class Gallery(NamedTuple):
    """Embeddings of a file: names of images, values (N, D), and the SHA-256 of the weights that they come from."""

    names: list[str]
    embeddings_ND: NDArray[np.float32]
    weights: str


def read(path: Path) -> Gallery:
    """Read a file of embeddings that `embed` wrote.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file has another content.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `fra embed` writes one")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as content:
                return Gallery(content["images"].tolist(), content["embeddings"], str(content["weights"]))
        table = pq.read_table(path)
        weights = json.loads((table.schema.metadata or {})[b"fra"])["weights"]
        values = table["embedding"].combine_chunks()
        width = values.type.list_size
        return Gallery(table["image"].to_pylist(), values.flatten().to_numpy().reshape(-1, width), weights)
    except (pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of embeddings that `fra embed` wrote ({error})") from None


class Match(NamedTuple):
    """An image of the gallery, and the cosine similarity of its embedding to the query's, −1 to 1."""

    name: str
    cosine: float


def search(image: Path, gallery: Path, weights: Path, count: int = 5) -> list[Match]:
    """Return the images of the gallery that are most similar to a face, the most similar first.

    Similarity is the cosine of embeddings minus the gallery's mean, which all faces share.

    Raises:
        FileNotFoundError: The image, the gallery or the weights are missing.
        ValueError: The image cannot be decoded, or the gallery was made with other weights.
    """
    if not image.is_file():
        raise FileNotFoundError(f"{image}: no such image file")
    try:
        pixels = decode(read_file(image))
    except ImageError as error:
        raise ValueError(f"{image}: {error}") from None
    known = read(gallery)
    if known.weights != sha256(released.find(weights)):
        raise ValueError(
            f"{gallery} was made with other weights than {weights} (SHA-256 {known.weights[:12]}…): "
            "use those weights, or embed the gallery again"
        )
    mean = known.embeddings_ND.mean(axis=0) * np.float32(len(known.names) > 1)
    query = unit(load(weights).embed([pixels]).numpy() - mean)
    cosines = unit(known.embeddings_ND - mean) @ query[0]
    nearest = np.argsort(-cosines, kind="stable")[:count]
    return [Match(known.names[row], float(cosines[row])) for row in nearest]


def unit(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows scaled to length 1; rows of zeros stay zeros."""
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors_ND / np.maximum(lengths, 1e-12)
    return scaled
