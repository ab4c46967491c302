"""Search for the images of a gallery that are nearest to a face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fra.data.images import ImageError, decode, read_file
from fra.faces.crop import CropKind
from fra.faces.detect import Face, Pixels
from fra.files import sha256
from fra.gallery.files import Gallery, Match, read
from fra.inference.detection import Detection, FaceFinder
from fra.inference.encoder import load
from fra.weights import released


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
