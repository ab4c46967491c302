"""Data sets by name: the table of adapters, and the list of images (records) that one makes of a folder."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from posixpath import dirname, isabs, join, split, splitext
from typing import Any

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
    table,
    w300,
    webdataset,
    wflw,
)
from fra.data.datasets.records import DatasetConfig, Record, fraction, root_of
from fra.files import sha256, write_parquet

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
    "table": table.records,
    "vggface2": people.vggface2,
    "w300": w300.records,
    "webdataset": webdataset.records,
    "wflw": wflw.records,
}
EMBEDDED: dict[str, Callable[[Path, DatasetConfig], None]] = {"generated": generated.fetch, "orl": orl.fetch}
"""Sets that need no `dataset.root`: how to put their images into the raw folder."""


def keys_of(sources: list[str]) -> list[str]:
    """One key a source, unique: its path without the suffix.

    WebDataset ends a key at the first dot of the file name, so other dots become underscores; where two sources
    would share a key, a hash of each is added; where one source shows several faces, their number in the list.
    """
    parts = [split(source) for source in sources]
    stems = [join(folder, splitext(file)[0].replace(".", "_")) for folder, file in parts]
    faces = Counter(sources)
    files: dict[str, set[str]] = {}
    for stem, source in zip(stems, sources, strict=True):
        files.setdefault(stem, set()).add(source)
    seen: Counter[str] = Counter()
    keys = []
    for stem, source in zip(stems, sources, strict=True):
        key = stem if len(files[stem]) == 1 else f"{stem}_{fraction(source):.12f}".replace("0.", "", 1)
        keys.append(key if faces[source] == 1 else f"{key}_face{seen[source]}")
        seen[source] += 1
    return keys


def check_names(records: list[Record], where: str | Path) -> None:
    """Names come from annotation files and archives, which can say anything.

    Raises:
        ValueError: one leads out of the set, or is no text that every file here can hold.
    """
    for record in records:
        check_name(record.name or record.source, where)
        if not record.span:  # else it is the tar's own path or URL, which the user chose
            check_name(record.source, where)


def check_name(name: str, where: str | Path) -> None:
    """Raises ValueError as `check_names` says."""
    if isabs(name) or ".." in name.split("/"):
        raise ValueError(f"{where}: {name!r} leads out of the set")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: {name!r} is not UTF-8: rename it") from None
    if re.search(r"[\x00-\x1f\x7f-\x9f]", name):
        raise ValueError(f"{where}: {name!r} has a control character in it: rename it")


def stat_all(root: Path, sources: list[str]) -> list[tuple[int, int]]:
    """Size in bytes and time of change (ns) of each file.

    Raises:
        FileNotFoundError: one is not there; the message counts them.
        ValueError: one is no plain file (a pipe, a device, a folder).
    """
    found, missing = [], []
    for source in sources:
        path = join(root, source)
        try:
            status = os.stat(path)  # noqa: PTH116  a Path each costs four times as much
        except (FileNotFoundError, NotADirectoryError):
            missing.append(source)
            continue
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(
                f"{path}: not a plain file, but a pipe, a device or a folder; take it out of the set"
            )
        found.append((status.st_size, status.st_mtime_ns))
    if missing:
        raise FileNotFoundError(
            f"{root / missing[0]}: not there, though the set lists it ({len(missing):,} of {len(sources):,} "
            "files are missing); check dataset.root"
        )
    return found


def check_links(root: Path, sources: list[str]) -> None:
    """Raises ValueError where a file, or the folder it is in, is a link that leads out of the set."""
    home = os.path.realpath(root)
    folders = {dirname(source) for source in sources}
    links = [source for source in sources if os.path.islink(join(root, source))]  # noqa: PTH114  as above
    for name in (*sorted(folders), *links):
        target = os.path.realpath(join(root, name))
        if os.path.commonpath([home, target]) != home:
            raise ValueError(
                f"{join(root, name)}: a link that leads out of dataset.root, to {target}; "
                "dataset.follow_links=true reads it all the same"
            )


def content_of(path: str) -> int:
    """A number that changes with a local file, by its bytes: the same wherever it was made."""
    return int(fraction(sha256(Path(path))) * 2**62)


def version_of(url: str) -> int:
    """A number that changes with a local or remote file, by what its server says of it (size, time, ETag)."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    about = system.info(path)
    told = [str(about.get(name)) for name in ("size", "mtime", "LastModified", "ETag", "etag")]
    return int(fraction(" ".join(told)) * 2**62)


