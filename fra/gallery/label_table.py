"""Tables of labels, matched with the images of a gallery."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

COLUMNS = ("image", "key")
"""Columns by which a table can name images."""


def places(names: Sequence[str], root: Path | None = None) -> list[str]:
    """The images by their place in a data set: in a tar the member, else the path below `root`.

    Args:
        names: Names of the images in the gallery: paths, or tar and member.
        root: The folder; by default the one that contains all images.
    """
    inside = [name.partition(".tar/")[2] for name in names]
    folders = {str(Path(name).parent) for name, member in zip(names, inside, strict=True) if not member}
    folder = os.path.commonpath(folders) if folders and root is None else str(root or "")
    return [
        member or os.path.relpath(name, folder or ".") for name, member in zip(names, inside, strict=True)
    ]


def rows_of(
    path: Path,
    by: str,
    values: Sequence[str],
    names: Sequence[str],
    keys: Sequence[str],
    root: Path | None = None,
) -> list[int | None]:
    """For each image of a gallery, the row of a table that names it; None where no row does.

    Args:
        path: The table.
        by: How it names images: "key", or "image", which is the name in the gallery, the path below the folder of the
            table or below `root`, or the file name.
        values: The column `by`.
        names: Names of the images in the gallery.
        keys: Their keys in the data set.
        root: The folder of the images; by default the one that contains all.

    Raises:
        ValueError: The table names an image twice, or none of the images; or it has file names that are not unique.
    """
    row_of = {value: row for row, value in enumerate(values)}
    if len(row_of) < len(values):
        repeated = next(value for row, value in enumerate(values) if row_of[value] != row)
        raise ValueError(f"{path}: {by} {repeated!r} has several lines")
    for wanted in [keys] if by == "key" else _names(names, path, root):
        if row_of.keys().isdisjoint(wanted):
            continue
        if len(set(wanted)) < len(set(names)) and by == "image":
            raise ValueError(
                f"{path}: it names images without their folders, but file names are not unique here"
            )
        return [row_of.get(one) for one in wanted]
    example = (
        f"; it has {by} {values[0]!r}, wanted is {(keys if by == 'key' else names)[0]!r}" if values else ""
    )
    raise ValueError(f"{path}: lists none of the images{example}")


def _names(names: Sequence[str], path: Path, root: Path | None) -> Iterator[Sequence[str]]:
    """The names by which a table may list the images, the most exact first."""
    yield names
    yield places(names, path.parent)
    yield places(names, root)
    yield [Path(name).name for name in names]
