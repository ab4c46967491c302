"""Images from files, folders, glob patterns and tar shards, decoded ahead of their use."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fra.data.datasets.adapters import webdataset
from fra.data.datasets.annotation_files import IMAGE_SUFFIXES, image_files
from fra.data.datasets.tar_images import image_members
from fra.data.images import ImageError, decode, read_file, resize
from fra.faces.crop import Transform
from fra.faces.detect import Face, Pixels
from fra.inference.detection import Detection, FaceFinder
from fra.parallel import map_ahead, opencv_in_one_thread
from fra.wording import counted

if TYPE_CHECKING:
    from torch import Tensor


class File(NamedTuple):
    """An image file.

    Attributes:
        name: Its name.
        path: The file on disk that contains it: the image file itself, or a tar shard.
        read: Reads its bytes.
    """

    name: str
    path: str
    read: Callable[[], bytes]


class Source(NamedTuple):
    """What an image of a batch shows: a whole file, or a face in it.

    Attributes:
        name: Name of the file.
        number: Of the face in the file, from 0, the largest first. None where the whole image is used, as for the rest.
        face: Box, points and score, in pixels of the upright image.
        transform_23: From pixels of the upright image to pixels of the crop, before it is resized. Whole images have
            one where it is needed (`fra.inference.predict`).
    """

    name: str
    number: int | None = None
    face: Face | None = None
    transform_23: Transform | None = None


class Batch(NamedTuple):
    """Images of one size: what each shows, and pixels (N, 3, size, size), uint8, RGB."""

    sources: list[Source]
    pixels_N3HW: Tensor


class Loaded(NamedTuple):
    """What a file contains: images with their pixels, or why there are none (`unreadable` or `no_face`)."""

    name: str
    images: Sequence[tuple[Source, Pixels]] = ()
    unreadable: str | None = None
    no_face: str | None = None


@dataclass
class Skipped:
    """Files that gave no image, with the reason by name.

    Attributes:
        unreadable: They cannot be read or decoded.
        no_face: No face was found in them.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    no_face: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, unreadable: str | None, no_face: str | None) -> None:
        """Adds a file where there is a reason to."""
        if unreadable is not None:
            self.unreadable[name] = unreadable
        if no_face is not None:
            self.no_face[name] = no_face

    def nothing_left(self) -> ValueError:
        """The error where every file was skipped; it names the first one."""
        name, reason = next(iter((self.unreadable | self.no_face).items()), ("", "no image found"))
        kind = "shows a face" if self.no_face else "is an image"
        return ValueError(
            f"none of {counted(len(self.unreadable) + len(self.no_face), 'file')} {kind}; {name}: {reason}"
        )


def expand(pattern: str) -> list[Path]:
    """Return the files and folders that a path or glob pattern stands for; folders are not opened.

    Raises:
        FileNotFoundError: There are none.
    """
    found = [Path(pattern)]
    if not found[0].exists():
        found = sorted(map(Path, glob.glob(_escape_folders(pattern), recursive=True)))
    if not found:
        raise FileNotFoundError(f"{pattern}: no such file or folder, and no file matches it as a pattern")
    return found


def _escape_folders(pattern: str) -> str:
    """Returns the pattern with its leading folders escaped as far as they exist, such as the folder `[2024]`."""
    folder, rest = Path(), list(Path(pattern).parts)
    while rest and (folder / rest[0]).exists():
        folder /= rest.pop(0)
    return str(Path(glob.escape(str(folder)), *rest))


def files_below(folder: Path) -> list[str]:
    """Return the image files below a folder, or its tar shards where it holds no image, as relative paths.

    Raises:
        FileNotFoundError: The folder holds neither.
    """
    try:
        return image_files(folder)
    except FileNotFoundError:
        if shards := sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar")):
            return shards
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise FileNotFoundError(
            f"{folder}: no image in this folder (searched at any depth for {suffixes}), and no tar shard; "
            "give a folder of images"
        ) from None


def resolve(patterns: Sequence[str]) -> list[str]:
    """Return the files that paths and glob patterns stand for, with a folder replaced by the images in it.

    Folders are searched at any depth for image suffixes, and where they hold no image for tar shards. A file that is
    matched itself is returned whatever its suffix. URLs of tar shards may have brace ranges
    (`s3://bucket/faces-{00..41}.tar`).

    Raises:
        FileNotFoundError: A path or pattern matches nothing, or a folder holds no image.
    """
    paths: list[str] = []
    for pattern in patterns:
        if "://" in pattern:
            paths += expand_urls(pattern)
            continue
        for path in expand(pattern):
            paths += [str(path / name) for name in files_below(path)] if path.is_dir() else [str(path)]
    return paths


def expand_urls(pattern: str) -> list[str]:
    """The URLs of tar shards that a pattern with brace ranges names.

    Raises:
        ValueError: They are not tar shards.
    """
    urls = list(webdataset.expand(pattern))
    if other := [url for url in urls if not url.endswith(".tar")]:
        raise ValueError(f"{other[0]}: of remote files only tar shards (.tar) are read")
    return urls


