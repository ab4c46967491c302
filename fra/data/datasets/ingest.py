"""Data sets by name: the adapters of all published layouts, and the list of images (records) of a folder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fra.data.datasets.adapters import (
    affectnet,
    bp4d,
    celeba,
    disfa,
    fer2013,
    ferplus,
    folder,
    generated,
    mpiifacegaze,
    orl,
    people,
    rafdb,
    synthetic,
    table,
    w300,
    webdataset,
    wflw,
)
from fra.data.datasets.checks import check_links, check_names, stat_all, without_repeats
from fra.data.datasets.faces import face_records
from fra.data.datasets.frames import Frames, FrameStore, with_frames, without_videos
from fra.data.datasets.key_lists import LEFT_OUT, select, write_left_out
from fra.data.datasets.photos import search_photos
from fra.data.datasets.record_table import FileStamp, table_of
from fra.data.datasets.records import DatasetConfig, Record, hash_fraction, root_of
from fra.data.executors import Executor
from fra.faces.config import FacesConfig
from fra.files import sha256, write_parquet
from fra.wording import counted

logger = logging.getLogger(__name__)

ADAPTERS: dict[str, Callable[[Path, DatasetConfig], Iterable[Record]]] = {
    "affectnet": affectnet.records,
    "bp4d": bp4d.records,
    "celeba": celeba.records,
    "disfa": disfa.records,
    "fer2013": fer2013.records,
    "ferplus": ferplus.records,
    "folder": folder.records,
    "generated": generated.records,
    "lfw": people.lfw,
    "mpiifacegaze": mpiifacegaze.records,
    "orl": orl.records,
    "rafdb": rafdb.records,
    "synthetic": synthetic.records,
    "table": table.records,
    "vggface2": people.vggface2,
    "w300": w300.records,
    "webdataset": webdataset.records,
    "wflw": wflw.records,
}
"""The records of a folder, by the name of its layout."""
EMBEDDED: dict[str, Callable[[Path, DatasetConfig], None]] = {
    "generated": generated.fetch,
    "orl": orl.fetch,
    "synthetic": synthetic.fetch,
}
"""Sets that need no `dataset.root`: functions that write their images into the raw folder."""


def content_version(path: str) -> int:
    """A number that changes with the bytes of a local file: the same on every machine."""
    return int(hash_fraction(sha256(Path(path))) * 2**62)


def reported_version(url: str) -> int:
    """A number that changes with what the storage reports of a local or remote file (size, time, ETag)."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    info = system.info(path)
    values = [str(info.get(name)) for name in ("size", "mtime", "LastModified", "ETag", "etag")]
    return int(hash_fraction(" ".join(values)) * 2**62)


def prepare_root(config: DatasetConfig, raw: Path) -> Path:
    """The existing folder with the images; the images of an embedded set are first written there.

    Raises:
        ValueError: There is no such adapter, or `dataset.root` is not set.
        FileNotFoundError: There is no such folder.
    """
    if config.adapter not in ADAPTERS:
        raise ValueError(
            f"dataset.adapter is {config.adapter!r}: choose one of {', '.join(sorted(ADAPTERS))}"
        )
    root = root_of(config, raw)
    if is_embedded(config):
        EMBEDDED[config.adapter](raw, config)
    elif config.root is None and config.adapter != "webdataset":
        raise ValueError(
            f"dataset.root is not set: where are the images of {config.name!r} ({config.adapter})?"
        )
    elif config.root is not None and not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    return root


def is_embedded(config: DatasetConfig) -> bool:
    """Whether the images come with the project's packages instead of a folder of the user."""
    return config.root is None and config.adapter in EMBEDDED


def check_splits(config: DatasetConfig, records: list[Record], trains: bool) -> None:
    """Checks that the splits that are wanted have images; warns of an empty split that is only for evaluation.

    Args:
        config: The data set.
        records: Its records.
        trains: Whether the set is pre-trained on.

    Raises:
        ValueError: The set is pre-trained on, but has no training image.
    """
    images = Counter(record.split for record in records)
    people = len({record.person for record in records if record.person is not None})
    drawn = counted(people, "person") if people else f"{counted(len(records), 'image')} without a person"
    if trains and not images["train"]:
        raise ValueError(
            f"{config.urls or config.root}: no training image: all {len(records):,} images are in the splits "
            f"{' and '.join(sorted(images))} (dataset.val {config.val}, dataset.test {config.test}, {drawn}); "
            "lower dataset.val and dataset.test, or choose a set with training images"
        )
    for split, share in (("val", config.val), ("test", config.test)):
        if share and not images[split]:
            logger.warning(
                "%s: no image is in the split %s although dataset.%s is %s (%s): the set is too small for it",
                config.name,
                split,
                split,
                share,
                drawn,
            )


@dataclass(frozen=True)
class FaceSearch:
    """How photographs are searched for faces.

    Attributes:
        config: Which faces are cropped.
        cache: Folder for what was found; it must be another one for another detector.
        executor: Where photographs are searched; processes of this machine by default.
    """

    config: FacesConfig
    cache: Path
    executor: Executor | None = None


