from __future__ import annotations

from pathlib import Path

import pytest

from fra.data.datasets.adapters.folder import records as folder
from fra.data.datasets.adapters.orl import records as orl
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
        ({"name": "a/b"}, "dataset.name is 'a/b'"),
        ({"val": 0.6, "test": 0.5}, "leave nothing to train on"),
    ],
)
def test_invalid_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetConfig(**change)  # type: ignore[arg-type]
