"""Predictions of task models on pictures: the image types, coordinates in the picture's own pixels, files, drawings."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.photographs import photograph, write_photographs
from support.scenes import orl_photographs
from support.task_models import ALIGNED, LANDMARKS, predictor, saved
from support.workspace import run_fra

import fra
from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.images import decode
from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.faces.crop import apply, crop
from fra.faces.extract import crop_faces
from fra.inference import predict as predictions
from fra.inference.task import pitch_and_yaw
from fra.inference.task_drawing import draw_predictions
from fra.transfer import align, task_model
from fra.transfer.config import TransferConfig
from fra.transfer.metrics import normalised_mean_error
from fra.transfer.tasks.truths import directions

ORIENTATION = 0x0112
GENERATOR = np.random.default_rng(3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventeen files: twelve photographs with one face, one with three, one without, a damaged one."""
    return write_photographs(tmp_path_factory.mktemp("photographs") / "photos")


def test_all_image_types_give_the_same_predictions(tmp_path: Path) -> None:
    """Paths, PIL images, arrays and a tensor, in one batch or several, before and after the file is written."""
    pixels = GENERATOR.integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image).save(file)
    model = predictor("alignment", LANDMARKS)
    wanted = model.predict(list(pixels))
    again = fra.load_task(saved(model, tmp_path))
    kinds = (files, [str(file) for file in files], [Image.open(file) for file in files])
    for images in (*kinds, torch.from_numpy(pixels).permute(0, 3, 1, 2)):
        pd.testing.assert_frame_equal(again.predict(images, batch_size=2), wanted, rtol=0, atol=1e-4)
    assert list(wanted) == LANDMARKS
    assert len(model.predict([])) == 0
    with pytest.raises(ValueError, match="put it in a list"):
        model.predict(str(files[0]))
    with pytest.raises(ValueError, match="1 sets of landmarks for 5 images"):
        model.predict(files, landmarks=[None])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coordinates_are_in_pixels_of_the_upright_picture(orientation: int, tmp_path: Path) -> None:
    """Of a picture of any size that is stored turned or mirrored: those of the same pixels, stored upright."""
    upright = cv2.resize(GENERATOR.integers(0, 256, (4, 5, 3), dtype=np.uint8), (150, 90))
    stored = Image.fromarray(upright)
    undo = {
        2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE",
        8: "ROTATE_270",
    }  # fmt: skip
    if orientation > 1:
        stored = stored.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    model = predictor("alignment", LANDMARKS)
    found = model.predict([tmp_path / "turned.png"]).to_numpy().reshape(-1, 2)
    fraction_L2 = model.model.scores(
        np.asarray([cv2.resize(upright, (64, 64), interpolation=cv2.INTER_AREA)])
    )
    np.testing.assert_allclose(found, fraction_L2.reshape(-1, 2) * [150, 90], atol=1e-3)


def test_landmarks_of_a_turned_photograph_are_where_the_crop_has_them(tmp_path: Path) -> None:
    """An off-centre face in a photograph that is turned by 12°, stored lying: to less than a pixel of the crop."""
    model = predictor("alignment", LANDMARKS)
    face = next(islice(orl_photographs(), 33, None))
    scene = photograph([face], np.random.default_rng(2))
    turn_23 = cv2.getRotationMatrix2D((130, 250), 12, 1.3) + np.array([[0, 0, 90], [0, 0, 40]])
    turned = cv2.warpAffine(scene, turn_23, (900, 700), borderMode=cv2.BORDER_REFLECT)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored lying; shown turned by 90° clockwise
    Image.fromarray(turned).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    predictions.predict(
        [str(tmp_path / "a.png")], saved(model, tmp_path), tmp_path / "out.parquet", detect=True
    )
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert list(table) == ["image", "face", "box", "score", *LANDMARKS]
    (face_crop,) = crop_faces(turned)
    in_crop_L2 = model.predict([face_crop.pixels_HW3]).to_numpy().reshape(-1, 2)
    found_L2 = table[LANDMARKS].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(apply(face_crop.transform_23, found_L2), in_crop_L2, atol=0.5)
    assert np.abs(found_L2 - in_crop_L2).max() > 50  # the crop is far from the photograph's corner