def root_for(config: DatasetConfig, raw: Path) -> Path:
    """The folder with the images, which is there; images of an embedded set are put there first.

    Raises:
        ValueError: there is no such adapter, or `dataset.root` is not set.
        FileNotFoundError: there is no such folder.
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
    return config.root is None and config.adapter in EMBEDDED


def ingest(config: DatasetConfig, raw: Path, withdrawn: frozenset[str] = frozenset()) -> pd.DataFrame:
    """Lists a data set into `raw/records.parquet`, one row an image, sorted by key.

    People who are `withdrawn` are left out; of an embedded set their images are deleted, too (a folder of the user's
    is never changed).

    Columns: key, source (relative to the root), split, person, bytes and modified (as the file system has them;
    null for embedded files, whose bytes are versioned), label.<Name> (Int64, null = not known), measure.<Name>
    (Float64), landmarks, and, where the set has them, box (left, top, right, bottom), span (of a tar) and content
    (image files out of a table).

    Raises:
        ValueError: there is no such adapter, `dataset.root` is not set, an annotation file is not as published, or
            leads out of the set.
        FileNotFoundError: a folder, annotation file or image is not where the layout has it.
    """
    root = root_for(config, raw)
    listed = list(ADAPTERS[config.adapter](root, config))
    records = [record for record in listed if record.person not in withdrawn]
    if not records:
        raise ValueError(f"{config.urls or root}: {config.adapter} lists no image; check dataset.root")
    if is_embedded(config):
        for record in listed:
            if record.person in withdrawn:
                (root / record.source).unlink()
        on_disk = []
    else:
        on_disk = [record.source for record in records if record.content is None and record.span is None]
    check_names(records, config.urls or root)
    if not config.follow_links:
        check_links(root, on_disk)
    version = content_of if is_embedded(config) else version_of
    listing = table_of(records, stamps(root, records, on_disk, version)).sort_values("key", ignore_index=True)
    write_parquet(listing, raw / "records.parquet")
    return listing


def stamps(
    root: Path, records: list[Record], on_disk: list[str], version: Callable[[str], int]
) -> list[tuple[int, int] | None]:
    """Of each record the size in bytes of its image, and a number that changes with it; None where it has no file.

    `version` gives the number of a tar whose parts are records.
    """
    files = dict(zip(on_disk, stat_all(root, on_disk), strict=True))
    versions = {url: version(url) for url in {record.source for record in records if record.span}}
    return [
        (record.span[1], versions[record.source]) if record.span else files.get(record.source)
        for record in records
    ]


def table_of(records: list[Record], stamps: list[tuple[int, int] | None]) -> pd.DataFrame:
    """The records as a table; optional columns only where a record has them."""
    text: dict[str, list[str | None]] = {
        "key": [*keys_of([record.name or record.source for record in records])],
        "source": [record.source for record in records],
        "split": [record.split for record in records],
        "person": [record.person for record in records],
    }
    numbers: dict[str, list[int | None]] = {
        "bytes": [stamp and stamp[0] for stamp in stamps],
        "modified": [stamp and stamp[1] for stamp in stamps],
    }
    for name in sorted({name for record in records for name in record.labels}):
        numbers[f"label.{name}"] = [record.labels.get(name) for record in records]
    measures = {
        f"measure.{name}": [record.measures.get(name) for record in records]
        for name in sorted({name for record in records for name in record.measures})
    }
    others: dict[str, list[Any]] = {
        "landmarks": [record.landmarks and list(record.landmarks) for record in records],
        "box": [record.box and list(record.box) for record in records],
        "span": [record.span and list(record.span) for record in records],
        "content": [record.content for record in records],
    }
    return pd.DataFrame(
        {name: pd.array(values, dtype="string") for name, values in text.items()}
        | {name: pd.array(values, dtype="Int64") for name, values in numbers.items()}
        | {name: pd.array(values, dtype="Float64") for name, values in measures.items()}
        | {
            name: pd.Series(values, dtype=object)
            for name, values in others.items()
            if name == "landmarks" or any(value is not None for value in values)
        }
    )
