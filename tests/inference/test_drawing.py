from __future__ import annotations

import numpy as np
import pytest
import torch

from fra.inference import drawing


@pytest.mark.parametrize("masks", [2, 8, 16])
def test_colours_are_far_apart(masks: int) -> None:
    colours = drawing.palette(masks).astype(float)
    assert colours.shape == (masks, 3)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(masks, dtype=bool)].min() > 35


def test_colours_do_not_depend_on_the_number_of_masks() -> None:
    assert (drawing.palette(16)[:5] == drawing.palette(5)).all()


def test_pixels_are_assigned_to_the_most_probable_mask() -> None:
    heatmaps = torch.zeros(2, 2, 2)
    heatmaps[0, :, 0] = heatmaps[1, :, 1] = 1
    labels = drawing.assign(heatmaps, 4, 6)
    assert labels.shape == (4, 6)
    assert (labels == [0, 0, 0, 1, 1, 1]).all()
    assert drawing.shares(labels, 3).tolist() == [0.5, 0.5, 0]


def test_paint_mixes_grey_and_the_mask_s_colour() -> None:
    white = np.full((1, 2, 3), 255, np.uint8)
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    labels = np.array([[0, 1]])
    assert drawing.paint(white, labels, colours, opacity=0).tolist() == white.tolist()
    assert drawing.paint(white, labels, colours, opacity=1).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert drawing.paint(white, labels, colours, opacity=0.5)[0, 0].tolist() == [255, 128, 128]


def test_mean_map_is_most_opaque_where_the_mask_is_most_frequent() -> None:
    face = np.zeros((1, 3, 3), np.uint8)
    red = np.array([255, 0, 0], np.uint8)
    painted = drawing.paint_mean(face, np.array([[0.0, 0.1, 0.2]]), red)
    assert painted[0, :, 0].tolist() == [0, 115, 230]
