"""Nearest neighbours of embeddings: exact among few, by an index (Faiss) among many.

Similarity is the cosine of embeddings minus the mean of the gallery, which all faces share. An index holds the rows in
lists around k-means centres, in codes of half a byte for a few numbers each (product quantization; André et al.,
"Quicker ADC", arXiv 1812.09162), and proposes candidates. Their cosines are then computed from the embeddings
themselves, so every reported cosine is exact. The number of lists that are searched is chosen when the index is built:
as many as rows of the gallery need to find their neighbours.
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
from numpy.typing import NDArray
from tqdm import tqdm

from fra.files import atomic, sha256
from fra.gallery.exact import Neighbours, among_all, best, by_comparison, nearer, nothing_near
from fra.gallery.files import Gallery, read

if TYPE_CHECKING:
    from faiss import IndexIVF

logger = logging.getLogger(__name__)

EXACT = 50_000
"""Largest number of rows whose neighbours are computed by comparing all pairs: about a minute of one core."""
TRAINED = 39
"""Rows per centre on which k-means is fitted, Faiss's own least number."""
NUMBERS, PARTS = 4, 128
"""Numbers of an embedding that share a code of four bits: so many, or fewer in short embeddings, for so many codes."""
CODES = 16
"""Different values of a code."""
PROPOSED = 20
"""Candidates of a query for each neighbour that is returned."""
RECALL = 0.97
"""Share of the nearest `NEAREST` rows that a query is to find."""
RECALL_AMONG = 0.9
"""The same for the neighbours of all rows of a gallery."""
NEAREST = 10
TRIED = 200
"""Rows of the gallery that try how many lists must be searched for that; the centres are not fitted on them."""
STEP = 1.25
"""Factor between the numbers of lists that are tried."""
SEED = 0
"""Seed of the rows on which the centres are fitted, and of those that try."""
ADDED = 20_000
"""Rows added to an index at a time."""
QUERIES = 256
"""Queries compared with all rows at a time."""
DAMAGED = "%s: damaged or of another version, so it is not used: run `fra index` again"
MARK = b"\nfra-neighbours\n"
"""Ends the description at the end of an index file, after its length in 8 bytes."""


@dataclass(frozen=True)
class Description:
    """What an index file says of itself.

    Attributes:
        sha256: Of the gallery that it was made of.
        size: Bytes of that gallery.
        modified: Its modification time in nanoseconds. With the same size and time it is not hashed again.
        mean: Mean of the embeddings.
        recall: Share of the nearest `NEAREST` rows that it found for `TRIED` rows of the gallery.
    """

    sha256: str
    size: int
    modified: int
    mean: list[float]
    recall: float


class OpenIndex(NamedTuple):
    """The index of a gallery, and the mean of the gallery's embeddings."""

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


def write_index(gallery: Path) -> float:
    """Writes the index of a gallery next to it, and returns its recall, see `Description`.

    Raises:
        FileNotFoundError: The gallery is missing.
        ValueError: The gallery has another content.
        ModuleNotFoundError: Faiss is not installed.
    """
    known, out = read(gallery), index_path(gallery)
    status, mean_D = gallery.stat(), mean_of(known)
    digest, faiss = sha256(gallery), _faiss()
    built, recall = build(
        lambda: (unit(block - mean_D) for block in known.blocks(ADDED)), known.rows.num_rows
    )
    about = Description(digest, status.st_size, status.st_mtime_ns, mean_D.tolist(), recall)
    with atomic(out) as partial:
        faiss.write_index(built, str(partial))
        with partial.open("ab") as stream:
            content = json.dumps(asdict(about)).encode()
            stream.write(content + len(content).to_bytes(8, "little") + MARK)
    return recall


