"""Lists the images of a WebDataset tar: one per sample, with what is skipped.

The members of a sample share their path up to the first dot of the file name: `a/7.jpg`, `a/7.left.jpg` and `a/7.json`
are the sample `a/7` with the members `jpg`, `left.jpg` and `json`.
"""

from __future__ import annotations

import logging
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from posixpath import dirname, join, normpath, splitext
from typing import IO

from fra.data.datasets.annotation_files import IMAGE_SUFFIXES
from fra.data.datasets.checks import check_name

logger = logging.getLogger(__name__)

END = bytes(tarfile.BLOCKSIZE)
"""The beginning of the end mark of a tar, which has two such blocks."""
Place = tuple[int, int]
"""First byte and number of bytes of a file in a tar."""


@dataclass(frozen=True)
class TarImage:
    """One image in a tar.

    Attributes:
        sample: The key of its sample, such as `a/7`.
        member: The rest of its name, such as `left.jpg`.
        offset: Its first byte in the tar.
        size: Number of bytes.
    """

    sample: str
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The name of the image: its sample with the last suffix of the member (`a/7.jpg`)."""
        return f"{self.sample}.{self.member.rpartition('.')[2]}"


@dataclass
class TarListing:
    """The images of one or several tars, and the number of other files by description."""

    images: list[TarImage] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def list_images(stream: IO[bytes], where: str, member: str | None = None) -> TarListing:
    """The image of each sample of a tar.

    Links to other members of the tar are followed. Hidden files (such as macOS's `._7.jpg`) are skipped.

    Args:
        stream: The tar, uncompressed.
        where: Its path or URL, for messages.
        member: The member that is the image, such as `left.jpg`. By default the only image of a sample; of several, the
            one whose name has no further dot (`jpg` before `seg.png`).

    Raises:
        ValueError: It is not a tar; a name leads out of it; or several members of a sample may be the image.
    """
    listing, samples = TarListing(), dict[str, dict[str, Place]]()
    for name, place in image_members(stream, where, listing.skipped).items():
        stem, _, suffix = PurePosixPath(name).name.partition(".")
        samples.setdefault(join(dirname(name), stem), {})[suffix] = place
    for sample, members in samples.items():
        chosen = member if member else choose(members, f"{where}: the sample {sample!r}")
        for suffix, (offset, size) in members.items():
            if suffix == chosen:
                listing.images.append(TarImage(sample, suffix, offset, size))
            else:
                listing.skipped[f"further images of a sample (.{suffix})"] += 1
    return listing


def image_members(stream: IO[bytes], where: str, skipped: Counter[str]) -> dict[str, Place]:
    """The place of each image file of a tar by its name; `skipped` counts the other files by description.

    Raises:
        ValueError: It is not a tar, or a name leads out of it.
    """
    images: dict[str, Place] = {}
    for name, place in read_places(stream, where, skipped).items():
        suffix = splitext(name)[1].lower()
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            skipped["hidden (such as ._* of macOS)"] += 1
        elif suffix not in IMAGE_SUFFIXES:
            skipped[suffix or "without suffix"] += 1
        elif place is None:
            skipped["links to nothing in the tar"] += 1
        else:
            images[name] = place
    return images


def choose(members: dict[str, Place], where: str) -> str:
    """The member that is the image of a sample.

    Raises:
        ValueError: There are several, and no rule tells which.
    """
    if len(members) == 1:
        return next(iter(members))
    plain = [suffix for suffix in members if "." not in suffix]
    if len(plain) == 1:
        return plain[0]
    names = sorted(members)
    shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    raise ValueError(
        f"{where} has {len(names)} images ({shown}): set dataset.member to the one to use; or, if they are independent "
        "images, rename them: the files of a sample are those that have the same name up to the first dot"
    )


def read_places(stream: IO[bytes], where: str, skipped: Counter[str]) -> dict[str, Place | None]:
    """First byte and size of each file of a tar by its name; None for a link to nothing in it.

    A later file of the same name replaces an earlier one, as it does when a tar is unpacked. A warning is logged if the
    tar has no end mark.

    Raises:
        ValueError: It is not a tar, or a name leads out of it.
    """
    places: dict[str, Place | None] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for info in tar:
                check_name(info.name, where)
                name = normpath(info.name)
                if info.isdir():
                    continue
                if name in places:
                    skipped["replaced by a later file of the same name"] += 1
                    links.pop(name, None)
                if info.isfile():
                    places[name] = (info.offset_data, info.size)
                elif info.islnk() or info.issym():
                    places[name] = None
                    links[name] = normpath(
                        info.linkname if info.islnk() else join(dirname(name), info.linkname)
                    )
                else:
                    skipped["neither file nor link"] += 1
            stream.seek(tar.offset)
            if stream.read(len(END)) != END:
                logger.warning(
                    "%s: has no end mark after %s files: it was not written or copied to its end, or other tars follow",
                    where,
                    f"{len(places):,}",
                )
    except (tarfile.TarError, OverflowError) as error:
        raise ValueError(f"{where}: not a tar file, or a compressed one ({error})") from None
    for name in links:
        target, seen = name, set[str]()
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        places[name] = places.get(target)
    return places