def check_names(names: Iterable[str]) -> None:
    """Checks that names can be stored in a table.

    Raises:
        ValueError: A name is not UTF-8, as on disks that were written by old systems.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{name!r}: the name of this file is not UTF-8, so no table can hold it; rename it"
            ) from None


def find(patterns: Sequence[str]) -> Iterator[File]:
    """Yield each file that `resolve` returns; of a tar shard (`.tar`) the images in it. Nothing is decoded.

    Raises:
        FileNotFoundError: A path or pattern matches nothing, or a folder holds no image.
        ValueError: A tar shard is not a tar file, or a name leads out of it.
    """
    for path in resolve(patterns):
        if path.endswith(".tar"):
            yield from members(path)
        else:
            yield File(path, path, partial(read_file, path))


def members(shard: str | Path) -> Iterator[File]:
    """Yield the images in a tar file, which may be remote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a tar file, or a name leads out of it.
    """
    with _open(shard) as stream:
        places = image_members(stream, str(shard), Counter())
    for name, (offset, size) in places.items():
        yield File(f"{shard}/{name}", str(shard), partial(read_part, shard, offset, size))


def read_part(path: str | Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file, starting at the byte `offset`."""
    with _open(path) as stream:
        stream.seek(offset)
        return stream.read(size)


def _open(path: str | Path) -> IO[bytes]:
    if "://" not in str(path):
        return Path(path).open("rb")
    import fsspec

    opened: IO[bytes] = fsspec.open(str(path), "rb").open()
    return opened


def batches(
    files: Sequence[str] | Sequence[File],
    size: int,
    batch_size: int,
    skipped: Skipped,
    detection: Detection | None = None,
) -> Iterator[Batch]:
    """Yield all images, or the faces in them, as `size` × `size` pixels; raises what `find` raises.

    Args:
        files: Files, or names, folders, glob patterns or tar shards, which `find` finds.
        size: Side of the images in pixels, to which whole images and crops of faces are resized.
        batch_size: Images per batch; the last one may have fewer.
        skipped: Files that cannot be read or decoded, or in which no face is found, are added to it.
        detection: How faces are found and cropped; None: whole images are used.
    """
    yield from batched(read_images(files, size, 3 * batch_size, skipped, detection), batch_size)


def read_images(
    files: Sequence[str] | Sequence[File],
    size: int | None,
    ahead: int,
    skipped: Skipped,
    detection: Detection | None = None,
) -> Generator[tuple[Source, Pixels], None, None]:
    """Yield all images, or the faces in them, one by one; see `batches`.

    Args:
        files: As for `batches`.
        size: Side of the images in pixels; None: each as it is.
        ahead: Files that are decoded before their turn.
        skipped: As for `batches`.
        detection: As for `batches`.
    """
    if detection is None:
        yield from images_of(files, partial(_load_image, size), ahead, skipped)
        return
    finder = FaceFinder(detection)
    with opencv_in_one_thread():
        yield from images_of(files, partial(_load_faces, size, finder), ahead, skipped)


def _load_image(size: int | None, name: str, image_HW3: Pixels) -> Loaded:
    return Loaded(name, [(Source(name), image_HW3 if size is None else resize(image_HW3, size))])


def _load_faces(size: int | None, finder: FaceFinder, name: str, photo_HW3: Pixels) -> Loaded:
    found = finder(photo_HW3)
    faces = [
        (
            Source(name, number, crop.face, crop.transform_23),
            crop.pixels_HW3 if size is None else resize(crop.pixels_HW3, size),
        )
        for number, crop in enumerate(found.crops)
    ]
    return Loaded(name, faces, no_face=found.reason)


def images_of(
    files: Sequence[str] | Sequence[File], load: Callable[[str, Pixels], Loaded], ahead: int, skipped: Skipped
) -> Iterator[tuple[Source, Pixels]]:
    """Yield what `load` makes of the name and pixels of each file; several threads call it, `ahead` files at most."""

    def read(file: File) -> Loaded:
        try:
            return load(file.name, decode(file.read()))
        except (ImageError, OSError) as error:
            return Loaded(file.name, unreadable=str(error))

    found = (one for name in files for one in ([name] if isinstance(name, File) else find([name])))
    for loaded in map_ahead(read, found, ahead):
        skipped.add(loaded.name, loaded.unreadable, loaded.no_face)
        yield from loaded.images


def batched(images: Iterator[tuple[Source, Pixels]], batch_size: int) -> Iterator[Batch]:
    """Images of one size, `batch_size` at a time; the last batch may have fewer."""
    while some := list(islice(images, batch_size)):
        yield batch_of(some)


def batch_of(images: Sequence[tuple[Source, Pixels]]) -> Batch:
    """Images (size, size, 3) of one size as a batch."""
    import torch  # not at the start of `fra faces`, which needs no network of torch

    sources, pixels = zip(*images, strict=True)
    return Batch(list(sources), torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))


def columns(sources: Sequence[Source]) -> dict[str, list[Any]]:
    """The columns of a table with one row per source.

    Returns:
        `image`; of faces also `face` (its number in the image), `box` (left, top, width, height, in pixels of the
        upright image) and `score`.
    """
    names = {"image": [source.name for source in sources]}
    found = [source.face for source in sources if source.face is not None]
    if not found:
        return names
    return names | {
        "face": [source.number for source in sources],
        "box": [face.box for face in found],
        "score": [face.score for face in found],
    }
