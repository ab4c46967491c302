"""Region quality of heatmaps for which the metrics are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.labelled_set import Set
from torch import Tensor

from fra.region_quality import evaluate

SIZE = 64


def face(shift: float = 0.0) -> np.ndarray:
    """Return 68 landmarks of a schematic face in an image of 64 pixels."""
    jaw = [(8 + 3 * i, 30 + 28 * np.sin(np.pi * i / 16)) for i in range(17)]
    brows = [(x + i * 4, 20 - (i == 2)) for x in (12, 36) for i in range(5)]
    nose = [(32, 24 + 4 * i) for i in range(4)] + [(26 + 3 * i, 40) for i in range(5)]
    eyes = [
        (x + dx, 27 + dy) for x in (14, 38) for dx, dy in [(0, 0), (4, -3), (8, -3), (12, 0), (8, 3), (4, 3)]
    ]
    around = np.linspace(np.pi, 3 * np.pi, 13)[:-1]
    mouth = [(32 + 10 * np.cos(a), 49 + 5 * np.sin(a)) for a in around]
    inner = [(32 + 6 * np.cos(a), 49 + 2 * np.sin(a)) for a in np.linspace(np.pi, 3 * np.pi, 9)[:-1]]
    return np.array(jaw + brows + nose + eyes + mouth + inner) + shift


def test_parts_are_at_their_landmarks() -> None:
    part = evaluate.draw_parts(face(), SIZE)
    names = evaluate.NAMES
    for (x, y), name in {
        (20, 27): "eyes",
        (44, 27): "eyes",
        (32, 36): "nose",
        (32, 49): "mouth",
        (20, 40): "skin",
        (2, 2): "background",
    }.items():
        assert names[part[y, x]] == name
    assert set(np.unique(part)) == set(range(6))


def test_masks_equal_to_the_parts_match_them_in_any_order() -> None:
    part = np.stack([evaluate.draw_parts(face(shift), SIZE) for shift in (-3.0, 0.0, 2.0)])
    order = np.array([4, 2, 7, 0, 5, 1])  # of 8 masks, two never used
    assert evaluate.matched_iou(order[part], part) == dict.fromkeys(evaluate.NAMES, 1.0)


def test_iou_of_a_part_found_by_half_equals_the_value_computed_by_hand() -> None:
    part, mask = np.zeros((1, 4, 4), dtype=int), np.zeros((1, 4, 4), dtype=int)
    part[0, :2] = 1  # 8 pixels of skin
    mask[0, :1] = 3  # 4 of them found
    iou = evaluate.matched_iou(mask, part)
    assert iou["skin"] == pytest.approx(4 / 8)
    assert iou["background"] == pytest.approx(8 / 12)
    assert iou["mouth"] == 0


def test_parts_without_a_mask_have_iou_zero() -> None:
    part = evaluate.draw_parts(face(), SIZE)[None]
    iou = evaluate.matched_iou((part > 0).astype(int), part)
    assert iou["background"] == 1
    assert sum(value > 0 for value in iou.values()) == 2


def test_masks_that_move_with_the_view_are_consistent() -> None:
    whole = np.stack([evaluate.draw_parts(face(shift), SIZE) for shift in (-3.0, 2.0)])
    boxes = evaluate.draw_boxes(2, SIZE, seed=0)
    position = np.arange(SIZE)

    def crop(masks: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
        rows, columns = ((s.start + (position + 0.5) * (s.stop - s.start) / SIZE).astype(int) for s in box)
        return masks[rows][:, columns]

    view = np.stack([crop(masks, box) for masks, box in zip(whole, boxes, strict=True)])
    assert evaluate.view_kappa(whole, view, boxes) > 0.97
    noise = np.random.default_rng(0).integers(6, size=whole.shape)
    assert abs(evaluate.view_kappa(whole, noise, boxes)) < 0.05


def test_boxes_are_inside_the_image_and_differ_in_size() -> None:
    boxes = evaluate.draw_boxes(200, SIZE, seed=1)
    for rows, columns in boxes:
        assert rows.stop - rows.start == columns.stop - columns.start
        assert 0 <= rows.start < rows.stop <= SIZE
        assert 0 <= columns.start < columns.stop <= SIZE
    assert {rows.stop - rows.start for rows, _ in boxes} >= {SIZE // 2, SIZE}


def test_people_kappa_is_high_for_equal_masks_and_zero_for_noise() -> None:
    points = np.stack([face(shift) for shift in np.linspace(-3, 3, 12)])
    masks = np.stack([evaluate.draw_parts(point, SIZE) for point in points])
    person = np.repeat(["a", "b", "c", "d"], 3)
    same = evaluate.people_kappa(masks, points, person, 6)
    noise = np.random.default_rng(0).integers(6, size=masks.shape)
    assert same > 0.6  # landmarks are on the edges of parts, where rounding decides
    assert abs(evaluate.people_kappa(noise, points, person, 6)) < 0.05
    private = masks + 6 * np.repeat(np.arange(4), 3)[:, None, None]  # each person has different masks
    assert evaluate.people_kappa(private, points, person, 24) < 0
    with pytest.raises(evaluate.NotMeasurable, match="at least two test subjects"):
        evaluate.people_kappa(masks, points, np.repeat(["a"], 12), 6)


class Quarters:
    """Four masks, by whether a pixel is bright and whether it is in the upper half."""

    image_size = 32

    def heatmaps(self, images: list[np.ndarray]) -> Tensor:
        bright = torch.from_numpy(np.stack(images)[:, ::2, ::2, 0] > 128)
        upper = (torch.arange(16) < 8)[:, None].expand(16, 16)
        number = 2 * bright.long() + upper.long()
        return torch.nn.functional.one_hot(number, 4).permute(0, 3, 1, 2).float()


class Noise:
    """Four random masks."""

    image_size = 32

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def heatmaps(self, images: list[np.ndarray]) -> Tensor:
        generator = np.random.default_rng([self.seed, int(np.sum(images, dtype=np.int64))])
        return torch.from_numpy(generator.random((len(images), 4, 16, 16)))


def test_the_98_landmarks_of_wflw_draw_the_same_parts() -> None:
    """The outlines of a face of 68 points, sampled more densely and in the order of WFLW."""
    few = face()

    def along(points: list[int], count: int, closed: bool = False) -> np.ndarray:
        corners = few[points + points[:1]] if closed else few[points]
        at = np.linspace(0, len(corners) - 1, count + closed)[:count]
        low = np.minimum(at.astype(int), len(corners) - 2)
        return corners[low] + (at - low)[:, None] * (corners[low + 1] - corners[low])

    many = [
        along(list(range(17)), 33),
        *(along(list(range(start, start + 5)), 9, closed=True) for start in (17, 22)),
        along(list(range(27, 31)), 4),
        along(list(range(31, 36)), 5),
        *(along(list(range(start, start + 6)), 8, closed=True) for start in (36, 42)),
        along(list(range(48, 60)), 12),
        along(list(range(60, 68)), 8),
        few[[36, 42]],
    ]
    one, other = evaluate.draw_parts(few, SIZE), evaluate.draw_parts(np.concatenate(many), SIZE)
    assert (one == other).mean() > 0.97
    assert min(evaluate.matched_iou(other[None], one[None]).values()) > 0.6


def test_metrics_of_models_and_of_the_baseline_place(faces: Set) -> None:
    models = {"pretrained": [Quarters()], "random": [Noise(0), Noise(1)]}
    test = evaluate.read_test_images(faces.manifest, frozenset(), faces.shards, Quarters.image_size)
    metrics = evaluate.evaluate(models, test)
    assert set(metrics) == {"pretrained", "random", "place"}
    for found in metrics.values():
        assert set(found) == {"nmi", "matched_iou", "view_kappa", "people_kappa", "iou"}
    assert evaluate.evaluate(models, test) == metrics
    assert abs(metrics["random"]["view_kappa"]) < 0.1 < metrics["pretrained"]["view_kappa"]
    single = [evaluate.evaluate({"one": [Noise(seed)]}, test)["one"] for seed in (0, 1)]
    assert metrics["random"]["iou"]["mouth"] == pytest.approx(
        np.mean([row["iou"]["mouth"] for row in single])
    )


def test_quarantined_images_are_left_out(faces: Set, tmp_path: Path) -> None:
    """Two test images with mirrored landmarks."""
    frame = pd.read_parquet(faces.manifest)
    rows = frame.index[frame["split"] == "test"][[0, 9]]
    for row in rows:
        points = np.array(frame.at[row, "landmarks"])
        points[::2] = frame.at[row, "width"] - points[::2]
        frame.at[row, "landmarks"] = points
    mirrored, removed = tmp_path / "mirrored.parquet", tmp_path / "removed.parquet"
    frame.to_parquet(mirrored)
    frame.drop(index=rows).to_parquet(removed)

    def read(manifest: Path, quarantined: frozenset[str]) -> evaluate.TestImages:
        return evaluate.read_test_images(manifest, quarantined, faces.shards, Quarters.image_size)

    def metrics(test: evaluate.TestImages) -> object:
        return evaluate.evaluate({"pretrained": [Quarters()]}, test)

    keys = frozenset(frame.loc[rows, "key"])
    without = read(mirrored, keys)
    assert len(without.whole) == (frame["split"] == "test").sum() - 2
    assert metrics(without) == metrics(read(removed, frozenset()))
    assert metrics(without) != metrics(read(mirrored, frozenset()))


def test_sets_without_landmarks_and_with_two_kinds_are_errors_with_their_reasons(
    faces: Set, tmp_path: Path
) -> None:
    """Only the first is a reason to leave out the region quality."""
    path = tmp_path / "manifest.parquet"
    frame = pd.read_parquet(faces.manifest)
    row = frame.index[frame["split"] == "test"][0]
    frame.at[row, "landmarks"] = np.zeros(2 * 98, np.float32)
    frame.to_parquet(path)
    with pytest.raises(ValueError, match="some test images have 68 landmarks, others 98") as mixed:
        evaluate.read_test_images(path, frozenset(), faces.shards, SIZE)
    assert not isinstance(mixed.value, evaluate.NotMeasurable)
    frame["landmarks"] = None
    frame.to_parquet(path)
    with pytest.raises(evaluate.NotMeasurable, match="no test image has 68 or 98 landmarks"):
        evaluate.read_test_images(path, frozenset(), faces.shards, SIZE)
