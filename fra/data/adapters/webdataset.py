"""Existing WebDataset shards: `dataset.urls` names tar files, on disk or remote, with brace ranges.

`faces-{000000..000041}.tar`, `https://host/faces-{00..41}.tar`, `s3://bucket/faces-{00..41}.tar` (keys and endpoint as
any AWS tool finds them). Each image is a record that says where in which tar it lies; nothing is unpacked. Unlabelled.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fra.data.records import IMAGE_SUFFIXES, DatasetConfig, Record, split_of


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    from braceexpand import braceexpand

    if not config.urls:
        raise ValueError("dataset.urls is not set: which shards (faces-{000000..000041}.tar)?")
    for url in braceexpand(config.urls):
        yield from members(url, config)


def members(url: str, config: DatasetConfig) -> Iterator[Record]:
    """The images in one tar, in its order; they are named `<tar>/<image>`.

    Raises:
        FileNotFoundError: there is no such tar.
        ValueError: it is not a tar.
    """
    import fsspec

    try:
        with fsspec.open(url, "rb") as stream, tarfile.open(fileobj=stream) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isfile() and name.suffix.lower() in IMAGE_SUFFIXES:
                    name = PurePosixPath(PurePosixPath(url).stem) / name
                    yield Record(
                        url,
                        split_of(name.with_suffix("").as_posix(), config),
                        name=name.as_posix(),
                        span=(member.offset_data, member.size),
                    )
    except FileNotFoundError:
        raise FileNotFoundError(f"{url}: no such shard; check dataset.urls") from None
    except tarfile.TarError as error:
        raise ValueError(f"{url}: not a tar file ({error}); check dataset.urls") from None
