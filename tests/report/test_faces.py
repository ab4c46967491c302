from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fra.data.views.config import ViewsConfig
from fra.inference import encoder as inference
from fra.inference.drawing import average_face
from fra.report import faces

from .conftest import HEIGHT, MASKS, WIDTH, write_pretrain


@pytest.fixture(scope="module")
def manifest(artifacts: dict[str, Any]) -> pd.DataFrame:
    return pd.read_parquet(artifacts["manifest"])


def draw(artifacts: dict[str, Any], manifest: pd.DataFrame, views: dict[str, Any] | None) -> faces.Regions:
    encoder = inference.load(artifacts["pretrain"] / "model.safetensors")
    return faces.draw_regions(encoder, manifest, artifacts["shards"], views)


def test_faces_are_of_test_people(artifacts: dict[str, Any], manifest: pd.DataFrame) -> None:
    drawn = draw(artifacts, manifest, asdict(ViewsConfig()))
    assert [face.key for face in drawn.faces] == [f"p{person:02d}/0" for person in range(6, 12)]
    face = drawn.faces[0]
    assert (len(face.whole), len(face.views)) == (2, 4)
    assert face.whole[0].height == round(faces.WIDTH * HEIGHT / WIDTH)
    assert len({picture.source for picture in (*face.whole, *face.views)}) == 6


def test_shares_of_the_legend_are_of_all_pixels(artifacts: dict[str, Any], manifest: pd.DataFrame) -> None:
    drawn = draw(artifacts, manifest, None)
    numbers = [mask.number for mask in drawn.masks] + drawn.unused
    assert sorted(numbers) == list(range(MASKS))
    shares = [int(mask.share.removesuffix("\u00a0%")) for mask in drawn.masks]
    assert shares == sorted(shares, reverse=True)
    assert 98 <= sum(shares) <= 102
    assert not any(face.views for face in drawn.faces)


def test_the_average_face_of_a_mask_is_of_the_faces_that_have_it() -> None:
    faces_NHW3 = np.stack([np.full((1, 3, 3), value, np.uint8) for value in (10, 30, 50, 70)])
    has_mask_NHW = np.array([[[1, 0, 0]], [[1, 1, 0]], [[1, 0, 0]], [[1, 0, 0]]], bool)
    assert average_face(faces_NHW3, has_mask_NHW)[0, :, 0].tolist() == [40, (30 + 128) / 2, 128]


def test_shares_of_masks_are_of_the_faces_with_a_label() -> None:
    rows = pd.DataFrame(
        {
            "label.Wears_Hat": pd.array([0] * 5 + [1] * 6 + [None], "Int64"),
            "label.rare": pd.array([0] * 8 + [1] * 4, "Int64"),
            "group.angle": [0.5] * 6 + [1.0] * 6,
        }
    )
    labels_NHW = np.zeros((12, 2, 2), int)
    labels_NHW[5:11, 0, 0] = 1
    labels_NHW[11] = 2
    table = faces.mask_shares(rows, labels_NHW, [0, 1])
    assert table is not None
    assert table.columns == ["Faces with", "Number", "Mask 0", "Mask 1"]
    assert table.rows[:2] == [["Wears Hat = 0", "5", "100.0", "0.0"], ["Wears Hat = 1", "6", "75.0", "25.0"]]
    assert [row[0] for row in table.rows[2:]] == ["angle = 0.5", "angle = 1"]
    assert faces.mask_shares(rows[["label.rare"]], labels_NHW, [0]) is None


def test_same_weights_give_the_same_pictures(artifacts: dict[str, Any], manifest: pd.DataFrame) -> None:
    views = asdict(ViewsConfig())
    assert draw(artifacts, manifest, views) == draw(artifacts, manifest, views)


def test_unknown_view_parameters_are_one_error_that_names_them(
    artifacts: dict[str, Any], manifest: pd.DataFrame
) -> None:
    with pytest.raises(
        ValueError,
        match=r"^the recorded parameters of the views are not valid: swirl: Unexpected keyword argument$",
    ):
        draw(artifacts, manifest, {"swirl": 1})


def test_a_model_without_region_branch_is_an_error(
    artifacts: dict[str, Any], manifest: pd.DataFrame, tmp_path: Path
) -> None:
    write_pretrain(tmp_path, masks=1)
    encoder = inference.load(tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="region branch"):
        faces.draw_regions(encoder, manifest, artifacts["shards"], None)


def test_worst_faces_are_first_without_repetition_then_typical_ones(
    artifacts: dict[str, Any], manifest: pd.DataFrame
) -> None:
    test = faces.held_out(manifest).head(8)
    truth = np.stack(test["landmarks"].to_list())
    eyes = np.linalg.norm(truth[:, 72:74] - truth[:, 90:92], axis=1)
    fits = []
    for seed in range(2):  # every landmark of image i is off by (i + seed / 2) hundredths of the eye distance
        error = (np.arange(8) + seed / 2) / 100 * eyes
        prediction = truth.copy()
        prediction[:, ::2] += error[:, None]
        fits.append(
            pd.DataFrame(
                {
                    "key": test["key"].repeat(136).to_numpy(),
                    "seed": seed,
                    "output": np.tile([f"{axis}{point}" for point in range(68) for axis in "xy"], 8),
                    "truth": truth.ravel(),
                    "prediction": prediction.ravel(),
                }
            )
        )
    drawn = faces.draw_landmarks(pd.concat(fits), manifest, artifacts["shards"], worst=2, typical=1)
    keys = test["key"].tolist()
    assert [landmarks.title.replace("\u00a0", " ") for landmarks in drawn] == [
        f"Worst 1: {keys[7]}, error 7.5 %",
        f"Worst 2: {keys[6]}, error 6.5 %",
        f"Typical: {keys[3]}, error 3.5 %",
    ]
    first = re.search(r'class="truth" d="M([\d.]+) ([\d.]+)h0', drawn[0].drawing)
    assert first
    assert [float(value) for value in first.groups()] == pytest.approx(truth[7, :2] + 0.5, abs=0.051)


def test_each_person_is_shown_once_and_many_are_spaced_evenly() -> None:
    rows = pd.DataFrame({"key": list("abcdef"), "person": ["1", "1", "2", "2", None, None]})
    assert faces.one_per_person(rows, 8)["key"].tolist() == ["a", "c", "e", "f"]
    assert faces.one_per_person(rows, 2)["key"].tolist() == ["a", "f"]
