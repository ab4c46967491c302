from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fra.data.datasets.adapters.folder import records as folder
from fra.data.datasets.adapters.orl import records as orl
from fra.data.datasets.annotation_files import image_files
from fra.data.datasets.ingest import ingest
from fra.data.datasets.record_table import keys_of
from fra.data.datasets.records import DatasetConfig, split_of


def test_orl_is_complete_and_each_person_is_in_one_split(tmp_path: Path) -> None:
    records = ingest(DatasetConfig(), tmp_path)
    assert len(records) == 400
    assert records["key"].is_unique
    assert records.groupby("person")["split"].nunique().eq(1).all()
    assert records.groupby("split")["person"].nunique().to_dict() == {"train": 22, "val": 8, "test": 10}
    assert records["landmarks"].map(len).eq(136).all()
    assert records["label.Smiling"].isna().sum() == 75  # unclear: left out
    assert len(ingest(DatasetConfig(), tmp_path, frozenset({"s1"}))) == 390
    assert not (tmp_path / "s1").exists(), "a folder's name is the person's"


def test_ingest_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        ingest(DatasetConfig(), tmp_path / name)
    first, second = (tmp_path / name / "records.parquet" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_orl_files_without_annotation_belong_to_their_person(tmp_path: Path) -> None:
    (tmp_path / "s14").mkdir()
    (tmp_path / "s14" / "new.png").write_bytes(b"x")
    (record,) = orl(tmp_path, DatasetConfig())
    assert (record.person, record.split, record.labels, record.landmarks) == ("s14", "test", {}, None)


def test_new_people_do_not_move_the_others() -> None:
    config = DatasetConfig(val=0.2, test=0.3)
    people = [f"n{number:06d}" for number in range(2000)]
    splits = [split_of(person, config) for person in people]
    assert splits.count("test") / 2000 == pytest.approx(0.3, abs=0.04)
    assert splits.count("val") / 2000 == pytest.approx(0.2, abs=0.04)
    assert [split_of(person, config) for person in reversed(people)] == splits[::-1]


def test_keys_are_unique_and_have_no_dot_in_the_name() -> None:
    keys = keys_of(["a/b.c.jpg", "a/x.jpg", "a/x.png", "v1.2/y.jpg"])
    assert len(set(keys)) == 4
    assert keys[0] == "a/b_c"
    assert keys[3] == "v1.2/y"
    assert all("." not in Path(key).name for key in keys)


def test_faces_of_one_image_have_keys_of_their_own() -> None:
    assert keys_of(["a/b.jpg", "a/c.jpg", "a/b.jpg"]) == ["a/b_face0", "a/c", "a/b_face1"]


@pytest.mark.parametrize(
    "sources",
    [
        ["a.jpg", "a.jpg", "a_face0.jpg"],
        ["a.jpg", "a.jpg", "a_face0.jpg", "a_face0.png", "a_face1.jpg"],
        ["v10.2/a.jpg", "v10.2/a.png"],
        ["a.b.jpg", "a_b.jpg"],
    ],
)
def test_keys_are_unique_whatever_the_names(sources: list[str]) -> None:
    keys = keys_of(sources)
    assert len(set(keys)) == len(sources)
    assert all("." not in Path(key).name for key in keys)
    assert [Path(key).parent for key in keys] == [Path(source).parent for source in sources]


def images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name, "PNG")


@pytest.mark.parametrize("folder", ["", "faces/", "download/all faces/"])
def test_people_in_a_flat_folder_are_unknown(folder: str, tmp_path: Path) -> None:
    images(tmp_path / "in", *(f"{folder}{number}.png" for number in range(60)))
    config = DatasetConfig("mine", "folder", str(tmp_path / "in"), val=0.2, test=0.2)
    records = ingest(config, tmp_path / "raw", trains=True)
    assert records["person"].isna().all()
    assert set(records["split"]) == {"train", "val", "test"}


def test_a_set_to_train_on_without_a_training_image_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "in", "a/1.png", "b/1.png")
    config = DatasetConfig("mine", "folder", str(tmp_path / "in"), val=0.49, test=0.5)
    with pytest.raises(
        ValueError, match=r"no training image: all 2 images .* lower dataset\.val and dataset\.test"
    ):
        ingest(config, tmp_path / "raw", trains=True)
    assert not (tmp_path / "raw/records.parquet").exists()
    assert len(ingest(config, tmp_path / "raw")) == 2  # a set that only tests needs none


def test_a_split_that_stays_empty_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path / "in", "a/1.png", "b/1.png")
    ingest(DatasetConfig("mine", "folder", str(tmp_path / "in"), val=0.01), tmp_path / "raw", trains=True)
    assert "no image is in the split val although dataset.val is 0.01 (2 people)" in caplog.text


def test_files_that_are_no_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path / "in", "a.png", "b.jfif", "c.JPE", "d.gif")
    for name in ("film.mp4", "second.mp4", "notes.TXT", "README", "raw.cr2", ".hidden.txt"):
        (tmp_path / "in" / name).write_text("x")
    found = image_files(tmp_path / "in")
    assert found == ["a.png", "b.jfif", "c.JPE", "d.gif"]
    assert "5 files skipped, not images by their suffix: 2 .mp4" in caplog.text
    assert all(f"1 {kind}" in caplog.text for kind in (".txt", "without suffix", ".cr2"))


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"no image in it; it holds 1 \.mp4"):
        image_files(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DatasetConfig("mine", "folder", "/nowhere/faces"), "/nowhere/faces: no such folder"),
        (DatasetConfig("mine", "folder"), "dataset.root is not set"),
        (DatasetConfig("mine", "imagenet"), "choose one of affectnet"),
    ],
)
def test_a_wrong_root_is_named(config: DatasetConfig, message: str, tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        ingest(config, tmp_path)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match="no image in it"):
        list(folder(tmp_path, DatasetConfig("mine", "folder", str(tmp_path))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"val": 0.6, "test": 0.5}, "leave no training images"),
    ],
)
def test_invalid_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetConfig(**change)  # type: ignore[arg-type]
