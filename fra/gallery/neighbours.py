"""Nearest neighbours of embeddings: exact among few, by an index (Faiss) among many.

Similarity is the cosine of embeddings minus the mean of the gallery, which all faces share. An index proposes
candidates; their cosines are then computed from the embeddings themselves, so every reported cosine is exact.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from fra.files import atomic, sha256
from fra.gallery.files import Gallery, read

if TYPE_CHECKING:
    from faiss import IndexIVF

logger = logging.getLogger(__name__)

EXACT = 50_000
"""Largest number of rows whose neighbours are computed by comparing all pairs: about a minute of one core."""
TRAINED = 39
"""Rows per list on which the centres of the lists are fitted, Faiss's own least number."""
PROBED = 5 / 64
"""Share of the lists in which a query is searched."""
PROBED_AMONG = 1 / 64
"""The same for the neighbours of all rows of a gallery, which are closer than those of other images."""
MIN_PROBED = 32
"""Least number of lists in which a query is searched."""
PROPOSED = 4
"""Candidates of a query for each neighbour that is returned."""
SEED = 0
"""Seed of the rows on which the centres are fitted."""
ADDED = 20_000
"""Rows added to an index at a time."""
QUERIES = 256
"""Queries compared with all rows at a time."""
MARK = b"\nfra-neighbours\n"
"""Ends the description at the end of an index file, after its length in 8 bytes."""


class Neighbours(NamedTuple):
    """The nearest rows of each query, in descending order.

    Attributes:
        row_QK: Numbers of rows.
        cosine_QK: Their cosines with the query.
    """

    row_QK: NDArray[np.int64]
    cosine_QK: NDArray[np.float32]


@dataclass(frozen=True)
class Description:
    """What an index file says of itself.

    Attributes:
        sha256: Of the gallery that it was made of.
        size: Bytes of that gallery.
        modified: Its modification time in nanoseconds. With the same size and time it is not hashed again.
        mean: Mean of the embeddings.
    """

    sha256: str
    size: int
    modified: int
    mean: list[float]


class OpenIndex(NamedTuple):
    """The index of a gallery, mapped into memory, and the mean of the gallery's embeddings."""

    lists: IndexIVF
    mean_D: NDArray[np.float32]


def index_path(gallery: Path) -> Path:
    """The file of a gallery's index, in the same folder."""
    return gallery.with_name(f"{gallery.name}.faiss")


def mean_of(gallery: Gallery) -> NDArray[np.float32]:
    """The mean of the embeddings; zeros for a single one."""
    number = gallery.rows.num_rows
    sums_D = sum(block.sum(axis=0).astype(np.float64) for block in gallery.blocks())
    mean_D: NDArray[np.float32] = (sums_D / number * (number > 1)).astype(np.float32)
    return mean_D


def write_index(gallery: Path) -> Path:
    """Writes the index of a gallery next to it, and returns its path.

    Raises:
        FileNotFoundError: The gallery is missing.
        ValueError: The gallery has another content.
        ModuleNotFoundError: Faiss is not installed.
    """
    known, out = read(gallery), index_path(gallery)
    status, mean_D = gallery.stat(), mean_of(known)
    about = Description(sha256(gallery), status.st_size, status.st_mtime_ns, mean_D.tolist())
    faiss = _faiss()
    built = build(lambda: (unit(block - mean_D) for block in known.blocks(ADDED)), known.rows.num_rows)
    with atomic(out) as partial:
        faiss.write_index(built, str(partial))
        with partial.open("ab") as stream:
            content = json.dumps(asdict(about)).encode()
            stream.write(content + len(content).to_bytes(8, "little") + MARK)
    return out


