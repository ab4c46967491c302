"""Pictures for benchmarks, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def made_up_faces(root: Path, count: int, side: int = 200) -> None:
    """JPEG files of about the size of a face's, `side` pixels square, in 10 folders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + generator.normal(0, 6, (side, side, 1)).astype(np.int16)).clip(0, 255)
        path = root / f"{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.astype(np.uint8)).save(path, quality=90)
