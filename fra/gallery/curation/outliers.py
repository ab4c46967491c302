"""Images without a face, and images far from all others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.faces.config import FACE_SCORE
from fra.faces.detect import Pixels
from fra.gallery.files import Gallery
from fra.gallery.neighbours import unit
from fra.gallery.pixels import seen
from fra.validation.face_stats import FaceFinder


def outliers(
    embeddings_ND: NDArray[np.float32], limit: float, face_score_N: NDArray[np.float32] | None = None
) -> pd.DataFrame:
    """Suggests images that show no face, and those whose embedding is far from the typical one.

    The distance is the cosine distance to the median embedding, in robust standard deviations above its median. The
    distance to neighbours finds nothing where outliers resemble each other, as pictures without a face do.
    """
    typical_1D = np.median(embeddings_ND, axis=0)[None]
    distance_N = 1 - (unit(embeddings_ND) @ unit(typical_1D)[0])
    middle = np.median(distance_N)
    spread = 1.4826 * np.median(np.abs(distance_N - middle))
    score_N = (distance_N - middle) / max(spread, 1e-9)
    reason_N = np.where(score_N > limit, "far from the other images", "")
    found = pd.DataFrame({"score": score_N})
    if face_score_N is not None:
        found["face_score"] = face_score_N
        reason_N = np.where(face_score_N < FACE_SCORE, "no face", reason_N)
    return found.assign(suggested=reason_N != "", reason=reason_N)


def face_scores(gallery: Gallery) -> NDArray[np.float32]:
    """The highest score of a face (YuNet) in each image, also of a rotated one; 0 where none is found."""
    finder = FaceFinder(FACE_SCORE)
    see: Callable[[Pixels], float] = lambda pixels_HW3: finder.find(pixels_HW3).stats.face_score  # noqa: E731
    return np.array(seen(gallery, range(gallery.rows.num_rows), see, "faces"), np.float32)
