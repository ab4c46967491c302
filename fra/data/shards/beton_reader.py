"""Reads single images of a beton without compiling a pipeline: for validation, not for training."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fra.data.ffcv import IMAGE_MODES, Reader


class BetonError(ValueError):
    """The file cannot be read as a beton; the message names the file and the reason."""


class Beton:
    """An open beton with the fields `image` and `index`.

    Raises:
        BetonError: The file is not a beton, or is truncated.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.reader = Reader(str(path))
            fields = dict(zip(self.reader.field_names, self.reader.metadata.dtype.names, strict=True))
            self.images = self.reader.metadata[fields["image"]]
            self.index: NDArray[np.int64] = np.asarray(self.reader.metadata[fields["index"]]).astype(np.int64)
            if absent := {"mode", "height", "width", "data_ptr"} - set(self.images.dtype.names or ()):
                raise ValueError(f"its field `image` holds no images: it lacks {', '.join(sorted(absent))}")
            if len(self.images) != self.reader.num_samples:
                raise ValueError(f"{len(self.images)} of {self.reader.num_samples} images are in it")
            self.content = np.memmap(path, dtype=np.uint8, mode="r")
        except Exception as error:  # FFCV's reader raises any exception on damaged bytes
            raise BetonError(f"{path}: not a readable beton: {error}") from error
        self.allocated = np.sort(np.asarray(self.reader.alloc_table), order="ptr")

    def __len__(self) -> int:
        return len(self.images)

    def size_at(self, pointer: int) -> int:
        """The number of bytes allocated at a position of the file; 0 where the allocation table has none."""
        entry = int(np.searchsorted(self.allocated["ptr"], pointer))
        found = entry < len(self.allocated) and self.allocated["ptr"][entry] == pointer
        return int(self.allocated["size"][entry]) if found else 0

    def pixels(self, place: int) -> NDArray[np.uint8]:
        """The image at `place` as it is stored: (H, W, 3), RGB.

        Raises:
            BetonError: Its bytes cannot be decoded, or have another size than recorded.
        """
        entry = self.images[place]
        pointer, height, width = int(entry["data_ptr"]), int(entry["height"]), int(entry["width"])
        stored = np.asarray(self.content[pointer : pointer + self.size_at(pointer)])
        if entry["mode"] != IMAGE_MODES["jpg"]:
            if stored.size != height * width * 3:
                raise BetonError(f"image {place} has {stored.size} bytes, not {height} x {width} x 3")
            return stored.reshape(height, width, 3)
        image = cv2.imdecode(stored, cv2.IMREAD_COLOR) if stored.size else None
        if image is None:
            raise BetonError(f"image {place} cannot be decoded")
        if image.shape[:2] != (height, width):
            raise BetonError(
                f"image {place} has {image.shape[0]} x {image.shape[1]} pixels, not {height} x {width}"
            )
        return cast("NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
