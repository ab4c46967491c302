"""File permissions of everything that is made from images: only users who may read the images may read it.

`ingest` removes permissions of the group and of others from all output folders that these do not have on the raw data.
Every stage then creates its files with at most the permissions of `data/raw`. Permissions are never added.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.project import paths

if TYPE_CHECKING:
    import pandas as pd

RAW = Path("data/raw")
FOLDERS = (
    *(Path("data") / name for name in ("raw", "shards", "beton", "manifest")),
    Path("artifacts"),
    paths.WORK,
    Path(".dvc/cache"),  # DVC makes its files readable for all, whatever the umask is
)
CLASSES = (0o070, 0o007)
"""The permission bits of the group, and of all others."""
READ, ENTER = 0o044, 0o011


def restrict(root: Path, records: pd.DataFrame) -> None:
    """Removes permissions on `FOLDERS` from group and others, unless these may read every image of `records`.

    Args:
        root: the folder that the sources in `records` are relative to.
        records: the data set's records.
    """
    files = source_files(root, records)
    denied = denied_bits(parent_folders(root, files), files)
    for folder in FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(folder.stat().st_mode & 0o7777 & ~denied)


def restrict_umask() -> None:
    """Has this process create files with at most the permissions of `data/raw`."""
    os.umask(os.umask(0o077) | (denied_bits([str(RAW)], []) if RAW.is_dir() else 0))


def denied_bits(folders: Iterable[str], files: Iterable[str]) -> int:
    """Returns the permission bits of group and others, of each that cannot enter all folders and read all files."""
    shared = 0o077
    for needed, places in ((ENTER, folders), (READ, files)):
        for place in places:
            shared &= os.stat(place).st_mode | ~needed  # noqa: PTH116  millions: a Path each costs four times as much
    return sum(bits for bits in CLASSES if shared & bits != bits)


def source_files(root: Path, records: pd.DataFrame) -> list[str]:
    """Returns the images, tars and videos of `records` on this machine, and the files in `root` itself (lists).

    The tar of a video's frames is not among them: this project wrote it.
    """
    in_tar, in_table = (
        records[name].notna() if name in records else records["source"].isna() for name in ("span", "content")
    )
    videos = records["photo.video"].dropna() if "photo.video" in records else records["source"].iloc[:0]
    in_own_tar = records.index.isin(videos.index)
    tars = [url for url in records.loc[in_tar & ~in_own_tar, "source"].unique() if os.path.isfile(url)]  # noqa: PTH113
    images = [os.path.join(root, source) for source in records.loc[~in_tar & ~in_table, "source"]]  # noqa: PTH118
    images += [os.path.join(root, video) for video in videos.unique()]  # noqa: PTH118
    return [*tars, *images, *(str(path) for path in root.iterdir() if path.is_file())]


def parent_folders(root: Path, files: list[str]) -> set[str]:
    """Returns `root`, and every folder above it and above the files, up to the top."""
    folders = {os.path.dirname(file) for file in files} | {str(root)}  # noqa: PTH120
    return {str(way) for folder in folders for way in (Path(folder).resolve() / "x").parents}
