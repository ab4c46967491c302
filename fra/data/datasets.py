"""Data sets by name: the table of adapters, and the list of images (records) that one makes of a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from posixpath import join, split, splitext

import pandas as pd

from fra.data.adapters import (
    affectnet,
    celeba,
    fer2013,
    ferplus,
    folder,
    generated,
    orl,
    people,
    rafdb,
    w300,
    webdataset,
    wflw,
)
from fra.data.files import sha256, write_parquet
from fra.data.records import DatasetConfig, Record, fraction, root_of

ADAPTERS: dict[str, Callable[[Path, DatasetConfig], Iterable[Record]]] = {
    "affectnet": affectnet.records,
    "celeba": celeba.records,
    "fer2013": fer2013.records,
    "ferplus": ferplus.records,
    "folder": folder.records,
    "generated": generated.records,
    "lfw": people.lfw,
    "orl": orl.records,
    "rafdb": rafdb.records,
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


def stat_all(root: Path, sources: list[str]) -> tuple[list[int], list[int]]:
    """Size in bytes and time of change (ns) of each file.

    Raises:
        FileNotFoundError: one is not there; the message counts them.
    """
    sizes, times, missing = [], [], []
    for source in sources:
        try:
            found = os.stat(join(root, source))  # noqa: PTH116  a Path each costs four times as much
        except FileNotFoundError:
            missing.append(source)
            continue
        sizes.append(found.st_size)
        times.append(found.st_mtime_ns)
    if missing:
        raise FileNotFoundError(
            f"{root / missing[0]}: not there, though the set lists it ({len(missing):,} of {len(sources):,} "
            "files are missing); check dataset.root"
        )
    return sizes, times


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


def ingest(config: DatasetConfig, raw: Path, withdrawn: frozenset[str] = frozenset()) -> pd.DataFrame:
    """Lists a data set into `raw/records.parquet`, one row an image, sorted by key.

    People who are `withdrawn` are left out; of an embedded set their images are deleted, too (a folder of the user's
    is never changed).

    Columns: key, source (relative to the root), split, person, bytes and modified (as the file system has them;
    null for embedded files, whose bytes are versioned), label.<Name> (Int64, null = not known), landmarks, and, where
    the set has them, box (left, top, right, bottom), span (of a tar) and content (image files out of a table).

    Raises:
        ValueError: there is no such adapter, `dataset.root` is not set, or an annotation file is not as published.
        FileNotFoundError: a folder, annotation file or image is not where the layout has it.
    """
    if config.adapter not in ADAPTERS:
        raise ValueError(
            f"dataset.adapter is {config.adapter!r}: choose one of {', '.join(sorted(ADAPTERS))}"
        )
    embedded = config.root is None and config.adapter in EMBEDDED
    root = root_of(config, raw)
    if embedded:
        EMBEDDED[config.adapter](raw, config)
    elif config.root is None and config.adapter != "webdataset":
        raise ValueError(
            f"dataset.root is not set: where are the images of {config.name!r} ({config.adapter})?"
        )
    elif config.root is not None and not root.is_dir():
        raise FileNotFoundError(
            f"{root}: no such folder; set dataset.root to the folder that holds the images"
        )
    listed = list(ADAPTERS[config.adapter](root, config))
    records = [record for record in listed if record.person not in withdrawn]
    if embedded:
        for record in listed:
            if record.person in withdrawn:
                (root / record.source).unlink()
    if not records:
        raise ValueError(f"{config.urls or root}: {config.adapter} lists no image; check dataset.root")
    sources = [record.source for record in records]
    table = pd.DataFrame(
        {
            "key": pd.array(keys_of([record.name or record.source for record in records]), dtype="string"),
            "source": pd.array(sources, dtype="string"),
            "split": pd.array([record.split for record in records], dtype="string"),
            "person": pd.array([record.person for record in records], dtype="string"),
        }
    )
    sizes: list[int | None] = [None] * len(records)
    times: list[int | None] = [None] * len(records)
    version = content_of if embedded else version_of
    versions = {url: version(url) for url in {record.source for record in records if record.span}}
    for place, record in enumerate(records):
        if record.span:
            sizes[place], times[place] = record.span[1], versions[record.source]
    on_disk = [
        place
        for place, record in enumerate(records)
        if record.content is None and record.span is None and not embedded
    ]
    for place, size, time in zip(
        on_disk, *stat_all(root, [sources[place] for place in on_disk]), strict=True
    ):
        sizes[place], times[place] = size, time
    table["bytes"] = pd.array(sizes, dtype="Int64")
    table["modified"] = pd.array(times, dtype="Int64")
    for name in sorted({name for record in records for name in record.labels}):
        table[f"label.{name}"] = pd.array([record.labels.get(name) for record in records], dtype="Int64")
    table["landmarks"] = [list(record.landmarks) if record.landmarks else None for record in records]
    if any(record.box for record in records):
        table["box"] = [list(record.box) if record.box else None for record in records]
    if any(record.span for record in records):
        table["span"] = [list(record.span) if record.span else None for record in records]
    if any(record.content is not None for record in records):
        table["content"] = [record.content for record in records]
    table = table.sort_values("key", ignore_index=True)
    write_parquet(table, raw / "records.parquet")
    return table
