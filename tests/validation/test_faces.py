"""Photographs without a face, and the rules on faces in images, each with a real image that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.data_faults import CONFIG, SHARDS
from support.photographs import photograph, write_photographs
from support.scenes import Pixels, generated_faces, orl_photographs

from fra.bench.scenes import background
from fra.data.datasets.ingest import FaceSearch, ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.executors import local
from fra.data.images import members
from fra.data.shards import write as shards
from fra.faces.config import FacesConfig
from fra.validation import validate, verdict
from fra.validation.config import ValidateConfig
from fra.validation.face_stats import FaceFinder, yaw
from fra.validation.validate import DatasetFiles
from fra.validation.verdict import ValidationResult

RULES = (
    "image shows a face",
    "image shows one face",
    "face is large enough",
    "face is in the centre",
    "face is upright",
)
LENIENT = replace(CONFIG, max_quarantined=0.1, labels={}, sharpness=(0.0, 9.0))
PEOPLE, EACH = 4, 3


def shard(records: pd.DataFrame, root: Path, out: Path) -> DatasetFiles:
    files = DatasetFiles("mine", out / "manifest.parquet", out / "shards")
    shards.write(records, root, files.shards, files.manifest, SHARDS, out / "state")
    return files


def of_photographs(folder: Path, crop: str = "box") -> DatasetFiles:
    config = DatasetConfig("mine", "folder", str(folder), faces="detect", crop=crop)  # type: ignore[arg-type]
    search = FaceSearch(FacesConfig(), folder.parent / "cache", local(1))
    return shard(ingest(config, folder.parent / f"raw-{crop}", search=search), folder, folder.parent / crop)


def as_is(folder: Path, images: dict[str, Pixels]) -> DatasetFiles:
    """A set of images that are not searched for faces by ingest: `images` by name."""
    for number, (name, image) in enumerate(images.items()):
        path = folder / f"p{number}" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
    records = ingest(DatasetConfig("mine", "folder", str(folder)), folder.parent / "raw")
    return shard(records, folder, folder.parent / "set")


def broken(result: ValidationResult) -> dict[str, list[str]]:
    """The examples of each broken rule."""
    return {rule["name"]: rule["examples"] for rule in result.expectations if not rule["success"]}


def rule(result: ValidationResult, name: str) -> dict[str, object]:
    (found,) = [rule for rule in result.expectations if rule["name"] == name]
    return found


# ---- photographs without a face


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> DatasetFiles:
    """Fifteen photographs: one without a face, one that is damaged, one with three faces."""
    return of_photographs(write_photographs(tmp_path_factory.mktemp("photographs") / "photos", PEOPLE, EACH))


def test_a_photograph_without_a_face_is_quarantined_by_its_own_rule(
    photographs: DatasetFiles, tmp_path: Path
) -> None:
    data = replace(photographs, photographs=photographs.shards.parents[1] / "photos")
    result, quarantined = validate.validate(data, tmp_path, LENIENT, workers=1)
    assert result.success, result.reasons
    assert result.rows == PEOPLE * EACH + 3 + 2
    assert (result.photographs, result.without_face, result.quarantined) == (15, 1, 2)
    assert broken(result) == {
        "has a face": ["p1/landscape.jpg"],
        "not truncated": ["p2/broken.jpg"],
        "decodable": ["p2/broken.jpg"],
    }
    reasons = verdict.read_quarantine(tmp_path / "quarantine.csv").set_index("source")["reason"]
    assert reasons["p1/landscape.jpg"].startswith("no face: none with a score of at least 0.6 (faces.score)")
    assert ";" not in reasons["p1/landscape.jpg"].removesuffix("0.00").split("score)")[0]
    assert "no face" not in reasons["p2/broken.jpg"]
    assert quarantined.set_index("source")["without_face"].to_dict() == {
        "p1/landscape.jpg": True,
        "p2/broken.jpg": False,
    }
    assert verdict.exclusions(vars(result)) == (
        "1 quarantined (at most 10.0% may be); 1 of 15 photographs without a face (at most 50.0% may be)"
    )
    page = (tmp_path / "data_docs/index.html").read_text(encoding="utf-8")
    assert "1 of 15 photographs without a face" in page
    by_split = page.partition("Images by split")[2].partition("</svg>")[0]
    assert "16 images" in by_split, "not the photograph without a face"
    sheet = page.partition("the photograph has no face to crop")[2].partition("</section>")[0]
    assert '<img src="data:image/jpeg' in sheet.partition("p1/landscape.jpg")[0], (
        "the photograph itself is shown"
    )


def test_photographs_without_a_face_have_their_own_limit(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photos", people=3, each=2)
    generator = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(photograph([], generator)).save(folder / f"p1/sea{number}.jpg")
    data = of_photographs(folder)
    config = replace(LENIENT, max_quarantined=0.15)
    result, _ = validate.validate(data, tmp_path / "strict", config, workers=1)
    (reason,) = result.reasons
    assert " of 21 photographs have no face to crop, more than validate.max_without_face 50.0%" in reason
    for remedy in ("faces.score", "faces.min_side", "remove them", "raise validate.max_without_face"):
        assert remedy in reason
    accepted, _ = validate.validate(data, tmp_path / "out", replace(config, max_without_face=0.7), workers=1)
    assert accepted.success, "max_quarantined does not count them"
    stopping = replace(config, max_without_face=0.7, severities={"has a face": "error"})
    stopped, _ = validate.validate(data, tmp_path / "stopped", stopping, workers=1)
    assert stopped.reasons[0].startswith("has a face: the photograph has no face to crop: p1/landscape.jpg")


def test_a_photograph_without_a_face_may_have_other_faults(photographs: DatasetFiles, tmp_path: Path) -> None:
    """Then it counts as quarantined for them."""
    config = replace(LENIENT, max_bytes=20_000, max_quarantined=1.0)
    result, quarantined = validate.validate(photographs, tmp_path, config, workers=1)
    reason = quarantined.set_index("source").at["p1/landscape.jpg", "reason"]
    assert "no face: " in reason
    assert "larger than 20,000 bytes" in reason
    assert result.without_face == 0


@pytest.mark.parametrize("crop", ["box", "aligned"])
def test_a_face_that_was_cropped_is_found_again(photographs: DatasetFiles, crop: str, tmp_path: Path) -> None:
    data = photographs if crop == "box" else of_photographs(photographs.shards.parents[1] / "photos", crop)
    result, _ = validate.validate(data, tmp_path, LENIENT, workers=1)
    assert not set(RULES) & set(broken(result))


# ---- faces in images


def paste(face: Pixels, side: int, centre: tuple[float, float], angle: float = 0) -> Pixels:
    """A background of 240×240 pixels with a face `side` pixels wide at a place (in shares), rotated by `angle`."""
    scene = background(240, 240, np.random.default_rng(side))
    size = side, side * face.shape[0] // face.shape[1]
    small = cv2.resize(face, size, interpolation=cv2.INTER_AREA if side < face.shape[1] else cv2.INTER_CUBIC)
    move = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), angle, 1)
    move[:, 2] += 240 * centre[0] - size[0] / 2, 240 * centre[1] - size[1] / 2
    mask = cv2.warpAffine(np.ones(size[::-1], np.uint8), move, (240, 240))
    return np.where(mask[..., None] > 0, cv2.warpAffine(small, move, (240, 240)), scene).astype(np.uint8)


def two(first: Pixels, second: Pixels) -> Pixels:
    return np.hstack([paste(first, 110, (0.5, 0.5))[:, 20:180], paste(second, 110, (0.5, 0.5))[:, 60:220]])


FACES = list(islice(orl_photographs(), 0, 200, 10))
BROKEN: dict[str, tuple[Pixels, set[str]]] = {
    "nothing": (background(240, 240, np.random.default_rng(3)), {"image shows a face"}),
    "two": (two(FACES[1], FACES[2]), {"image shows one face"}),
    "small": (paste(FACES[3], 36, (0.5, 0.5)), {"face is large enough"}),
    "corner": (paste(FACES[4], 70, (0.16, 0.2)), {"face is in the centre"}),
    "side": (paste(FACES[5], 130, (0.5, 0.5), 90), {"face is upright"}),
    "oblique": (paste(FACES[6], 130, (0.5, 0.5), -50), {"face is upright"}),
    "upside_down": (paste(FACES[7], 130, (0.5, 0.5), 180), {"face is upright"}),
    "good": (FACES[8], set()),
    "tilted": (paste(FACES[9], 130, (0.5, 0.5), 15), set()),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DatasetFiles:
    return as_is(
        tmp_path_factory.mktemp("images") / "faces", {name: image for name, (image, _) in BROKEN.items()}
    )


@pytest.fixture(scope="module")
def result(images: DatasetFiles, tmp_path_factory: pytest.TempPathFactory) -> ValidationResult:
    return validate.validate(images, tmp_path_factory.mktemp("result"), LENIENT, workers=2)[0]


def test_each_rule_on_faces_finds_the_image_that_breaks_it(result: ValidationResult) -> None:
    found: dict[str, set[str]] = {name: set() for name in BROKEN}
    for name in RULES:
        for source in broken(result).get(name, []):
            found[Path(source).stem].add(name)
    assert found == {name: expected for name, (_, expected) in BROKEN.items()}


def test_rules_on_faces_warn_by_default(result: ValidationResult) -> None:
    assert result.success
    assert result.quarantined == 0
    assert {rule(result, name)["severity"] for name in RULES} == {"warn"}
    assert (result.photographs, result.without_face) == (0, 0)


def test_the_severity_of_a_rule_on_faces_can_be_changed(images: DatasetFiles, tmp_path: Path) -> None:
    severities = {"face is upright": "quarantine", "image shows one face": "error"}
    config = replace(LENIENT, max_quarantined=0.9, severities=severities)
    result, quarantined = validate.validate(images, tmp_path, config, workers=1)
    assert {Path(source).stem for source in quarantined["source"]} == {
        name for name, (_, rules) in BROKEN.items() if "face is upright" in rules
    }
    assert not quarantined["without_face"].any()
    (reason,) = result.reasons
    assert reason.startswith("image shows one face: ")
    assert "two.png (2)" in reason


@pytest.mark.slow
def test_the_limits_of_rules_on_faces_are_parameters(images: DatasetFiles, tmp_path: Path) -> None:
    config = replace(LENIENT, min_face_score=0.3, min_face_share=0.05, max_face_offset=0.5, max_face_roll=100)
    result, _ = validate.validate(images, tmp_path / "low", config, workers=1)
    assert {name: rule(result, name)["unexpected_count"] for name in RULES} == {
        "image shows a face": 1,
        "image shows one face": 1,
        "face is large enough": 0,
        "face is in the centre": 0,
        "face is upright": 1,
    }
    strict = replace(LENIENT, min_face_score=0.95)
    result, _ = validate.validate(images, tmp_path / "high", strict, workers=1)
    assert rule(result, "image shows a face")["unexpected_count"] == len(BROKEN)


def test_without_the_parameter_no_face_is_searched(
    images: DatasetFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError("yunet: missing: `pip install it`")

    monkeypatch.setattr("fra.validation.face_stats.YuNet", refuse)
    with pytest.raises(FileNotFoundError, match=r"`pip install it`, or set validate\.faces=false"):
        validate.validate(images, tmp_path, LENIENT, workers=1)
    config = replace(LENIENT, faces=False, severities={"face is upright": "error"})
    result, _ = validate.validate(images, tmp_path, config, workers=1)
    assert result.success
    assert not set(RULES) & {rule["name"] for rule in result.expectations}


@pytest.mark.parametrize("shape", [(1, 1), (2, 4000), (4000, 3), (12, 12)])
def test_odd_images_have_no_face(shape: tuple[int, int]) -> None:
    found = FaceFinder(0.5).find(np.full((*shape, 3), 90, np.uint8))
    assert (found.stats.faces, found.corners) == (0, [])


@pytest.mark.slow
def test_embedded_and_generated_faces_break_no_rule_or_nearly_none() -> None:
    """All 400 embedded faces pass; of generated ones, of which some are no faces, at least 98 %."""
    finder, limits = FaceFinder(ValidateConfig().min_face_score), ValidateConfig()

    def passes(image: Pixels) -> bool:
        one = finder.find(image).stats
        return (
            one.faces == 1
            and one.face_share >= limits.min_face_share
            and one.face_offset <= limits.max_face_offset
            and one.face_roll <= limits.max_face_roll
        )

    assert all(map(passes, orl_photographs()))
    assert np.mean([passes(image) for image in generated_faces(500, seed=9000)]) >= 0.98


def test_boxes_of_rotated_faces_are_those_of_the_image() -> None:
    upright, rotated = (FaceFinder(0.5).find(paste(FACES[5], 90, (0.35, 0.6), angle)) for angle in (0, 90))
    for found in (upright, rotated):
        assert np.abs(found.corners[0].mean(axis=0) - (0.35, 0.6)).max() < 0.06
    assert (upright.stats.face_roll, rotated.stats.face_roll) == (0, 90)


def test_yaw_is_read_from_the_place_of_the_nose() -> None:
    points = np.array([[-1.0, 0], [1, 0], [0, 1], [-0.8, 2], [0.8, 2]])
    assert yaw(points) == 0
    turn: Callable[[float], np.ndarray] = lambda degrees: np.array(  # noqa: E731
        [
            [-np.cos(np.radians(degrees)), 0],
            [np.cos(np.radians(degrees)), 0],
            [2 * 0.45 * np.sin(np.radians(degrees)), 1],
            [0, 2],
            [0, 2],
        ]
    )
    assert yaw(turn(30)) == pytest.approx(30)
    assert yaw(turn(-40)) == pytest.approx(-40)
    assert np.isnan(yaw(np.zeros((5, 2))))


def test_every_readable_image_is_in_a_shard(photographs: DatasetFiles) -> None:
    keys = set(pd.read_parquet(photographs.manifest).dropna(subset="shard")["key"])
    stored = {key for path in photographs.shards.glob("*.tar") for key, _ in members(path, keys)}
    assert stored == keys
