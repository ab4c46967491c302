"""The pixels of the images, or faces in images, that a gallery lists."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from fra.data.images import ImageError, decode, read_file
from fra.faces.config import FacesConfig
from fra.faces.crop import box_transform, crop
from fra.faces.detect import Pixels
from fra.gallery.files import Gallery
from fra.inference.image_files import members
from fra.parallel import map_ahead, opencv_in_one_thread

T = TypeVar("T")
Box = tuple[float, float, float, float]
AHEAD = 64
"""Images that are decoded before their turn."""
Content = Callable[[], bytes]


def map_pixels(
    see: Callable[[Pixels], T], rows: Iterable[tuple[str, Box | None]]
) -> Generator[T | ImageError, None, None]:
    """Yield what `see` returns for each row of a gallery, or the reason why its image cannot be read.

    Args:
        see: Called by several threads, with an image or with the square around the face in it.
        rows: The name of the image, and the box of the face, or None where the image is one. An image, and a tar shard,
            is read once for all rows that follow each other.
    """
    images = ((name, [box for _, box in group]) for name, group in groupby(rows, key=lambda row: row[0]))
    with (
        opencv_in_one_thread(),
        closing(map_ahead(partial(_see, see), with_content(images), AHEAD)) as results,
    ):
        for result in results:
            yield from result


def _see(
    see: Callable[[Pixels], T], image: tuple[str, list[Box | None], Content]
) -> Sequence[T | ImageError]:
    _, boxes, read = image
    try:
        photo_HW3 = decode(read())
    except (ImageError, OSError) as error:
        return [ImageError(str(error))] * len(boxes)
    return [see(photo_HW3 if box is None else crop_box(photo_HW3, box)) for box in boxes]


def with_content(
    images: Iterable[tuple[str, list[Box | None]]],
) -> Iterator[tuple[str, list[Box | None], Content]]:
    """Yield each image with a function that reads it; of a tar shard each is opened once for all its images."""
    opened, contents, problem = "", dict[str, Content](), ""
    for name, boxes in images:
        shard, inside, _ = name.partition(".tar/")
        shard += ".tar"
        if not inside or not Path(shard).is_file():
            yield name, boxes, partial(read_file, name)
            continue
        if opened != shard:
            opened, contents, problem = shard, {}, f"{shard} has no such image"
            try:
                contents = {file.name: file.read for file in members(Path(shard))}
            except (OSError, ValueError) as error:
                problem = str(error)
        yield name, boxes, contents.get(name, partial(_unreadable, problem))


def _unreadable(reason: str) -> bytes:
    raise ImageError(reason)


def crop_box(photo_HW3: Pixels, box: Box) -> Pixels:
    """The square around a face, with the default margin of `fra faces`."""
    defaults = FacesConfig()
    return crop(photo_HW3, box_transform(box, defaults.size, defaults.margin), defaults.size)


def seen(gallery: Gallery, rows: Sequence[int], see: Callable[[Pixels], T], title: str) -> list[T]:
    """What `see` returns for the image of each row, or for the square around the face in it.

    Args:
        gallery: Names of images, and boxes where faces were found in them.
        rows: Numbers of rows, in ascending order.
        see: Called by several threads.
        title: Of the progress bar.

    Raises:
        ValueError: An image cannot be read.
    """
    chosen = gallery.rows.select([name for name in ("image", "box") if name in gallery.rows.column_names])
    listed = chosen.take(list(rows)).to_pydict()
    places = list(zip(listed["image"], listed.get("box", [None] * len(rows)), strict=True))
    found: list[T] = []
    with (
        closing(map_pixels(see, places)) as results,
        tqdm(total=len(rows), desc=title, unit="image", mininterval=1, disable=None) as bar,
    ):
        for (name, _), result in zip(places, results, strict=True):
            if isinstance(result, ImageError):
                raise ValueError(
                    f"{name}: cannot be read ({result}); without pixels, embeddings alone are used"
                )
            found.append(result)
            bar.update()
    return found
