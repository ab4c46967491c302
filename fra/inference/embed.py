"""Embeddings of many images into one file, and the nearest of them to a face."""

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

from fra.files import atomic, sha256
from fra.inference.encoder import FaceEncoder, load
from fra.inference.image_files import Unread, batches
from fra.weights import released

SUFFIXES = (".parquet", ".npz")


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def embed(
    places: Sequence[str], weights: Path, out: Path, *, batch_size: int = 64, device: str = "auto"
) -> Unread:
    """Embeds all images that `places` name into `out`: a row an image, `image` (its name) and `embedding`.

    As .parquet (list of float32; which weights made it is in the file's metadata under `fra`) or .npz (`images`,
    `embeddings`, `weights`). Returns the files that hold no image that can be decoded.

    Raises:
        ValueError: `out` is neither, or no image could be decoded.
        FileNotFoundError: nothing is at one of the places.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out}: write to a file that ends in {' or '.join(SUFFIXES)}")
    encoder = load(weights).to(device_of(device))
    unread = Unread()
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    with tqdm(desc="embed", unit="image", mininterval=1) as bar:
        for batch in batches(places, encoder.image_size, batch_size, unread):
            names += batch.names
            parts.append(encoder.embed(batch.pixels_N3HW, batch_size).cpu().numpy())
            bar.update(len(batch.names))
    if not parts:
        name, reason = next(iter(unread.reasons.items()))
        raise ValueError(f"none of {len(unread.reasons)} files is an image; {name}: {reason}")
    write(names, np.concatenate(parts), {"weights": sha256(released.find(weights)), **about(encoder)}, out)
    return unread


def about(encoder: FaceEncoder) -> dict[str, object]:
    """What a reader of embeddings should know of the encoder."""
    return {"backbone": encoder.metadata["backbone"], "image_size": encoder.image_size}


def write(names: list[str], embeddings_ND: NDArray[np.float32], says: dict[str, object], out: Path) -> None:
    """Writes embeddings, whole or not at all."""
    with atomic(out) as partial:
        if out.suffix == ".npz":
            with partial.open("wb") as stream:
                np.savez(
                    stream, images=np.array(names), embeddings=embeddings_ND, weights=str(says["weights"])
                )
            return
        values = pa.FixedSizeListArray.from_arrays(pa.array(embeddings_ND.ravel()), embeddings_ND.shape[1])
        table = pa.table({"image": pa.array(names), "embedding": values})
        pq.write_table(table.replace_schema_metadata({"fra": json.dumps(says)}), partial)


class Gallery(NamedTuple):
    """Embeddings out of a file: names, values (N, D), and the SHA-256 of the weights that made them."""

    names: list[str]
    embeddings_ND: NDArray[np.float32]
    weights: str


def read(path: Path) -> Gallery:
    """What `embed` wrote.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it holds no embeddings of ours.
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
        raise ValueError(f"{path}: holds no embeddings that `fra embed` wrote ({error})") from None


class Near(NamedTuple):
    """An image of the gallery, and the cosine between its embedding and the query's, −1 to 1."""

    name: str
    cosine: float


def search(image: Path, gallery: Path, weights: Path, count: int = 5) -> list[Near]:
    """The images of the gallery that are nearest to a face, the nearest first.

    Embeddings are compared by cosine after the gallery's mean is taken off: what all faces share says nothing.

    Raises:
        ValueError: the gallery was made with other weights.
    """
    known = read(gallery)
    if known.weights != sha256(released.find(weights)):
        raise ValueError(
            f"{gallery} was made with other weights than {weights} (SHA-256 {known.weights[:12]}…): "
            "give those, or embed again"
        )
    mean = known.embeddings_ND.mean(axis=0) * np.float32(len(known.names) > 1)
    query = unit(load(weights).embed([image]).numpy() - mean)
    cosines = unit(known.embeddings_ND - mean) @ query[0]
    nearest = np.argsort(-cosines, kind="stable")[:count]
    return [Near(known.names[place], float(cosines[place])) for place in nearest]


def unit(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row at length 1 (a row of zeros stays)."""
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors_ND / np.maximum(lengths, 1e-12)
    return scaled
