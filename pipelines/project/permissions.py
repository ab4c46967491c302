"""Who may read what is made of people's pictures: nobody who may not read the pictures.

`ingest` closes the folders of all that is made to group and others as far as the raw data are closed to them; every
stage then makes its files as closed as `data/raw` is. Nothing is ever opened again by itself.
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
    Path(".dvc/cache"),  # whose files DVC makes readable to all, whatever the umask
)
CLASSES = (0o070, 0o007)
"""The permission bits of the group, and of all others."""
READ, ENTER = 0o044, 0o011


def close(root: Path, records: pd.DataFrame) -> None:
    """Closes `FOLDERS` to those who may not read every image of `records` in `root`."""
    files = files_of(root, records)
    shut = closed(ways_to(root, files), files)
    for folder in FOLDERS:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(folder.stat().st_mode & 0o7777 & ~shut)


def mask() -> None:
    """What this process makes is at least as closed as `data/raw`."""
    os.umask(os.umask(0o077) | (closed([str(RAW)], []) if RAW.is_dir() else 0))


def closed(folders: Iterable[str], files: Iterable[str]) -> int:
    """The bits of those who cannot enter all of these folders and read all of these files."""
    shared = 0o077
    for needed, places in ((ENTER, folders), (READ, files)):
        for place in places:
            shared &= os.stat(place).st_mode | ~needed  # noqa: PTH116  millions: a Path each costs four times as much
    return sum(bits for bits in CLASSES if shared & bits != bits)


def files_of(root: Path, records: pd.DataFrame) -> list[str]:
    """The images or tars on this machine, and what else lies in `root` itself: lists and tables."""
    in_tar, in_table = (
        records[name].notna() if name in records else records["source"].isna() for name in ("span", "content")
    )
    tars = [url for url in records.loc[in_tar, "source"].unique() if os.path.isfile(url)]  # noqa: PTH113
    images = [os.path.join(root, source) for source in records.loc[~in_tar & ~in_table, "source"]]  # noqa: PTH118
    return [*tars, *images, *(str(path) for path in root.iterdir() if path.is_file())]


def ways_to(root: Path, files: list[str]) -> set[str]:
    """Every folder on the way to the files and to `root`."""
    folders = {os.path.dirname(file) for file in files} | {str(root)}  # noqa: PTH120
    return {str(way) for folder in folders for way in (Path(folder).resolve() / "x").parents}