def ingest(
    config: DatasetConfig,
    raw: Path,
    withdrawn: frozenset[str] = frozenset(),
    *,
    trains: bool = False,
    search: FaceSearch | None = None,
    frames: FrameStore | None = None,
) -> pd.DataFrame:
    """Lists a data set into `raw/records.parquet`, one row per image, sorted by key; returns the table.

    With `dataset.frames_per_second` a video is replaced by its frames, see `fra.data.datasets.frames.with_frames`.
    With `dataset.faces=detect` there is one row per face instead, see `fra.data.datasets.faces.face_records`.

    The columns are key, source (relative to the root), split, person, bytes and modified (from the file system; null
    for embedded files, whose bytes are versioned), label.<Name> and group.<Name> (Int64, null where unknown),
    measure.<Name> (Float64), landmarks, and, where the set has them, box (left, top, right, bottom), span (in a tar)
    and content (image files from a table).

    The lists `dataset.only` and `dataset.exclude` are applied last, so that they never change the key of another image;
    what they leave out is listed in `LEFT_OUT`.

    Args:
        config: The data set.
        raw: The folder for the table, and for the images of an embedded set.
        withdrawn: People to leave out. Their images are deleted from an embedded set, but never from the user's folder.
        trains: Whether the set is pre-trained on, so that it must have training images.
        search: How photographs are searched for faces; null with `dataset.faces=as_is`.
        frames: Where the frames of videos are stored; `raw/videos` by default.

    Raises:
        ValueError: There is no such adapter, `dataset.root` is not set, an annotation file is not as published, or a
            name leads out of the set; there is no training image in a set that is pre-trained on; no photograph has a
            face; or a list of keys is wrong or leaves no image.
        FileNotFoundError: A folder, annotation file, list of keys or image is missing.
    """
    root = prepare_root(config, raw)
    listed = list(ADAPTERS[config.adapter](root, config))
    records = [record for record in listed if record.person not in withdrawn]
    if not records:
        raise ValueError(f"{config.urls or root}: {config.adapter} lists no image; check dataset.root")
    records = without_repeats(records, config.urls or root)
    if is_embedded(config):
        for record in listed:
            if record.person in withdrawn:
                file = root / record.source
                file.unlink()
                if file.parent != root and not any(file.parent.iterdir()):
                    file.parent.rmdir()  # its name may be the person's
    check_names(records, config.urls or root)
    if not config.follow_links:
        check_links(root, files_of(config, records))
    records, versions = expand_videos(config, records, root, frames or FrameStore(raw / "videos"))
    check_splits(config, records, trains)
    version = content_version if is_embedded(config) else reported_version
    stamps = file_stamps(
        root, records, files_of(config, records), lambda tar: versions.get(tar) or version(tar)
    )
    table = table_of(records, stamps).sort_values("key", ignore_index=True)
    if search is not None:
        table = faces_of(table, root, config, search)
    selected = select(table, config, trains)
    write_left_out(table[~table["key"].isin(selected["key"])], raw / LEFT_OUT)
    write_parquet(selected, raw / "records.parquet")
    return selected


def files_of(config: DatasetConfig, records: list[Record]) -> list[str]:
    """The sources of the records that are files of the user below the root."""
    if is_embedded(config):
        return []
    return [record.source for record in records if record.content is None and record.span is None]


def expand_videos(config: DatasetConfig, records: list[Record], root: Path, store: FrameStore) -> Frames:
    """The records without videos: replaced by their frames, or left out where `dataset.frames_per_second` is null.

    Raises:
        ValueError: No record is left.
    """
    if config.frames_per_second is None:
        found = Frames(without_videos(records, root), {})
    else:
        found = with_frames(records, root, config.frames_per_second, store)
    if not found.records:
        raise ValueError(
            f"{root}: no image, and no video of which frames are taken (dataset.frames_per_second is "
            f"{config.frames_per_second}); the log names each video that is left out"
        )
    return found


def faces_of(photos: pd.DataFrame, root: Path, config: DatasetConfig, search: FaceSearch) -> pd.DataFrame:
    """The records of the faces in photographs.

    Raises:
        ValueError: No photograph has a face.
    """
    found = search_photos(photos, root, search.cache, search.config.detector, search.executor)
    table = face_records(photos, found, config.crop, search.config)
    if table["photo.problem"].notna().all():
        first = table.iloc[0]
        raise ValueError(
            f"{config.urls or root}: no face in any of {counted(len(photos), 'photograph')}; "
            f"{first['source']}: {first['photo.problem']}"
        )
    return table


def file_stamps(
    root: Path, records: list[Record], on_disk: list[str], version: Callable[[str], int]
) -> list[FileStamp | None]:
    """The stamp of each record's image file; None where it has no file of its own.

    Args:
        root: The folder with the images.
        records: All records.
        on_disk: Sources of the records that are files below `root`.
        version: The version number of a tar that holds images.
    """
    files = dict(zip(on_disk, stat_all(root, on_disk), strict=True))
    versions = {url: version(url) for url in {record.source for record in records if record.span}}
    return [
        (record.span[1], versions[record.source]) if record.span else files.get(record.source)
        for record in records
    ]
