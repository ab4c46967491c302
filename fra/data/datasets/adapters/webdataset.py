"""Existing WebDataset shards: `dataset.urls` names tar files, on disk or remote, with brace ranges.

`faces-{000000..000041}.tar`, `https://host/faces-{00..41}.tar`, `s3://bucket/faces-{00..41}.tar` (keys and endpoint as
any AWS tool finds them). Each image is a record that says where in which tar it lies; nothing is unpacked. Unlabelled.
"""

from __future__ import annotations

import math
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fra.data.datasets.records import IMAGE_SUFFIXES, DatasetConfig, Record, split_of

MOST = 1_000_000
"""Tars of a set."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    from braceexpand import braceexpand

    if not config.urls:
        raise ValueError("dataset.urls is not set: which shards (faces-{000000..000041}.tar)?")
    check_count(config.urls)
    try:
        urls = braceexpand(config.urls)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"dataset.urls {config.urls[:200]!r}: {error}") from None
    for url in urls:
        yield from members(url, config)


def check_count(urls: str) -> None:
    """Raises ValueError where the braces name more than `MOST` tars, which would be listed before one is read."""
    numbers = re.findall(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(?=[.}])", urls)
    letters = re.findall(r"\{([A-Za-z])\.\.([A-Za-z])(?=[.}])", urls)
    ranges = [(int(first), int(last)) for first, last in numbers] + [(ord(a), ord(z)) for a, z in letters]
    groups = urls.count("{") + 1
    size = sum(math.log(abs(last - first) + 1) for first, last in ranges) + groups * math.log1p(
        urls.count(",") / groups
    )
    if size > math.log(MOST) or re.search(r"\d{19}", urls):
        raise ValueError(
            f"dataset.urls {urls[:200]!r}: names more than {MOST:,} tars; give fewer, or check the range"
        )


def members(url: str, config: DatasetConfig) -> Iterator[Record]:
    """The images in one tar, in its order; they are named `<tar>/<image>`.

    Raises:
        FileNotFoundError: there is no such tar.
        ValueError: it is not a tar.
    """
    import fsspec

    try:
        with fsspec.open(url, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
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
    except (tarfile.TarError, OverflowError) as error:
        raise ValueError(
            f"{url}: not a tar file, or a compressed one ({error}); check dataset.urls"
        ) from None
