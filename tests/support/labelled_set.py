"""A miniature labelled set as the stages before transfer write it: shards, manifest, and weights of a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.method.backbone import build
from fra.transfer.config import TransferConfig
from fra.transfer.evaluate import Evaluation, evaluate
from fra.weights.files import save_weights

PEOPLE, IMAGES, WIDTH, HEIGHT = 20, 8, 40, 48


class Set(NamedTuple):
    manifest: Path
    shards: Path
    backbone: Path


def draw(person: int, smiling: int, glasses: int, corner: NDArray[np.float64]) -> Image.Image:
    """Draw a "face": colours of the person, a template at `corner`, a bright mouth, dark glasses."""
    generator = np.random.default_rng([7, person])
    pixels = np.full((HEIGHT, WIDTH, 3), 90.0)
    x, y = corner.astype(int)
    pixels[y : y + 30, x : x + 26] = generator.uniform(100, 200, 3)
    pixels[y + 4 : y + 8, x + 4 : x + 22] = 20 if glasses else generator.uniform(100, 200, 3)
    pixels[y + 20 : y + 26, x + 6 : x + 20] = 255 if smiling else 60
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Set:
    root = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(0)
    template = generator.uniform(0, 25, (68, 2))
    template[[36, 45]] = [(4, 6), (22, 6)]
    rows = []
    for person in range(PEOPLE):
        for number in range(IMAGES):
            smiling, glasses = (int(value) for value in generator.integers(2, size=2))
            corner = generator.uniform(0, [13, 17])
            source = f"p{person:02d}_{number}.png"
            draw(person, smiling, glasses, corner).save(root / source)
            rows.append(
                {
                    "key": source.removesuffix(".png"),
                    "source": source,
                    "split": "train" if person < 12 else "val" if person < 15 else "test",
                    "person": f"p{person:02d}",
                    "bytes": None,
                    "modified": None,
                    "label.Smiling": None if number == 0 and person % 4 == 0 else smiling,
                    "label.Eyeglasses": glasses,
                    "measure.gaze_pitch": round(corner[1] - 8),
                    "measure.gaze_yaw": round(2 * corner[0] - 13),
                    "landmarks": (template + corner).ravel().tolist(),
                }
            )
    records = pd.DataFrame(rows).astype({"label.Smiling": "Int64", "label.Eyeglasses": "Int64"})
    config = ShardConfig(images_per_shard=60, workers=1)
    write(records, root, root / "shards", root / "manifest.parquet", config, root / "state")
    torch.manual_seed(11)
    description = {
        "contents": "backbone",
        "backbone": "small",
        "image_size": 32,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    save_weights(root / "backbone.safetensors", build("small").state_dict(), description)
    return Set(root / "manifest.parquet", root / "shards", root / "backbone.safetensors")


LABELS = {
    "attributes": ("Smiling", "Eyeglasses"),
    "action_units": ("Eyeglasses",),
    "direction": ("gaze_yaw", "gaze_pitch"),
    "actions": ("gaze_yaw",),
}


def evaluated(
    task: str,
    faces: Set,
    out: Path,
    manifest: Path | None = None,
    quarantined: frozenset[str] = frozenset(),
    **settings: Any,
) -> Evaluation:
    """Evaluate the set's backbone on one task."""
    cache = str(faces.manifest.parent / "cache")
    config = TransferConfig(**{"seeds": 2, "labels": LABELS, "cache": cache} | settings)
    return evaluate(task, config, manifest or faces.manifest, faces.shards, faces.backbone, out, quarantined)


def run(task: str, faces: Set, out: Path, **settings: Any) -> dict[str, Any]:
    """Evaluate the set's backbone on one task, and return the content of metrics.json; see `evaluated`."""
    return evaluated(task, faces, out, **settings).summary