def build(
    blocks: Callable[[], Iterator[NDArray[np.float32]]], total: int, wanted: float = RECALL
) -> tuple[IndexIVF, float]:
    """An index of rows of length 1, and its recall (see `Description`). Equal rows give an equal index.

    Args:
        blocks: Returns the rows, some at a time; called twice.
        total: Their number.
        wanted: Recall that decides how many lists a query is searched in.
    """
    tried = min(TRIED, total // 10)
    lists = list_count(total - tried)
    chosen = np.random.default_rng(SEED).permutation(total)[: tried + TRAINED * max(lists, CODES)]
    tried_Q = np.sort(chosen[:tried])
    query_QD, sample_SD = pick(blocks(), [tried_Q, np.sort(chosen[tried:])])
    index = empty_index(lists, sample_SD)
    exact, first = nothing_near(len(query_QD)), 0
    with tqdm(total=total, desc="index", unit="row", mininterval=1, disable=None) as bar:
        for block in blocks():
            index.add(np.ascontiguousarray(block))
            exact = nearer(exact, block, first, query_QD, NEAREST + 1)
            first += len(block)
            bar.update(len(block))
    return index, tune(index, query_QD, tried_Q, exact.row_QK, wanted)


def pick(blocks: Iterator[NDArray[np.float32]], groups: list[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
    """Some groups of those rows that come in blocks, each by ascending numbers."""
    found: list[list[NDArray[np.float32]]] = [[] for _ in groups]
    first = 0
    for block in blocks:
        for rows, parts in zip(groups, found, strict=True):
            low, high = np.searchsorted(rows, (first, first + len(block)))
            parts.append(block[rows[low:high] - first])
        first += len(block)
    return [np.concatenate(parts) for parts in found]


def empty_index(lists: int, sample_SD: NDArray[np.float32]) -> IndexIVF:
    """An index without rows, fitted on a sample; with a sample too small for codes, it stores rows as they are."""
    faiss = _faiss()
    size = sample_SD.shape[1]
    numbers = math.gcd(size, min(NUMBERS, max(size // PARTS, 1)))
    kind = f"PQ{size // numbers}x4fs" if len(sample_SD) >= TRAINED * CODES else "Flat"
    index: IndexIVF = faiss.index_factory(size, f"IVF{lists},{kind}", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # it would warn of galleries with fewer than `TRAINED` rows
    index.train(sample_SD)
    return index


def list_count(total: int) -> int:
    """The number of lists for a number of rows: the power of two nearest to its square root."""
    return int(min(2 ** round(np.log2(np.sqrt(total))), max(total // TRAINED, 1)))


def tune(
    index: IndexIVF,
    query_QD: NDArray[np.float32],
    own_Q: NDArray[np.int64],
    exact_QK: NDArray[np.int64],
    wanted: float,
) -> float:
    """Sets the number of lists that a query is searched in to the least that gives a recall, and returns the recall.

    Args:
        index: The index.
        query_QD: Rows of the gallery.
        own_Q: Their numbers.
        exact_QK: The rows nearest to each, the nearest first; the row itself, most often among them, does not count.
        wanted: The recall; all lists are searched where it is not reached.
    """
    others_QK = exact_QK != own_Q[:, None]
    others_QK &= others_QK.cumsum(axis=1) <= NEAREST
    index.nprobe = 1
    while True:
        proposed_QC = candidates(index, query_QD, NEAREST)
        found_QK = (exact_QK[:, :, None] == proposed_QC[:, None]).any(axis=2)
        recall = float(found_QK[others_QK].mean()) if others_QK.any() else 1.0
        if recall >= wanted or index.nprobe == index.nlist:
            return recall
        index.nprobe = min(math.ceil(STEP * index.nprobe), index.nlist)


def open_index(gallery: Path) -> OpenIndex | None:
    """The index of a gallery; None where there is none, or (with a warning) where it is damaged or outdated."""
    path = index_path(gallery)
    if not path.is_file():
        return None
    about = describe(path)
    if about is None:
        logger.warning(DAMAGED, path)
        return None
    status = gallery.stat()
    unchanged = (status.st_size, status.st_mtime_ns) == (about.size, about.modified)
    if not unchanged and sha256(gallery) != about.sha256:
        logger.warning(
            "%s: made of another content of %s, so it is not used: run `fra index` again", path, gallery.name
        )
        return None
    try:
        return OpenIndex(_faiss().read_index(str(path)), np.array(about.mean, np.float32))
    except RuntimeError:
        logger.warning(DAMAGED, path)
        return None


def describe(path: Path) -> Description | None:
    """The description at the end of an index file; None where the file is damaged or another version wrote it."""
    tail = 8 + len(MARK)
    with path.open("rb") as stream:
        if (end := stream.seek(0, 2)) < tail:
            return None
        stream.seek(end - tail)
        length = int.from_bytes(stream.read(8), "little")
        if stream.read() != MARK or length > end - tail:
            return None
        stream.seek(end - tail - length)
        content = stream.read(length)
    try:
        return Description(**json.loads(content))
    except (ValueError, TypeError, RecursionError):  # no JSON, or other names
        return None


def by_index(opened: OpenIndex, gallery: Gallery, query_QD: NDArray[np.float32], count: int) -> Neighbours:
    """The rows that an index proposes for queries of length 1, in the order of their exact cosines.

    A query for which it proposes fewer than `count`, because the lists that it is searched in are short, is compared
    with all rows.
    """
    count = min(count, gallery.rows.num_rows)
    row_QC = candidates(opened.lists, query_QD, count)
    few_Q = (row_QC >= 0).sum(axis=1) < count
    found = Neighbours(
        np.empty((len(query_QD), count), np.int64), np.empty((len(query_QD), count), np.float32)
    )
    for query in np.flatnonzero(~few_Q):
        row_C = row_QC[query][row_QC[query] >= 0]
        rows_CD = unit(take(gallery, row_C) - opened.mean_D)
        near = best(row_C[None], (rows_CD @ query_QD[query])[None], count)
        found.row_QK[query], found.cosine_QK[query] = near.row_QK[0], near.cosine_QK[0]
    if few_Q.any():
        near = by_comparison(gallery, query_QD[few_Q], count, opened.mean_D)
        found.row_QK[few_Q], found.cosine_QK[few_Q] = near
    return found


def candidates(index: IndexIVF, query_QD: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Rows (Q, `PROPOSED` · count) that an index proposes; −1 where it proposes fewer."""
    found = index.search(np.ascontiguousarray(query_QD), min(PROPOSED * count, index.ntotal))
    row_QC: NDArray[np.int64] = found[1]
    return row_QC


def take(gallery: Gallery, row_C: NDArray[np.int64]) -> NDArray[np.float32]:
    """The embeddings of some rows. PyArrow's `take` would copy all rows first where they are in several chunks."""
    column = gallery.rows["embedding"]
    chunks, size = column.chunks, column.type.list_size
    begin_B = np.cumsum([0, *map(len, chunks)])
    chunk_C = np.searchsorted(begin_B, row_C, side="right") - 1
    rows_CD = np.empty((len(row_C), size), np.float32)
    for number in np.unique(chunk_C):
        here_C, chunk = chunk_C == number, chunks[number]
        first = begin_B[number] - chunk.offset  # `values` has those of rows before a slice, too
        rows_CD[here_C] = chunk.values.to_numpy().reshape(-1, size)[row_C[here_C] - first]
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
        index, _ = build(
            lambda: (unit_ND[first : first + ADDED] for first in starts), len(unit_ND), RECALL_AMONG
        )
    parts = []
    for first in range(0, len(unit_ND), QUERIES):
        query_QD = unit_ND[first : first + QUERIES]
        own_Q = np.arange(first, first + len(query_QD))
        if index is None:
            parts.append(among_all(unit_ND, own_Q, count))
            continue
        row_QC = candidates(index, query_QD, count + 1)
        cosine_QC = np.einsum("qcd,qd->qc", unit_ND[row_QC], query_QD)
        cosine_QC[(row_QC == own_Q[:, None]) | (row_QC < 0)] = -np.inf
        near = best(row_QC, cosine_QC, count)
        few_Q = np.isneginf(near.cosine_QK).any(axis=1)  # the lists that were searched hold fewer rows
        if few_Q.any():
            near.row_QK[few_Q], near.cosine_QK[few_Q] = among_all(unit_ND, own_Q[few_Q], count)
        parts.append(near)
    return Neighbours(*map(np.concatenate, zip(*parts, strict=True)))


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
            "the index of neighbours needs Faiss: pip install faiss-cpu", name="faiss"
        ) from None
    return faiss
