"""Existing WebDataset shards: `dataset.urls` names tar files, local or remote, with brace ranges.

`faces-{000000..000041}.tar`, `https://host/faces-{00..41}.tar`, `s3://bucket/faces-{00..41}.tar` (keys and endpoint
from the same settings as any AWS tool). Each record refers to a part of a tar; nothing is unpacked. Unlabelled.
Braces in the name of an existing folder stand for themselves.
Each sample has one image, whose member `dataset.member` can name (see `fra.data.datasets.tar_images`).
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fra.data.datasets.annotation_files import describe_skipped
from fra.data.datasets.records import DatasetConfig, Record, split_of
from fra.data.datasets.tar_images import list_images

logger = logging.getLogger(__name__)

MAX_TARS = 1_000_000
"""Largest number of tars in a set."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    if not config.urls:
        raise ValueError("dataset.urls is not set: which shards (faces-{000000..000041}.tar)?")
    skipped: Counter[str] = Counter()
    for url in expand(config.urls):
        yield from members(url, config, skipped)
    if skipped:
        logger.warning("%s: skipped %s", config.urls, describe_skipped(skipped))


def expand(urls: str) -> Iterator[str]:
    """Paths or URLs of the tars that brace ranges name.

    Raises:
        ValueError: The braces are not balanced, or name more than `MAX_TARS` tars.
    """
    from braceexpand import braceexpand

    ends = (place + 1 for place, character in enumerate(urls) if character == "/")
    folder = urls[: max((end for end in ends if Path(urls[:end]).is_dir()), default=0)]
    pattern = urls.removeprefix(folder)
    check_count(pattern)
    try:
        names = braceexpand(pattern)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"dataset.urls {urls[:200]!r}: {error}") from None
    return (folder + name for name in names)


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


def members(url: str, config: DatasetConfig, skipped: Counter[str] | None = None) -> Iterator[Record]:
    """The images in one tar, in its order, named `<tar>/<sample>.<suffix>`; one image per sample.

    Args:
        url: Path or URL of the tar.
        config: The data set; its `member` names the image of a sample.
        skipped: Counts the other files of the tar by description.

    Raises:
        FileNotFoundError: There is no such tar.
        ValueError: It is not a tar, a name leads out of it, or a sample has several images.
    """
    import fsspec

    try:
        with fsspec.open(url, "rb") as stream:
            listing = list_images(stream, url, config.member)
    except FileNotFoundError:
        raise FileNotFoundError(f"{url}: no such shard; check dataset.urls") from None
    if skipped is not None:
        skipped.update(listing.skipped)
    tar = PurePosixPath(PurePosixPath(url).stem)
    for image in listing.images:
        yield Record(
            url,
            split_of((tar / image.sample).as_posix(), config),
            name=(tar / image.name).as_posix(),
            span=(image.offset, image.size),
        )
