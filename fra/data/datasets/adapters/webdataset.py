"""Existing WebDataset shards: `dataset.urls` names tar files, local or remote, with brace ranges.

`faces-{000000..000041}.tar`, `https://host/faces-{00..41}.tar`, `s3://bucket/faces-{00..41}.tar` (keys and endpoint
from the same settings as any AWS tool). Each record refers to a part of a tar; nothing is unpacked. Unlabelled.
"""

from __future__ import annotations

import math
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fra.data.datasets.annotation_files import IMAGE_SUFFIXES
from fra.data.datasets.records import DatasetConfig, Record, split_of

MAX_TARS = 1_000_000
"""Largest number of tars in a set."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
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
    """Checks the number of tars that the braces name, before they are listed.

    Raises:
        ValueError: There are more than `MAX_TARS`.
    """
    numbers = re.findall(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(?=[.}])", urls)
    letters = re.findall(r"\{([A-Za-z])\.\.([A-Za-z])(?=[.}])", urls)
    ranges = [(int(first), int(last)) for first, last in numbers] + [(ord(a), ord(z)) for a, z in letters]
    groups = urls.count("{") + 1
    size = sum(math.log(abs(last - first) + 1) for first, last in ranges) + groups * math.log1p(
        urls.count(",") / groups
    )
    if size > math.log(MAX_TARS) or re.search(r"\d{19}", urls):
        raise ValueError(
            f"dataset.urls {urls[:200]!r}: names more than {MAX_TARS:,} tars; give fewer, or check the range"
        )


def members(url: str, config: DatasetConfig) -> Iterator[Record]:
    """The images in one tar, in its order, named `<tar>/<image>`.

    Raises:
        FileNotFoundError: There is no such tar.
        ValueError: It is not a tar.
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
