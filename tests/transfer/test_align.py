"""Aligned faces have eyes and mouth at the positions of the template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.labelled_set import Set

from fra.transfer import align


def test_eye_of_a_rotated_face_moves_to_the_template(rotated_faces: tuple[pd.DataFrame, Path]) -> None:
    frame, shards = rotated_faces
    aligned = align.read(frame, shards, 64, aligned=True)
    x, y = (64 * align.TEMPLATE[0]).astype(int)
    assert (aligned[:, y, x, 0] > 180).all()  # the white dot that was drawn on the eye
    plain = align.read(frame, shards, 64, aligned=False)
    assert (plain[:, y, x, 0] > 180).mean() < 0.5


@pytest.fixture
def rotated_faces(tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    from PIL import Image, ImageDraw

    from fra.data.shards.config import ShardConfig
    from fra.data.shards.write import write

    generator, rows = np.random.default_rng(1), []
    for number in range(6):
        angle, size, shift = (
            generator.uniform(-0.6, 0.6),
            generator.uniform(40, 60),
            generator.uniform(10, 30, 2),
        )
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        left, right, nose, mouth_left, mouth_right = (
            np.array([[0.29, 0.38], [0.71, 0.38], [0.5, 0.6], [0.4, 0.82], [0.6, 0.82]]) @ turn.T + shift
        )
        image = Image.new("RGB", (110, 130), (40, 40, 40))
        ImageDraw.Draw(image).ellipse([*(left - 4), *(left + 4)], fill="white")
        image.save(tmp_path / f"{number}.png")
        points = np.concatenate([left, right, nose, mouth_left, mouth_right]).tolist()
        about = {"key": str(number), "source": f"{number}.png", "split": "test", "person": str(number)}
        rows.append(about | {"bytes": None, "modified": None, "landmarks": points})
    shards, manifest = tmp_path / "shards", tmp_path / "manifest.parquet"
    state = tmp_path / "state"
    return write(pd.DataFrame(rows), tmp_path, shards, manifest, ShardConfig(workers=1), state), shards


def test_images_without_landmarks_are_only_resized(faces: Set) -> None:
    from fra.transfer.align import read

    frame = pd.read_parquet(faces.manifest).head(3)
    frame["landmarks"] = None
    assert np.array_equal(
        read(frame, faces.shards, 32, aligned=True), read(frame, faces.shards, 32, aligned=False)
    )


def test_unsupported_number_of_landmarks_is_refused() -> None:
    with pytest.raises(ValueError, match="by 21 landmarks"):
        align.centres(np.zeros((21, 2)))
