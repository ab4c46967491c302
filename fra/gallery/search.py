"""Search for the images of a gallery that are nearest to a face."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from fra.data.images import ImageError, decode, read_file
from fra.faces.crop import CropKind
from fra.faces.detect import Face, Pixels
from fra.files import sha256
from fra.gallery.exact import by_comparison
from fra.gallery.files import Gallery, Match, read
from fra.gallery.neighbours import OpenIndex, by_index, mean_of, open_index, unit
from fra.inference.detection import Detection, FaceFinder
from fra.weights import released


@dataclass(frozen=True)
class Result:
    """What was found for one face of a query.

    Attributes:
        image: The query.
        query: The face that was compared: pixels (H, W, 3) of the whole image or a crop, or an entry of the gallery.
        face: Where it was found in the image; None where the whole image or an entry is used.
        matches: The most similar images of the gallery, the most similar first.
    """

    image: Path
    query: Pixels | Match
    face: Face | None
    matches: list[Match]

    @property
    def box(self) -> list[float] | None:
        """Left, top, width and height of the face in the image; None where the image is one face."""
        if isinstance(self.query, Match):
            return self.query.box
        return None if self.face is None else [float(value) for value in self.face.box]

    def as_json(self) -> dict[str, Any]:
        """The query, its box and the matches as plain values."""
        box = self.box
        return {"image": str(self.image), "box": box, "matches": [one._asdict() for one in self.matches]}


def search_images(
    images: Sequence[Path],
    gallery: Path,
    weights: Path,
    count: int = 5,
    detect: bool = False,
    kind: CropKind | None = None,
    *,
    batch_size: int = 64,
    device: str = "auto",
) -> list[Result]:
    """Return the images of the gallery that are most similar to each of several faces.

    Similarity is the cosine of embeddings minus the gallery's mean, which all faces share. The index of the gallery is
    used where `fra index` has written one.

    Args:
        images: Images of a face each, or photographs with `detect`.
        gallery: Embeddings that `embed` wrote, of faces that were found or of images that each show one face.
        weights: The weights that the gallery was made with.
        count: Images of the gallery for each face.
        detect: Whether faces are found in the images first; the largest face of an image comes first.
        kind: How found faces are cropped; None: as those of the gallery, or "box" where it has whole images.
        batch_size: Images per batch of the network.
        device: "cpu", "cuda" or "auto".

    Raises:
        FileNotFoundError: An image, the gallery or the weights are missing.
        ValueError: An image cannot be decoded or shows no face, or the gallery was made with other weights or crops.
    """
    photos = [read_query(image) for image in images]
    known = read_gallery(gallery, weights)
    faces: list[tuple[Path, Pixels, Face | None]] = [
        (image, photo_HW3, None) for image, photo_HW3 in zip(images, photos, strict=True)
    ]
    if detect:
        if kind is not None and known.crop not in (None, kind):
            raise ValueError(f"{gallery} was made with the crop {known.crop!r}: use the same for the query")
        finder = FaceFinder(Detection(kind or known.crop or "box"))
        faces = [face for image, photo, _ in faces for face in _faces_in(image, photo, finder)]
    pixels = [pixels_HW3 for _, pixels_HW3, _ in faces]
    index = open_index(gallery)
    near = nearest(pixels, known, weights, count, index, batch_size=batch_size, device=device)
    return [Result(*face, matches) for face, matches in zip(faces, near, strict=True)]


def _faces_in(image: Path, photo_HW3: Pixels, finder: FaceFinder) -> list[tuple[Path, Pixels, Face | None]]:
    found = finder(photo_HW3)
    if found.reason is not None:
        raise ValueError(f"{image}: {found.reason}")
    return [(image, crop.pixels_HW3, crop.face) for crop in found.crops]


def search_entries(names: Sequence[str], gallery: Path, count: int = 5) -> list[Result]:
    """Return what is most similar to entries of a gallery, themselves included, without images, weights or PyTorch.

    Args:
        names: Names of images in the gallery. Where faces were found in images, all faces of an image are queries.
        gallery: Embeddings that `embed` wrote.
        count: Images of the gallery for each query.

    Raises:
        FileNotFoundError: The gallery is missing.
        ValueError: It has no image of that name, or another content.
    """
    known, index = read(gallery), open_index(gallery)
    rows = [row for name in names for row in rows_of(name, known, gallery)]
    mean_D = mean_of(known) if index is None else index.mean_D
    embedding_QD = np.stack([known.embedding_D(row) for row in rows])
    near = nearest_rows(embedding_QD, mean_D, known, count, index)
    entries = [known.match(row, 1.0) for row in rows]
    return [Result(Path(one.name), one, None, matches) for one, matches in zip(entries, near, strict=True)]


def rows_of(name: str, known: Gallery, gallery: Path) -> list[int]:
    """The rows of an image in the gallery that was read from `gallery`.

    Raises:
        ValueError: There is none.
    """
    names = known.rows["image"]
    like = pc.indices_nonzero(
        pc.starts_with(names, name)
    )  # `pc.equal` converts the name, for which it imports pandas
    rows = [row for row in like.to_pylist() if names[row].as_py() == name]
    if not rows:
        first = names[0].as_py()
        raise ValueError(f"{gallery} has no image {name}: its names are like {first}")
    return rows


def read_query(image: Path) -> Pixels:
    """The pixels of a query.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The image cannot be decoded.
    """
    if not image.is_file():
        raise FileNotFoundError(f"{image}: no such image file")
    try:
        return decode(read_file(image))
    except ImageError as error:
        raise ValueError(f"{image}: {error}") from None


def read_gallery(gallery: Path, weights: Path) -> Gallery:
    """The gallery of a file.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file has another content, or was made with other weights.
    """
    known = read(gallery)
    if known.weights != sha256(released.find(weights)):
        raise ValueError(
            f"{gallery} was made with other weights than {weights} (SHA-256 {known.weights[:12]}…): "
            "use those weights, or embed the gallery again"
        )
    return known


def nearest(
    queries: Sequence[Pixels],
    known: Gallery,
    weights: Path,
    count: int,
    index: OpenIndex | None = None,
    *,
    batch_size: int = 64,
    device: str = "auto",
) -> list[list[Match]]:
    """The entries of the gallery that are most similar to each query, the most similar first.

    Args:
        queries: Pixels of faces.
        known: The gallery.
        weights: The weights that the gallery was made with.
        count: Entries for each query.
        index: The gallery's index; None: each query is compared with all entries.
        batch_size: Queries per batch of the network.
        device: "cpu", "cuda" or "auto".
    """
    with ThreadPoolExecutor(1) as pool:
        mean = pool.submit(lambda: mean_of(known) if index is None else index.mean_D)
        from fra.dist import choose_device
        from fra.inference.encoder import load  # imports PyTorch, meanwhile

        encoder = load(weights).to(choose_device(device))
        embedding_QD = encoder.embed(queries, batch_size).cpu().numpy()
    return nearest_rows(embedding_QD, mean.result(), known, count, index)


def nearest_rows(
    embedding_QD: NDArray[np.float32],
    mean_D: NDArray[np.float32],
    known: Gallery,
    count: int,
    index: OpenIndex | None,
) -> list[list[Match]]:
    """The entries of a gallery with mean `mean_D` that are most similar to each embedding (see `nearest`)."""
    args = (known, unit(embedding_QD - mean_D), count)
    found = by_comparison(*args, mean_D) if index is None else by_index(index, *args)
    return [
        [known.match(row, cosine) for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)]
        for rows, cosines in zip(*found, strict=True)
    ]
