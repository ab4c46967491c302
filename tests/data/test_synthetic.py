"""The labelled synthetic faces: what is drawn here must be what was annotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.workspace import ROOT

from fra.data.datasets.adapters import generated, synthetic
from fra.data.datasets.facial_actions import facial_actions, without_pose
from fra.data.datasets.records import DatasetConfig

CONFIG = DatasetConfig("synthetic", "synthetic")


@pytest.fixture(scope="module")
def first_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first annotated block, as `fetch` draws it."""
    raw = tmp_path_factory.mktemp("synthetic")
    generated.fetch(raw, DatasetConfig("synthetic", "generated", images=generated.BLOCK, seed=9000))
    return raw


@pytest.fixture
def one_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first_block: Path) -> Path:
    """A set of a single block, with its part of the annotations; the folder of the repository is not changed."""
    monkeypatch.chdir(ROOT)
    thumbnails = pd.read_csv(synthetic.ANNOTATIONS / "thumbnails.csv").query("block == 0")
    table = pd.read_parquet(synthetic.ANNOTATIONS / "annotations.parquet").query("block == 0")
    thumbnails.to_csv(tmp_path / "thumbnails.csv", index=False)
    table.to_parquet(tmp_path / "annotations.parquet")
    monkeypatch.setattr(synthetic, "ANNOTATIONS", tmp_path)
    monkeypatch.setattr(synthetic, "BLOCKS", DatasetConfig("synthetic", "generated", images=250, seed=9000))
    for name, value in (("FACES", len(table)), ("TRAIN", 100), ("VAL", 50)):
        monkeypatch.setattr(synthetic, name, value)
    return first_block


def test_annotated_faces_are_listed_with_all_labels(one_block: Path) -> None:
    synthetic.fetch(one_block, CONFIG)
    records = list(synthetic.records(one_block, CONFIG))
    assert len(records) == synthetic.FACES == 228
    assert [record.split for record in records] == ["train"] * 100 + ["val"] * 50 + ["test"] * 78
    first = records[0]
    assert first.name == "9000-000000/000001.jpg"
    assert first.span is not None
    assert len(first.landmarks or ()) == 136
    assert first.labels == {"Mouth_Slightly_Open": 0}
    assert first.measures["yaw"] == pytest.approx(42.7)
    assert "Mouth_Slightly_Open" not in records[4].labels  # between open and closed
    assert set(first.measures) == {"yaw", "pitch", *facial_actions(faces()[:1]).columns}


def test_other_faces_than_the_annotated_ones_are_refused(one_block: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    pixels = np.stack(list(synthetic.read_block(one_block / "9000-000000.tar", generated.BLOCK)))
    generated.write_block(pixels[::-1], tmp_path / "raw/9000-000000.tar")
    with pytest.raises(
        ValueError, match=r"9000-000000\.tar: not the faces that were annotated: .* differ by \d\d"
    ):
        synthetic.fetch(tmp_path / "raw", CONFIG)


def test_rounding_is_no_difference(one_block: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    pixels = np.stack(list(synthetic.read_block(one_block / "9000-000000.tar", generated.BLOCK))).astype(int)
    rounded = np.clip(pixels + np.random.default_rng(0).integers(-2, 3, pixels.shape), 0, 255)
    generated.write_block(rounded.astype(np.uint8), tmp_path / "raw/9000-000000.tar")
    synthetic.fetch(tmp_path / "raw", CONFIG)


def test_an_incomplete_table_of_annotations_is_refused(
    one_block: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "FACES", 7319)
    with pytest.raises(ValueError, match=r"annotations\.parquet: 228 rows instead of 7,319: restore it"):
        list(synthetic.records(one_block, CONFIG))


def faces() -> np.ndarray:
    table = pd.read_parquet(ROOT / "data/synthetic/annotations.parquet")
    coordinates = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    return table[coordinates].to_numpy(float).reshape(-1, 68, 2)


def test_facial_actions_rise_with_what_they_are_named_after() -> None:
    face = faces()[:50]
    changes = {
        "brow_raise": (slice(17, 27), [0, -1]),
        "lip_corner_pull": ([48, 54], [0, -1]),
        "jaw_drop": ([8], [0, 2]),
        "mouth_width": ([54], [2, 0]),
    }
    for name, (points, shift) in changes.items():
        level = face.copy()
        level[:, 36:48, 1] = level[:, 36:48, 1].mean(axis=1, keepdims=True)  # not turned, so that up is up
        moved = level.copy()
        moved[:, points] += shift
        difference = facial_actions(moved) - facial_actions(level)
        assert (difference[name] > 0).all(), name
        assert (difference.drop(columns=name).abs() < 1e-9).all().all(), name


def test_facial_actions_do_not_depend_on_roll_size_and_place() -> None:
    face, angle = faces()[:50], 0.3
    turned = face @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pd.testing.assert_frame_equal(facial_actions(face), facial_actions(3 * turned + 7), rtol=1e-9)


def test_pose_is_removed_from_facial_actions() -> None:
    table = pd.read_parquet(ROOT / "data/synthetic/annotations.parquet")
    yaw_N, pitch_N = table[["yaw", "pitch"]].to_numpy(float).T
    before = facial_actions(faces())
    after = without_pose(before, yaw_N, pitch_N, slice(4000))[4000:]
    assert before["jaw_drop"].corr(table["pitch"].astype(float)) < -0.8
    for part in (table["yaw"], table["yaw"].abs(), table["pitch"]):
        assert after.corrwith(part.astype(float)[4000:]).abs().max() < 0.06