@pytest.mark.parametrize("upright", [True, False])
def test_framing_puts_eyes_and_mouth_where_they_were(upright: bool) -> None:
    """Of images of 92×112 pixels that are resized to squares: turned upright, or scaled and shifted only."""
    places = np.array([[0.35, 0.5], [0.65, 0.5], [0.5, 0.8]])
    in_image = places * [92, 112]
    five = np.stack(
        [in_image[0], in_image[1], in_image.mean(axis=0), in_image[2] - [9, 0], in_image[2] + [9, 0]]
    )
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]) if upright else np.eye(2)
    photo = 2.5 * five @ turn.T + [300, 40]
    transform_23 = align.Framing(places.tolist(), 92 / 112, upright).transform(photo, 64)
    found = apply(transform_23, photo)
    np.testing.assert_allclose(found, five / [92, 112] * 64, atol=1e-9)
    if not upright:
        assert transform_23[0, 1] == transform_23[1, 0] == 0


@pytest.mark.slow
def test_landmarks_land_on_the_face_in_a_photograph(tmp_path: Path) -> None:
    """Fitted on ORL with the released weights: test persons in photographs that are turned and stored lying."""
    records = ingest(DatasetConfig(), tmp_path / "raw")
    config = ShardConfig(images_per_shard=200, workers=1)
    manifest = tmp_path / "manifest.parquet"
    write(records, tmp_path / "raw", tmp_path / "shards", manifest, config, tmp_path / "state")
    settings = TransferConfig(cache=str(tmp_path / "cache"))
    model, _ = task_model.fit(
        "alignment", "linear", settings, manifest, tmp_path / "shards", "demo", frozenset()
    )
    task_model.save(model, tmp_path / "points.safetensors")
    turn_23 = cv2.getRotationMatrix2D((130, 250), 15, 1.2) + np.array([[0, 0, 90], [0, 0, 40]])
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    errors = []
    for number, row in enumerate(records[records["split"] == "test"].iloc[::10].itertuples()):
        face = decode((tmp_path / "raw" / row.source).read_bytes())
        scene, corner = np.full((600, 800, 3), 90, np.uint8), (60, 150)
        scene[150 : 150 + 224, 60 : 60 + 184] = cv2.resize(face, (184, 224), interpolation=cv2.INTER_CUBIC)
        turned = cv2.warpAffine(scene, turn_23, (900, 700))
        file = tmp_path / f"{number}.png"
        Image.fromarray(turned).transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
        out = tmp_path / "out.parquet"
        predictions.predict([str(file)], tmp_path / "points.safetensors", out, detect=True)
        found_L2 = pd.read_parquet(out)[model.metadata["columns"]].to_numpy()[0].reshape(-1, 2)
        true_L2 = apply(turn_23, 2 * np.asarray(row.landmarks).reshape(-1, 2) + corner)
        errors.append(normalised_mean_error(found_L2[None], true_L2[None])[0])
    assert len(errors) == 10
    assert np.mean(errors) < 1.5 * model.metadata["metrics"]["nme"], errors


def test_faces_are_aligned_as_for_the_fit(photos: Path, tmp_path: Path) -> None:
    """A found face goes through the transform of training: that of its five points in Python."""
    model = predictor("expression", ["neutral", "smiling"], ALIGNED, crop="eyes_and_mouth")
    file = saved(model, tmp_path)
    name = str(photos / "p2/0.jpg")
    predictions.predict([name], file, tmp_path / "out.parquet", detect=True)
    table = pd.read_parquet(tmp_path / "out.parquet")
    photo = decode(Path(name).read_bytes())
    (found,) = crop_faces(photo)
    pixels = crop(photo, align.transform(found.face.points_52, 64), 64)
    outputs = table[["neutral", "smiling"]].to_numpy()
    assert outputs == pytest.approx(model.predict([pixels]).to_numpy(), abs=1e-5)
    assert outputs.sum() == pytest.approx(1)
    by_points = model.predict([photo], landmarks=[found.face.points_52]).to_numpy()
    whole = model.predict([photo]).to_numpy()
    assert np.abs(by_points - outputs).max() < 0.3 * np.abs(whole - outputs).max()


