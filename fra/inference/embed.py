"""Embeddings of many images in one file, and search for the images nearest to a face."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fra.data.images import ImageError, decode, read_file
from fra.faces.crop import CropKind
from fra.faces.detect import Face, Pixels
from fra.files import atomic, check_output, sha256
from fra.inference.detection import Detection, FaceFinder
from fra.inference.encoder import FaceEncoder, load
from fra.inference.image_files import Batch, Skipped, Source, batches, check_names, columns, resolve
from fra.parallel import map_batches
from fra.weights import released

SUFFIXES = (".parquet", ".arrow", ".npz")
ROWS = 512
"""Rows of a gallery that are compared at a time: they stay in the processor's cache."""

RELEASED_AFTER = 256
"""Blocks after which the memory of a mapped file is released."""


def device_of(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if one is available."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


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


PLURAL = {"image": "images", "face": "faces", "box": "boxes", "score": "scores"}
"""Names of a .npz file's arrays, by column of a .parquet file."""


def write(
    sources: Sequence[Source], embeddings_ND: NDArray[np.float32], origin: dict[str, Any], out: Path
) -> None:
    """Write embeddings atomically; `origin` says which encoder they come from, and how faces were cropped."""
    table = columns(sources)
    with atomic(out) as file:
        if out.suffix == ".npz":
            arrays: dict[str, Any] = {PLURAL[name]: np.array(column) for name, column in table.items()}
            if "faces" in origin:
                arrays["crop"] = origin["faces"]["crop"]
            with file.open("wb") as stream:
                np.savez(stream, **arrays, embeddings=embeddings_ND, weights=origin["weights"])
            return
        values = pa.FixedSizeListArray.from_arrays(pa.array(embeddings_ND.ravel()), embeddings_ND.shape[1])
        types = {"box": pa.list_(pa.float64(), 4)}
        arrow = pa.table(
            {name: pa.array(column, types.get(name)) for name, column in table.items()}
            | {"embedding": values}
        ).replace_schema_metadata({"fra": json.dumps(origin)})
        if out.suffix == ".arrow":
            with pa.ipc.new_file(file, arrow.schema) as stream:
                stream.write_table(arrow)
            return
        pq.write_table(arrow, file)


class Match(NamedTuple):
    """An image of the gallery, or a face in it.

    Attributes:
        name: Of the image.
        cosine: Cosine similarity of its embedding to the query's, −1 to 1.
        face: Number of the face in the image; None where each image is one face.
    """

    name: str
    cosine: float
    face: int | None = None


class Gallery(NamedTuple):
    """Embeddings of a file.

    Attributes:
        rows: Columns `image` (names) and `embedding`, and `face` (numbers of faces) where faces were found in images.
        weights: SHA-256 of the weights that they come from.
        crop: How faces were cropped; None where each image is one face.
        mapping: The file, where `rows` is mapped into memory.
    """

    rows: pa.Table
    weights: str
    crop: CropKind | None = None
    mapping: mmap.mmap | None = None

    @property
    def names(self) -> list[str]:
        """Names of the images."""
        names: list[str] = self.rows["image"].to_pylist()
        return names

    @property
    def faces(self) -> list[int] | None:
        """Number of each face in its image; None where each image is one face."""
        return self.rows["face"].to_pylist() if "face" in self.rows.column_names else None

    @property
    def embeddings_ND(self) -> NDArray[np.float32]:
        """One row per image, or per face."""
        return np.concatenate(list(self.blocks(self.rows.num_rows)))

    def blocks(self, rows: int | None = None) -> Iterator[NDArray[np.float32]]:
        """The embeddings, at most `rows` (default: `ROWS`) at a time, without copies."""
        batches = self.rows.select(["embedding"]).to_batches(max_chunksize=max(rows or ROWS, 1))
        for number, batch in enumerate(batches, start=1):
            values = batch.column(0)
            yield values.flatten().to_numpy().reshape(-1, values.type.list_size)
            if self.mapping is not None and number % RELEASED_AFTER == 0:
                self.mapping.madvise(mmap.MADV_DONTNEED)  # pages that were read count as memory in use

    def match(self, row: int, cosine: float) -> Match:
        """The entry of a row as a match."""
        face = self.rows["face"][row].as_py() if "face" in self.rows.column_names else None
        return Match(self.rows["image"][row].as_py(), cosine, face)


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
            return _read_npz(path)
        mapping = None
        if path.suffix == ".arrow":
            with path.open("rb") as stream:
                mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            table = pa.ipc.open_file(pa.py_buffer(mapping)).read_all()
        else:
            table = pq.read_table(path)
        origin = json.loads((table.schema.metadata or {})[b"fra"])
        wanted = [name for name in ("image", "face") if name in table.column_names]
        if not pa.types.is_fixed_size_list(table["embedding"].type):
            raise ValueError("embeddings differ in length")
        crop = origin["faces"]["crop"] if "faces" in origin else None
        return Gallery(table.select([*wanted, "embedding"]), origin["weights"], crop, mapping)
    except (pa.ArrowException, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of embeddings that `fra embed` wrote ({error})") from None


def _read_npz(path: Path) -> Gallery:
    with np.load(path, allow_pickle=False) as content:
        values_ND = content["embeddings"]
        columns = {"image": pa.array(content["images"].tolist())}
        if "faces" in content:
            columns["face"] = pa.array(content["faces"])
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(
            pa.array(values_ND.ravel()), values_ND.shape[1]
        )
        crop = str(content["crop"]) if "faces" in content else None
        return Gallery(pa.table(columns), str(content["weights"]), cast(CropKind | None, crop))


def search(image: Path, gallery: Path, weights: Path, count: int = 5) -> list[Match]:
    """Return the images of the gallery that are most similar to a face, the most similar first.

    Similarity is the cosine of embeddings minus the gallery's mean, which all faces share.

    Raises:
        FileNotFoundError: The image, the gallery or the weights are missing.
        ValueError: The image cannot be decoded, or the gallery was made with other weights.
    """
    pixels_HW3 = read_query(image)
    return nearest([pixels_HW3], read_gallery(gallery, weights), weights, count)[0]


def search_faces(
    image: Path, gallery: Path, weights: Path, count: int = 5, kind: CropKind | None = None
) -> list[tuple[Face, list[Match]]]:
    """Find the faces in a photograph, and return for each the most similar images of the gallery.

    Args:
        image: The photograph.
        gallery: Embeddings that `embed` wrote, of faces that were found or of images that each show one face.
        weights: The weights that the gallery was made with.
        count: Images of the gallery for each face.
        kind: How faces are cropped; None: as those of the gallery, or "box" where it has whole images.

    Returns:
        The faces, the largest first; similarity is the same as in `search`.

    Raises:
        FileNotFoundError: The photograph, the gallery or the weights are missing.
        ValueError: The photograph cannot be decoded or shows no face, or the gallery was made with other weights or
            crops.
    """
    photo_HW3 = read_query(image)
    known = read_gallery(gallery, weights)
    if kind is not None and known.crop not in (None, kind):
        raise ValueError(f"{gallery} was made with --crop {known.crop}: use the same for the query")
    found = FaceFinder(Detection(kind or known.crop or "box"))(photo_HW3)
    if found.reason is not None:
        raise ValueError(f"{image}: {found.reason}")
    matches = nearest([crop.pixels_HW3 for crop in found.crops], known, weights, count)
    return [(crop.face, near) for crop, near in zip(found.crops, matches, strict=True)]


def read_query(image: Path) -> Pixels:
    """The pixels of a query.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The image cannot be decoded.
    """
    if not image.is_file():
        raise FileNotFoundError(f"{image}: no such image file")
    try:
        return decode(read_file(image))
    except ImageError as error:
        raise ValueError(f"{image}: {error}") from None


def read_gallery(gallery: Path, weights: Path) -> Gallery:
    """The gallery of a file.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file has another content, or was made with other weights.
    """
    known = read(gallery)
    if known.weights != sha256(released.find(weights)):
        raise ValueError(
            f"{gallery} was made with other weights than {weights} (SHA-256 {known.weights[:12]}…): "
            "use those weights, or embed the gallery again"
        )
    return known


def nearest(queries: Sequence[Pixels], known: Gallery, weights: Path, count: int) -> list[list[Match]]:
    """The entries of the gallery that are most similar to each query, the most similar first."""
    number = known.rows.num_rows
    sums_D = sum(block.sum(axis=0).astype(np.float64) for block in known.blocks())
    mean_D = (sums_D / number * (number > 1)).astype(np.float32)
    query_QD = unit(load(weights).embed(queries).numpy() - mean_D)
    cosine_NQ = np.concatenate([_cosines(block, mean_D, query_QD) for block in known.blocks()])
    return [
        [known.match(row, float(cosine_N[row])) for row in largest(cosine_N, count).tolist()]
        for cosine_N in cosine_NQ.T
    ]


def _cosines(
    rows_ND: NDArray[np.float32], mean_D: NDArray[np.float32], query_QD: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the cosines (N, Q) of rows minus the mean with queries of length 1; 0 for rows that are the mean."""
    centred_ND = rows_ND - mean_D
    length_N = np.sqrt(np.einsum("nd,nd->n", centred_ND, centred_ND))
    cosine_NQ: NDArray[np.float32] = centred_ND @ query_QD.T / np.maximum(length_N, 1e-12)[:, None]
    return cosine_NQ


def largest(values_N: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the indices of the largest values, in descending order; equal values keep their order."""
    if count < len(values_N):
        candidates = np.flatnonzero(values_N >= np.partition(values_N, -count)[-count])
    else:
        candidates = np.arange(len(values_N))
    return candidates[np.argsort(-values_N[candidates], kind="stable")][:count]


def unit(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows scaled to length 1; rows of zeros stay zeros."""
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors_ND / np.maximum(lengths, 1e-12)
    return scaled
