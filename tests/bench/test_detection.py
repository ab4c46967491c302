"""The benchmarks of face detection: what they count, and the groups they form."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fra.bench.detection import by_group, by_size, markdown, pose, wilson
from fra.bench.scenes import Scene, background, scene
from fra.faces.detect import Face
from pipelines.cli.benchmark import bench

POINTS_52 = np.array([[20.0, 20], [44, 20], [32, 32], [22, 44], [42, 44]])


def face(left: float, top: float, width: float, height: float) -> Face:
    return Face((left, top, width, height), POINTS_52, 0.9)


def test_a_scene_shows_the_face_at_its_place_and_size_only() -> None:
    shown = Scene(np.zeros((300, 300, 3), np.uint8), (100, 50), (100, 100))
    assert shown.shows(face(117, 60, 66, 90))
    assert not shown.shows(face(10, 60, 66, 90))  # elsewhere
    assert not shown.shows(face(140, 90, 20, 20))  # a nose
    assert not shown.shows(face(0, 0, 300, 200))  # the whole photograph


def test_a_face_keeps_its_aspect_ratio_in_a_scene() -> None:
    image = np.full((112, 92, 3), 7, np.uint8)
    shown = scene(image, 56, np.random.default_rng(0))
    (x, y), (width, height) = shown.corner, shown.size
    assert (width, height, shown.side) == (46, 56, 56)
    assert (shown.photo_HW3[y : y + height, x : x + width] == 7).all()


def test_a_scene_is_the_same_for_the_same_seed() -> None:
    first, second, other = (background(75, 100, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_wilson_interval() -> None:
    """The values of R's `binom.confint(45, 50, methods = "wilson")`."""
    assert wilson(45, 50) == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert wilson(50, 50)[1] == pytest.approx(1)
    assert wilson(0, 50)[0] == pytest.approx(0)


ROWS = pd.DataFrame(
    {
        "side": [22, 29, 30, 45, 59, 300],
        "found": [False, True, True, False, True, True],
        "false": [0, 1, 0, 0, 0, 1],
        "pose": ["turned", "frontal", "frontal", "turned", "frontal", "frontal"],
    }
)


def test_recall_and_precision_by_size() -> None:
    table = by_size(ROWS).set_index("faces")
    assert table["number"].to_dict() == {
        "20 to 25 px": 1,
        "25 to 30 px": 1,
        "30 to 40 px": 1,
        "40 to 60 px": 2,
        "200 to 400 px": 1,
        "from 30 px": 4,
        "all": 6,
    }
    assert table.loc["from 30 px", "recall"] == 3 / 4
    assert table.loc["all", "precision"] == 4 / 6
    assert pd.isna(table.loc["20 to 25 px", "precision"])  # nothing was detected
    assert (
        "| 40 to 60 px | 2 | 1 | 50.0% (9.5% … 90.5%) | 0 | 100.0% |" in markdown(by_size(ROWS)).splitlines()
    )


def test_groups_are_in_the_order_of_their_classes() -> None:
    assert by_group(ROWS, "pose")["faces"].tolist() == ["frontal", "turned"]


def test_pose_follows_the_nose() -> None:
    def with_nose(x: float) -> np.ndarray:
        points_52 = POINTS_52.copy()
        points_52[2, 0] = x
        return points_52

    assert [pose(with_nose(x)) for x in (33, 27, 43)] == ["frontal", "turned", "near profile"]


@pytest.mark.parametrize("faces", ["generated", pytest.param("orl", marks=pytest.mark.slow)])
def test_the_command_writes_tables_and_one_json_object(faces: str) -> None:
    command = ["detection", "--count", "4", "--smallest", "60", "--processes", "1", "--faces", faces]
    done = CliRunner().invoke(bench, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "By size:" in done.stdout
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["size"][-1]["number"] == 4
    groups = {"orl": {"glasses", "facial hair", "eyes", "pose"}, "generated": set()}[faces]
    assert result.keys() == {"size", *groups}
    assert all(sum(row["number"] for row in result[group]) == 4 for group in groups)