def build(blocks: Callable[[], Iterator[NDArray[np.float32]]], total: int) -> IndexIVF:
    """An index of rows of length 1: lists around k-means centres, in float16. Equal rows give an equal index.

    Args:
        blocks: Returns the rows, some at a time; called twice.
        total: Their number.
    """
    faiss = _faiss()
    lists = list_count(total)
    chosen = np.random.default_rng(SEED).choice(total, min(total, TRAINED * lists), replace=False)
    wanted_N = np.zeros(total, bool)
    wanted_N[chosen] = True
    sample, first = [], 0
    for block in blocks():
        sample.append(block[wanted_N[first : first + len(block)]])
        first += len(block)
    size = sample[0].shape[1]
    index: IndexIVF = faiss.index_factory(size, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(np.concatenate(sample))
    with tqdm(total=total, desc="index", unit="row", mininterval=1, disable=None) as bar:
        for block in blocks():
            index.add(np.ascontiguousarray(block))
            bar.update(len(block))
    return index


def list_count(total: int) -> int:
    """The number of lists for a number of rows: the power of two nearest to four times its square root."""
    return int(min(2 ** round(np.log2(4 * np.sqrt(total))), max(total // TRAINED, 1)))


def open_index(gallery: Path) -> OpenIndex | None:
    """The index of a gallery; None where there is none, or (with a warning) where it is damaged or outdated."""
    path = index_path(gallery)
    if not path.is_file():
        return None
    about = describe(path)
    if about is None:
        logger.warning("%s: damaged, so it is not used: run `fra index` again", path)
        return None
    status = gallery.stat()
    unchanged = (status.st_size, status.st_mtime_ns) == (about.size, about.modified)
    if not unchanged and sha256(gallery) != about.sha256:
        logger.warning(
            "%s: made of another content of %s, so it is not used: run `fra index` again", path, gallery.name
        )
        return None
    faiss = _faiss()
    return OpenIndex(faiss.read_index(str(path), faiss.IO_FLAG_MMAP), np.array(about.mean, np.float32))


def describe(path: Path) -> Description | None:
    """The description at the end of an index file; None where the file is damaged."""
    tail = 8 + len(MARK)
    with path.open("rb") as stream:
        if (end := stream.seek(0, 2)) < tail:
            return None
        stream.seek(end - tail)
        length = int.from_bytes(stream.read(8), "little")
        if stream.read() != MARK or length > end - tail:
            return None
        stream.seek(end - tail - length)
        return Description(**json.loads(stream.read(length)))


def by_index(opened: OpenIndex, gallery: Gallery, query_QD: NDArray[np.float32], count: int) -> Neighbours:
    """The rows that an index proposes for queries of length 1, in the order of their exact cosines."""
    count = min(count, gallery.rows.num_rows)
    row_QC = candidates(opened.lists, query_QD, count)
    found = []
    for row_C, query_D in zip(row_QC, query_QD, strict=True):
        proposed_C = row_C[row_C >= 0]
        rows_CD = unit(take(gallery, proposed_C) - opened.mean_D)
        found.append(best(proposed_C[None], (rows_CD @ query_D)[None], count))
    return Neighbours(*map(np.concatenate, zip(*found, strict=True)))


def candidates(
    index: IndexIVF, query_QD: NDArray[np.float32], count: int, probed: float = PROBED
) -> NDArray[np.int64]:
    """Rows (Q, `PROPOSED` · count) that an index proposes; −1 where it proposes fewer."""
    index.nprobe = max(MIN_PROBED, math.ceil(probed * index.nlist))
    index.parallel_mode = int(len(query_QD) == 1)  # threads share the lists of one query, or several queries
    found = index.search(np.ascontiguousarray(query_QD), min(PROPOSED * count, index.ntotal))
    row_QC: NDArray[np.int64] = found[1]
    return row_QC


def take(gallery: Gallery, row_C: NDArray[np.int64]) -> NDArray[np.float32]:
    """The embeddings of some rows."""
    values = gallery.rows["embedding"].take(pa.array(row_C)).combine_chunks()
    flat = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    rows_CD: NDArray[np.float32] = flat.flatten().to_numpy().reshape(len(row_C), -1)
    return rows_CD


def among(unit_ND: NDArray[np.float32], count: int, index: IndexIVF | None = None) -> Neighbours:
    """The nearest other rows of each row.

    Args:
        unit_ND: Rows of length 1.
        count: Neighbours of each row; fewer where there are not as many other rows.
        index: An index of the rows; with more than `EXACT` rows and without it, one is built in memory.
    """
    count = min(count, len(unit_ND) - 1)
    if len(unit_ND) > EXACT and index is None:
        starts = range(0, len(unit_ND), ADDED)
        index = build(lambda: (unit_ND[first : first + ADDED] for first in starts), len(unit_ND))
    parts = []
    for first in range(0, len(unit_ND), QUERIES):
        query_QD = unit_ND[first : first + QUERIES]
        own_Q = np.arange(first, first + len(query_QD))
        if index is None:
            cosine_QN = query_QD @ unit_ND.T
            cosine_QN[np.arange(len(query_QD)), own_Q] = -np.inf
            near_QK = (
                np.argpartition(-cosine_QN, count - 1, axis=1)[:, :count] if count else own_Q[:, None][:, :0]
            )
            parts.append(best(near_QK, np.take_along_axis(cosine_QN, near_QK, axis=1), count))
        else:
            row_QC = candidates(index, query_QD, count + 1, PROBED_AMONG)
            cosine_QC = np.einsum("qcd,qd->qc", unit_ND[row_QC], query_QD)
            cosine_QC[(row_QC == own_Q[:, None]) | (row_QC < 0)] = -np.inf
            parts.append(best(row_QC, cosine_QC, count))
    return Neighbours(*map(np.concatenate, zip(*parts, strict=True)))


def best(row_QC: NDArray[Any], cosine_QC: NDArray[np.float32], count: int) -> Neighbours:
    """The rows of the largest cosines, in descending order; of equal ones the lowest row first."""
    order_QK = np.lexsort((row_QC, -cosine_QC), axis=1)[:, :count]
    return Neighbours(
        np.take_along_axis(row_QC, order_QK, axis=1).astype(np.int64),
        np.take_along_axis(cosine_QC, order_QK, axis=1),
    )


def unit(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows scaled to length 1; rows of zeros stay zeros."""
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors_ND / np.maximum(lengths, 1e-12)
    return scaled


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the index of neighbours needs Faiss: pip install 'fra[index]'", name="faiss"
        ) from None
    return faiss
