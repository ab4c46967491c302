"""Files of embeddings: written once, read or mapped into memory."""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fra.faces.crop import CropKind
from fra.files import atomic
from fra.inference.image_files import Source, columns

SUFFIXES = (".parquet", ".arrow", ".npz")
ROWS = 512
"""Rows of a gallery that are compared at a time: they stay in the processor's cache."""

RELEASED_AFTER = 256 * ROWS
"""Rows after which the memory of a mapped file is released."""

PLURAL = {"image": "images", "face": "faces", "box": "boxes", "score": "scores"}
"""Names of a .npz file's arrays, by column of a .parquet file."""


def table_of(sources: Sequence[Source], embeddings_ND: NDArray[np.float32], faces: bool) -> pa.Table:
    """A table of embeddings; `faces`: each is of a face that was found in an image."""
    arrays = {"image": _strings([source.name for source in sources])}
    if faces:
        found = columns(sources)
        arrays |= {
            "face": _numbers(np.array(found.get("face", []), np.int64)),
            "box": _lists(np.array(found.get("box", []), np.float64).reshape(-1, 4)),
            "score": _numbers(np.array(found.get("score", []), np.float64)),
        }
    return pa.table(arrays | {"embedding": _lists(embeddings_ND)})


# Arrays from their memory: `pyarrow.array` imports pandas, which takes longer than embedding a few images.


def _numbers(values_N: NDArray[Any]) -> pa.Array:
    values_N = np.ascontiguousarray(values_N)
    kind = pa.from_numpy_dtype(values_N.dtype)
    return pa.Array.from_buffers(kind, len(values_N), [None, pa.py_buffer(values_N)])


def _lists(values_ND: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(_numbers(values_ND.ravel()), values_ND.shape[1])


def _strings(texts: Sequence[str]) -> pa.StringArray:
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"the names of {len(texts)} images have more than 2 GiB")
    buffers = (pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded)))
    return pa.StringArray.from_buffers(len(texts), *buffers)


def write(
    sources: Sequence[Source], embeddings_ND: NDArray[np.float32], origin: dict[str, Any], out: Path
) -> None:
    """Write embeddings that are in memory; `origin` says which encoder they come from, and how faces were cropped."""
    table = table_of(sources, embeddings_ND, any(source.face is not None for source in sources))
    write_tables([table], len(sources), origin, out)


def write_tables(tables: Iterable[pa.Table], rows: int, origin: dict[str, Any], out: Path) -> None:
    """Write tables of embeddings one after the other to one file, atomically.

    Args:
        tables: As `table_of` returns them, with `rows` rows together.
        rows: Their number.
        origin: Which encoder they come from, and how faces were cropped.
        out: The file, `.parquet`, `.arrow` or `.npz`.
    """
    with atomic(out) as file:
        if out.suffix == ".npz":
            _write_npz(tables, rows, origin, file)
            return
        writer: Any = None
        for table in tables:
            table = table.replace_schema_metadata({"fra": json.dumps(origin)})
            if writer is None:
                opened = pa.ipc.new_file if out.suffix == ".arrow" else pq.ParquetWriter
                writer = opened(file, table.schema)
            if table.num_rows:
                writer.write_table(table)
        writer.close()


def _write_npz(tables: Iterable[pa.Table], rows: int, origin: dict[str, Any], file: Path) -> None:
    """Write the arrays of a .npz file; embeddings pass through a temporary file of their size."""
    others: dict[str, list[Any]] = {}
    with tempfile.TemporaryFile(dir=file.parent) as stream:
        for table in tables:
            size = table["embedding"].type.list_size
            for batch in table.to_batches():
                stream.write(floats(batch.column("embedding").flatten()).data)
            for name in PLURAL:
                if name in table.column_names:
                    others.setdefault(name, []).extend(table[name].to_pylist())
        arrays: dict[str, Any] = {PLURAL[name]: np.array(column) for name, column in others.items()}
        if "faces" in origin:
            arrays["crop"] = origin["faces"]["crop"]
        embeddings_ND = np.memmap(stream, np.float32, "r", shape=(rows, size))
        with file.open("wb") as target:
            np.savez(target, **arrays, embeddings=embeddings_ND, weights=origin["weights"])


def floats(values: pa.FloatArray) -> NDArray[np.float32]:
    """The same values without a copy, and without pandas, which PyArrow's own `to_numpy` imports."""
    return np.asarray(np.from_dlpack(values), np.float32)


class Match(NamedTuple):
    """An image of the gallery, or a face in it.

    Attributes:
        name: Of the image.
        cosine: Cosine similarity of its embedding to the query's, −1 to 1.
        face: Number of the face in the image; None where each image is one face, as `box`.
        box: Left, top, width and height of the face in pixels of the upright image.
    """

    name: str
    cosine: float
    face: int | None = None
    box: list[float] | None = None


class Gallery(NamedTuple):
    """Embeddings of a file.

    Attributes:
        rows: Columns `image` (names) and `embedding`, and `face` (numbers of faces) and `box` where faces were found in
            images.
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
        held = 0
        for batch in batches:
            values = batch.column(0)
            yield floats(values.flatten()).reshape(-1, values.type.list_size)
            held += len(batch)
            if self.mapping is not None and held >= RELEASED_AFTER:
                self.mapping.madvise(mmap.MADV_DONTNEED)  # pages that were read count as memory in use
                held = 0

    def embedding_D(self, row: int) -> NDArray[np.float32]:
        """The embedding of a row, without a copy."""
        return floats(self.rows["embedding"][row].values)

    def match(self, row: int, cosine: float) -> Match:
        """The entry of a row as a match."""
        face, box = (
            self.rows[name][row].as_py() if name in self.rows.column_names else None
            for name in ("face", "box")
        )
        return Match(self.rows["image"][row].as_py(), cosine, face, box)


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
        wanted = [name for name in ("image", "face", "box") if name in table.column_names]
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
            columns["box"] = pa.array(content["boxes"].tolist(), pa.list_(pa.float64(), 4))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(
            pa.array(values_ND.ravel()), values_ND.shape[1]
        )
        crop = str(content["crop"]) if "faces" in content else None
        return Gallery(pa.table(columns), str(content["weights"]), cast(CropKind | None, crop))
