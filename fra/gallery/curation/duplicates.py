"""Near-duplicates: pairs that neighbouring embeddings propose and pixels confirm.

Embeddings of faces are close for different photographs of a person, so they alone do not tell a copy from another
photograph. Pixels do: a copy, even a cropped, resized or brighter one, has the same fine structure after alignment.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from fra.faces.detect import Pixels
from fra.gallery.exact import Neighbours
from fra.gallery.files import Gallery
from fra.gallery.pixels import seen
from fra.parallel import map_ahead, opencv_in_one_thread

PROPOSED = 0.7
"""Least cosine of a pair whose pixels are compared."""
ALIKE = 0.9
"""Least correlation of coarsely aligned pixels of a pair that is aligned precisely: five times as slow."""
SIDE, EDGE = 64, 6
"""Side of the square at which pixels are compared, and the border that is left out."""
SCALES = (1.0, 0.94, 0.88)
"""Sizes of one image relative to the other from which the alignment starts."""
AHEAD = 256
"""Pairs that are compared before their turn."""
EVERYWHERE = np.full((SIDE, SIDE), 255, np.uint8)
"""The mask of the pixels that are aligned."""


class Grey(NamedTuple):
    """A grey image.

    Attributes:
        pixels_SS: It, `SIDE` × `SIDE`.
        side: The shorter side of the image that it was made of.
    """

    pixels_SS: NDArray[np.uint8]
    side: int


def grey(image_HW3: Pixels) -> Grey:
    """The grey image of an image."""
    whole = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return Grey(np.asarray(small, np.uint8), min(image_HW3.shape[:2]))


def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The correlation of two images; 0 where one is uniform."""
    x, y = first - first.mean(), second - second.mean()
    return float((x * y).sum() / max(float(np.sqrt((x * x).sum() * (y * y).sum())), 1e-6))


def coarsely(image: NDArray[np.float32], part: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
    """How well `part` matches somewhere in `image`, and the transform (2, 3) from its pixels to those of `image`."""
    best, transform_23 = -1.0, np.eye(2, 3, dtype=np.float32)
    for scale in SCALES:
        side = round(SIDE * scale)
        inner = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)[EDGE:-EDGE, EDGE:-EDGE]
        _, value, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(image, inner, cv2.TM_CCOEFF_NORMED))
        if value > best:
            best, transform_23 = value, np.array([[scale, 0, x - EDGE], [0, scale, y - EDGE]], np.float32)
    return best, transform_23


def fine(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """The fine structure of an image: a difference of Gaussians, without its border."""
    narrow, wide = (cv2.GaussianBlur(image, (0, 0), size) for size in (sigma, 2 * sigma + 1))
    return np.asarray(narrow - wide, np.float32)[EDGE:-EDGE, EDGE:-EDGE]


def similarity(first: Grey, second: Grey) -> float:
    """The correlation of the fine structure of two aligned images, −1 to 1.

    It does not depend on brightness and contrast. Structure that the smaller image cannot show is not compared. Where
    even coarsely aligned pixels differ, it is at most `ALIKE`.
    """
    a, b = (np.asarray(image.pixels_SS, np.float32) for image in (first, second))
    (value, transform_23), other = coarsely(a, b), coarsely(b, a)
    if other[0] > value:
        a, b, (value, transform_23) = b, a, other
    if value < ALIKE:
        return value
    try:
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 15, 1e-3)
        _, precise_23 = cv2.findTransformECC(
            b, a, transform_23.copy(), cv2.MOTION_AFFINE, stop, EVERYWHERE, 3
        )
    except cv2.error:  # it does not converge: the images differ
        return min(value, ALIKE)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned = cv2.warpAffine(a, precise_23, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    sigma = max(1.0, SIDE / min(first.side, second.side))
    return correlation(fine(np.asarray(aligned, np.float32), sigma), fine(b, sigma))


def duplicates(near: Neighbours, limit: float, gallery: Gallery | None = None) -> pd.DataFrame:
    """Suggests all images of a group of near-duplicates but the first.

    Args:
        near: The neighbours of each image.
        limit: Least similarity of a pair: of pixels with `gallery`, of embeddings (cosine) without.
        gallery: Lists the images, whose pixels are compared.
    """
    count = len(near.row_QK)
    own_P, place_P = np.nonzero(near.cosine_QK >= (limit if gallery is None else PROPOSED))
    pair_P2 = np.stack([own_P, near.row_QK[own_P, place_P]], axis=1)
    value_P = near.cosine_QK[own_P, place_P]
    if gallery is not None:
        pair_P2 = np.unique(np.sort(pair_P2, axis=1), axis=0)
        value_P = similarities(gallery, pair_P2)
    score_N = np.zeros(count, np.float32)
    for side in range(2):
        np.maximum.at(score_N, pair_P2[:, side], value_P)
    pair_P2 = pair_P2[value_P >= limit]
    links = coo_matrix((np.ones(len(pair_P2), bool), tuple(pair_P2.T)), shape=(count, count))
    _, group_N = connected_components(links, directed=False)
    _, first_G = np.unique(group_N, return_index=True)
    kept_N = first_G[group_N]
    return pd.DataFrame({"score": score_N, "suggested": kept_N != np.arange(count), "of": kept_N})


def similarities(gallery: Gallery, pair_P2: NDArray[np.int64]) -> NDArray[np.float32]:
    """The similarity of the pixels of each pair of rows."""
    rows, place = np.unique(pair_P2, return_inverse=True)
    images = seen(gallery, rows.tolist(), grey, "pixels")
    pairs = ((images[a], images[b]) for a, b in place.reshape(-1, 2))
    found = map_ahead(lambda pair: similarity(*pair), pairs, AHEAD)
    bar = tqdm(found, total=len(pair_P2), desc="pairs", unit="pair", mininterval=1, disable=None)
    with opencv_in_one_thread(), bar:
        return np.fromiter(bar, np.float32, len(pair_P2))
