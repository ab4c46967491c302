"""The pixels of the images, or faces in images, that a gallery lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from fra.inference.detection import opencv_in_one_thread
from fra.inference.image_files import members
from fra.parallel import map_ahead

T = TypeVar("T")
Box = tuple[float, float, float, float]
AHEAD = 64
"""Images that are decoded before their turn."""
Content = Callable[[], bytes]


def with_content(
    images: Iterator[tuple[str, list[Box | None]]],
) -> Iterator[tuple[str, list[Box | None], Content]]:
    """Yield each image with a function that reads it; of a tar shard each is opened once for all its images."""
    opened: tuple[str, dict[str, Content]] = ("", {})
    for name, boxes in images:
        shard, inside, _ = name.partition(".tar/")
        shard += ".tar"
        if not inside or not Path(shard).is_file():
            yield name, boxes, partial(read_file, name)
            continue
        if opened[0] != shard:
            opened = (shard, {file.name: file.read for file in members(Path(shard))})
        yield name, boxes, opened[1].get(name, partial(read_file, name))


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
    pairs = zip(listed["image"], listed.get("box", [None] * len(rows)), strict=True)
    images = ((name, [box for _, box in group]) for name, group in groupby(pairs, key=lambda pair: pair[0]))
    found: list[T] = []
    with (
        opencv_in_one_thread(),
        closing(map_ahead(partial(_see, see), with_content(images), AHEAD)) as results,
        tqdm(total=len(rows), desc=title, unit="image", mininterval=1, disable=None) as bar,
    ):
        for result in results:
            found += result
            bar.update(len(result))
    return found


def _see(see: Callable[[Pixels], T], image: tuple[str, list[Box | None], Content]) -> list[T]:
    name, boxes, read = image
    try:
        photo_HW3 = decode(read())
    except (ImageError, OSError) as error:
        raise ValueError(f"{name}: cannot be read ({error}); --no-pixels uses embeddings alone") from None
    return [see(photo_HW3 if box is None else crop_box(photo_HW3, box)) for box in boxes]
