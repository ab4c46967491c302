"""Recall and precision of the rules of `fra curate` on planted faults."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fra.bench.scenes import background
from fra.data.images import decode, read_file, to_jpeg
from fra.faces.detect import Pixels
from fra.gallery.curation import Rule
from fra.gallery.curation.suggest import curate
from fra.gallery.embed import embed
from fra.inference.image_files import find

KINDS = ("compressed", "half size", "brighter", "cropped", "all four")
"""How copies differ from their original."""
PHOTOGRAPHS = {
    "skimage": "data/brick.png data/chelsea.png data/clock_motion.png data/coffee.png data/coins.png data/grass.png "
    "data/gravel.png data/horse.png data/hubble_deep_field.jpg data/ihc.png data/moon.png data/motorcycle_left.png "
    "data/page.png data/retina.jpg data/rocket.jpg data/text.png",
    "sklearn": "datasets/images/china.jpg datasets/images/flower.jpg",
}
"""Photographs without a face in Python packages."""
SIDE = 112
"""Side of the pictures without a face."""


def copy_of(image_HW3: Pixels, kind: str, generator: np.random.Generator) -> Pixels:
    """A near-duplicate: JPEG quality 30; half the sides; 15 % brighter; a random 92 % of the sides; or all of these.

    "all four" is a crop of 95 % of the sides, and JPEG quality 60.
    """
    height, width = image_HW3.shape[:2]
    copy = image_HW3
    if kind in ("cropped", "all four"):
        share = 0.92 if kind == "cropped" else 0.95
        size = np.array([round(share * height), round(share * width)])
        top, left = (int(value) for value in generator.integers(0, [height, width] - size + 1))
        copy = np.ascontiguousarray(copy[top : top + size[0], left : left + size[1]])
    if kind in ("half size", "all four"):
        copy = np.asarray(cv2.resize(copy, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)
    if kind in ("brighter", "all four"):
        copy = np.clip(copy * 1.15 + 5, 0, 255).astype(np.uint8)
    if kind in ("compressed", "all four"):
        quality = [cv2.IMWRITE_JPEG_QUALITY, 30 if kind == "compressed" else 60]
        copy = decode(cv2.imencode(".jpg", copy[:, :, ::-1], quality)[1].tobytes())
    return copy


@lru_cache(maxsize=1)
def photographs() -> list[Pixels]:
    """Photographs of textures, objects and animals."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"the photographs without a face need {package}: pip install scikit-image"
            )
        found += [decode(read_file(Path(spec.origin).parent / name)) for name in names.split()]
    return found


def non_face(number: int, generator: np.random.Generator) -> Pixels:
    """A grey picture without a face: of ten four crops of photographs, three scenes, three patterns."""
    kind = number % 10
    if kind < 4:
        images = photographs()
        image = images[int(generator.integers(len(images)))]
        height, width = image.shape[:2]
        side = int(generator.integers(min(height, width) // 3, min(height, width) + 1))
        top, left = (int(value) for value in generator.integers(0, [height - side + 1, width - side + 1]))
        image = image[top : top + side, left : left + side]
    elif kind < 7:
        image = background(2 * SIDE, 2 * SIDE, generator)
    elif kind == 7:
        cells = int(generator.integers(3, 60))
        noise = generator.integers(0, 256, (cells, cells, 3), np.uint8)
        image = np.asarray(cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)
    else:
        x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
        waves = (
            x * generator.normal() + y * generator.normal() + (kind - 8) * 20 * generator.random((SIDE, SIDE))
        )
        image = np.repeat(
            (127 + 127 * np.sin(waves / generator.uniform(1, 6))).astype(np.uint8)[..., None], 3, 2
        )
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.repeat(np.asarray(small, np.uint8)[:, :, None], 3, axis=2)


def write_planted(
    faces: Sequence[str], folder: Path, copies: int, others: int, flipped: float, seed: int = 0
) -> pd.DataFrame:
    """Writes faces with planted faults; returns key, label and what was planted.

    The label of an image file is the name of its folder; images in tar files have none.
    """
    generator = np.random.default_rng(seed)
    rows: list[dict[str, str]] = []
    images: list[Pixels] = []

    def save(key: str, image_HW3: Pixels, label: str = "", planted: str = "", kind: str = "") -> None:
        path = folder / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_jpeg(image_HW3))
        rows.append({"key": key, "label": label, "planted": planted, "kind": kind})

    for number, file in enumerate(find(faces)):
        images.append(decode(file.read()))
        place = Path(file.name)
        label = "" if ".tar/" in file.name else place.parent.name
        save(f"{label}/{place.stem}" if label else f"unlabelled/{number:06d}", images[-1], label)
    persons = sorted({row["label"] for row in rows if row["label"]})
    labelled = [number for number, row in enumerate(rows) if row["label"]]
    for number in generator.permutation(labelled)[: round(flipped * len(labelled))]:
        wrong = [person for person in persons if person != rows[number]["label"]]
        rows[number] |= {"label": str(generator.choice(wrong)), "planted": "label"}
    for number, chosen in enumerate(generator.choice(len(images), copies, replace=copies > len(images))):
        kind = KINDS[number % len(KINDS)]
        save(f"zcopy/{number:03d}", copy_of(images[chosen], kind, generator), planted="copy", kind=kind)
    for number in range(others):
        save(f"zother/{number:03d}", non_face(number, generator), planted="non-face")
    return pd.DataFrame(rows)


def examine(
    faces: Sequence[str],
    weights: Path,
    copies: int = 200,
    others: int = 100,
    flipped: float = 0.05,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Recall and precision of the rules duplicates, outliers and labels, at their default thresholds.

    Duplicates among the planted pictures without a face are not counted.
    """
    cases: list[tuple[Rule, str, bool]] = [
        ("duplicates", "copy", True),
        ("duplicates", "copy", False),
        ("outliers", "non-face", True),
        ("outliers", "non-face", False),
        ("labels", "label", False),
    ]
    with tempfile.TemporaryDirectory(prefix="fra-bench-") as name:
        folder, labels, gallery = Path(name) / "faces", Path(name) / "labels.csv", Path(name) / "g.arrow"
        planted = write_planted(faces, folder, copies, others, flipped, seed).set_index("key")
        planted.loc[planted["label"] != "", ["label"]].to_csv(labels)
        embed([str(folder)], weights, gallery)
        rows = []
        for rule, kind, pixels in cases:
            if rule == "labels" and planted["label"].nunique() < 3:
                continue
            found = curate(gallery, rule, labels=labels, root=folder, pixels=pixels).table
            suggested = set(found.loc[found["suggested"], "key"])
            wanted = set(planted.index[planted["planted"] == kind])
            if rule == "duplicates":
                suggested -= set(planted.index[planted["planted"] == "non-face"])
            hits = suggested & wanted
            rows.append(
                {
                    "rule": rule if rule == "labels" or pixels else f"{rule} --no-pixels",
                    "planted": len(wanted),
                    "suggested": len(suggested),
                    "recall": len(hits) / max(len(wanted), 1),
                    "precision": len(hits) / max(len(suggested), 1),
                    "missed": planted.loc[sorted(wanted - hits), "kind"].value_counts().to_dict(),
                    "others": sorted(suggested - wanted),
                }
            )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows of `examine` as a table."""
    lines = ["| Rule | Planted | Suggested | Recall | Precision |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        shares = f"{100 * row['recall']:.1f} % | {100 * row['precision']:.1f} %"
        lines.append(f"| {row['rule']} | {row['planted']} | {row['suggested']} | {shares} |")
    return "\n".join(lines)