def test_command_writes_table_and_drawings_and_lists_the_rest(photos: Path, tmp_path: Path) -> None:
    saved(predictor("attributes", ["Smiling", "Eyeglasses"]), tmp_path)
    options = ("-o", "out.parquet", "--detect", "--draw", "drawn")
    done = run_fra(tmp_path, "predict", "model.safetensors", str(photos), *options)
    assert done.returncode == 1, done.stdout
    assert f"{photos}/p1/landscape.jpg: no face: " in done.stdout
    assert f"not an image: {photos}/p2/broken.jpg: " in done.stdout
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert len(table) == 15
    assert table[["Smiling", "Eyeglasses"]].to_numpy().min() >= 0
    assert table[["Smiling", "Eyeglasses"]].to_numpy().max() <= 1
    assert table.loc[table["image"] == f"{photos}/p0/group.jpg", "face"].tolist() == [0, 1, 2]
    origin = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"fra"])
    assert origin["task"] == "attributes"
    assert origin["faces"]["crop"] == "box"
    drawn = sorted(str(path.relative_to(tmp_path / "drawn")) for path in (tmp_path / "drawn").rglob("*.jpg"))
    assert drawn == sorted(
        {f"{Path(name).relative_to(photos).with_suffix('')}.jpg" for name in table["image"]}
    )


def test_whole_images_give_the_predictions_of_python(faces: Path, tmp_path: Path) -> None:
    model = predictor("gaze", ["gaze_pitch", "gaze_yaw"])
    predictions.predict([str(faces)], saved(model, tmp_path), tmp_path / "out.parquet", batch_size=7)
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert list(table) == ["image", "gaze_pitch", "gaze_yaw"]
    assert len(table) == 20
    wanted = model.predict(table["image"].tolist()).to_numpy()
    assert table[["gaze_pitch", "gaze_yaw"]].to_numpy() == pytest.approx(wanted, abs=1e-3)


def test_a_folder_of_drawings_in_use_is_refused_before_the_work(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drawing that fails leaves the table of predictions."""
    model, out = saved(predictor("gaze", ["gaze_pitch", "gaze_yaw"]), tmp_path), tmp_path / "out.parquet"
    (tmp_path / "words.jpg").write_text("no image, which is seen when it is read")
    with pytest.raises(ValueError, match="the folder is not empty; give a new or an empty one"):
        predictions.predict([str(tmp_path / "words.jpg")], model, out, drawings=faces)

    def full(picture: np.ndarray, path: Path) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predictions, "write_jpeg", full)
    with pytest.raises(OSError, match="No space left"):
        predictions.predict([str(faces / "a/00.png")], model, out, drawings=tmp_path / "drawn")
    assert len(pd.read_parquet(out)) == 1
    assert not (tmp_path / "drawn").exists()


def test_weights_without_head_and_other_suffixes_are_refused(
    model: Path, faces: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="holds a model without the head of a task"):
        predictions.predict([str(faces)], model, tmp_path / "out.parquet")
    with pytest.raises(ValueError, match=r"\.parquet"):
        predictions.predict([str(faces)], model, tmp_path / "out.txt")
    assert not list(tmp_path.iterdir())


def test_pitch_and_yaw_are_the_inverse_of_directions() -> None:
    angles = pd.DataFrame({"measure.pitch": [0, 20, -35, 80.0], "measure.yaw": [0, -15, 40, 170.0]})
    vectors = directions(angles, ("pitch", "yaw")).to_numpy()
    assert pitch_and_yaw(3 * vectors) == pytest.approx(angles.to_numpy())


def changed(task: str, values: dict[str, float], picture: np.ndarray) -> np.ndarray:
    """Rows and columns (y, x) of the pixels that a drawing changes."""
    drawn = draw_predictions(picture, task, pd.DataFrame([values]), [None])
    assert drawn.shape == picture.shape
    return np.argwhere((drawn != picture).any(axis=2))


def test_drawings_are_where_the_predictions_are() -> None:
    picture = np.full((480, 500, 3), 127, np.uint8)
    points = changed("alignment", {"x0": 100.0, "y0": 50.0, "x1": 400.0, "y1": 300.0}, picture)
    for y, x in ((50, 100), (300, 400)):
        near = np.abs(points - [y, x]).max(axis=1) < 5
        assert near.sum() > 4
        points = points[~near]
    assert not len(points)
    left_and_up = changed("gaze", {"pitch": 30.0, "yaw": 50.0}, picture)
    assert left_and_up[:, 0].max() < 245
    assert left_and_up[:, 1].max() < 256
    bar = changed("expression", {"neutral": 0.1, "smiling": 0.9}, picture)
    assert bar[:, 0].min() > 400  # one bar, at the lower edge
    green = draw_predictions(picture, "expression", pd.DataFrame([{"neutral": 0.1, "smiling": 0.9}]), [None])
    assert (green[bar[0, 0] + 2, :, 1] == 110).sum() == pytest.approx(
        0.9 * 250, abs=2
    )  # the bar is half as wide
