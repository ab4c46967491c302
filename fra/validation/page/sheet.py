"""Contact sheets: thumbnails of images, with the boxes of their faces."""

from __future__ import annotations

import base64
import tarfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fra.data.images import ImageError, decode, members, read_file
from fra.faces.detect import Pixels, Points
from fra.validation.face_stats import FaceFinder
from fra.validation.results import Explainer, RuleResult
from fra.validation.rules.rule import Rule

EXAMPLES = 24
"""Images on a contact sheet, at most."""
THUMB = 112
"""Longer side of a thumbnail in pixels."""
BOX, RIM = (255, 214, 0), (0, 0, 0)
"""Colours of a face's box and of the rim that sets it off."""


def spread(rows: NDArray[np.int64], most: int = EXAMPLES) -> NDArray[np.int64]:
    """Returns at most `most` of the rows, evenly spread over them."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def is_on_faces(rule: Rule) -> bool:
    """Whether a rule is on the faces found in images, whose boxes are then drawn."""
    return rule.reported_column.startswith("face") and not rule.reported_column.startswith("face.")


def sample(images: pd.DataFrame) -> NDArray[np.int64]:
    """Returns readable images that are evenly spread over the data set."""
    return spread(np.flatnonzero((images["readable"] == 1).to_numpy()))


def thumbnail(image_HW3: Pixels, corners: Sequence[Points] = ()) -> str:
    """Returns an image as a small JPEG of the same aspect ratio, in a data URI.

    Args:
        image_HW3: The image.
        corners: The corners (4, 2) of boxes to draw, as shares of width and height.
    """
    height, width = image_HW3.shape[:2]
    scale = THUMB / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    for box_42 in corners:
        points = np.round(box_42 * size).astype(np.int32)
        for colour, line in ((RIM, 3), (BOX, 1)):
            cv2.polylines(small, [points], isClosed=True, color=colour, thickness=line)
    _, content = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def thumbnails(
    images: pd.DataFrame, rows: Collection[int], shards: Path, finder: FaceFinder | None = None
) -> dict[int, str]:
    """Returns thumbnails of the given rows, without those whose image cannot be decoded from its shard.

    The boxes of faces are drawn where there is a `finder`.
    """
    found: dict[int, str] = {}
    selected = images.loc[sorted(rows), ["key", "shard"]].dropna()
    for shard, wanted in selected.groupby("shard", sort=True):
        row_of = dict(zip(wanted["key"], wanted.index.tolist(), strict=True))
        try:
            for key, content in members(shards / str(shard), set(row_of)):
                with suppress(ImageError):
                    pixels = decode(content)
                    found[row_of[key]] = thumbnail(pixels, finder.find(pixels).corners if finder else ())
        except (OSError, EOFError, tarfile.TarError):
            continue
    return found


def photographs(images: pd.DataFrame, rows: Collection[int], root: Path | None) -> dict[int, str]:
    """Returns thumbnails of photographs that are in no shard, as no face was found in them.

    Frames of videos and members of tars, which are no files below `root`, are left out, as is what cannot be decoded.
    """
    if root is None:
        return {}
    shown = images.loc[sorted(rows)]
    found: dict[int, str] = {}
    for row, source in shown.loc[shown["shard"].isna() & shown["no_face"].notna(), "source"].items():
        with suppress(OSError, ImageError):
            found[int(str(row))] = thumbnail(decode(read_file(root / source)))
    return found


def rows_shown(results: Sequence[RuleResult], explainer: Explainer, *, on_faces: bool) -> set[int]:
    """Returns the images on the contact sheets of broken rules, and those that they resemble."""
    rows: set[int] = set()
    for result in results:
        if result.rule.table == "images" and is_on_faces(result.rule) == on_faces:
            for row in spread(result.rows).tolist():
                other = explainer.other(result.rule, row)
                rows |= {row} if other is None else {row, other}
    return rows
