"""Lists of keys: what is read, what a data set keeps, and what is refused."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pandas as pd
import pytest

from fra.data.datasets.ingest import ingest
from fra.data.datasets.key_lists import LEFT_OUT, read_keys, select
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig
from fra.files import sha256

KEYS = ["p/000129", "nan", "Zoë, 2"]
"""Keys that a reader of tables could take for a number, a missing value or two fields."""


@pytest.fixture
def table() -> pd.DataFrame:
    splits = ["train", "train", "val", "test"]
    return pd.DataFrame({"key": pd.array(["a", "b", "c", "d"], dtype="string"), "split": splits})


def listed(folder: Path, *keys: str) -> str:
    path = folder / f"{len(keys)}{keys[0][:1]}.txt"
    path.write_text("".join(f"{key}\n" for key in keys))
    return str(path)


def test_every_format_gives_the_same_keys(tmp_path: Path) -> None:
    rows = pd.DataFrame({"key": KEYS, "cluster": ["cluster 1"] * 3, "x": [0.5, 1, 2]})
    (tmp_path / "keys.txt").write_bytes("\ufeff# a rule\r\n{}\r\n\r\n{}\r\n{}".format(*KEYS).encode())
    rows.to_csv(tmp_path / "keys.csv", index=False)
    rows.to_json(tmp_path / "keys.json", orient="records")
    rows.to_json(tmp_path / "keys.jsonl", orient="records", lines=True)
    rows.to_parquet(tmp_path / "keys.parquet")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    assert {file.suffix: read_keys(file) for file in files} == {file.suffix: KEYS for file in files}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("keys.xlsx", b"", "must end in .txt, .csv, .json"),
        ("keys.txt", b"\xff\xfe", "not a list of keys: 'utf-8'"),
        ("keys.csv", b"image\na\n", "'key' is missing"),
        ("keys.json", b'{"key": ["a"]}', "holds no list of rows"),
        ("keys.json", b'[{"image": "a"}]', "a row has no `key`"),
        ("keys.json", b"[1]", "1 is no text"),
        ("keys.jsonl", b'"a"\n{', "not a list of keys"),
        ("keys.parquet", b"PAR1", "not a list of keys"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / name}: ") + f".*{message}"):
        read_keys(tmp_path / name)


def test_lists_select_images(table: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    only, exclude = listed(tmp_path, "a", "b", "d", "x"), listed(tmp_path, "b", "b", "c")
    selected = select(table, DatasetConfig("mine", only=only, exclude=exclude))
    assert selected["key"].tolist() == ["a", "d"]
    assert selected.index.tolist() == [0, 1]
    assert f"mine: only={only}: not in the data set: 1 of its 4 keys ('x')" in caplog.text
    assert "no image of the split val is left" in caplog.text
    assert "2 of 4 images are left" in caplog.text
    (tmp_path / "none.txt").touch()
    everything = select(table, DatasetConfig("mine", exclude=str(tmp_path / "none.txt")))
    pd.testing.assert_frame_equal(everything, table)


def test_lists_that_leave_nothing_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.txt: no such list of keys"):
        select(table, DatasetConfig(only="no.txt"))
    with pytest.raises(
        ValueError, match=r"none of its 2 keys is in the data set, such as 'x', 'y'; .* is 'a'"
    ):
        select(table, DatasetConfig(exclude=listed(tmp_path, "x", "y")))
    with pytest.raises(ValueError, match="no image is left of 4"):
        select(table, DatasetConfig(exclude=listed(tmp_path, "a", "b", "c", "d")))
    without_training = DatasetConfig(exclude=listed(tmp_path, "a", "b"))
    assert len(select(table, without_training)) == 2
    with pytest.raises(ValueError, match="no image of the split train is left"):
        select(table, without_training, trains=True)


def test_an_image_that_comes_back_is_sharded_once(faces: Path, tmp_path: Path) -> None:
    def write(exclude: str | None) -> tuple[pd.DataFrame, dict[str, str]]:
        config = DatasetConfig("faces", "folder", str(faces), exclude=exclude)
        records = ingest(config, tmp_path / "raw")
        manifest = shards.write(
            records,
            faces,
            tmp_path / "shards",
            tmp_path / "manifest.parquet",
            ShardConfig(images_per_shard=20, workers=1),
            tmp_path / "state",
        )
        return manifest, {tar.name: sha256(tar) for tar in (tmp_path / "shards").glob("*.tar")}

    everything, tars = write(None)
    first = everything.loc[everything["shard"] == "train-000000.tar", "key"].tolist()[:5]
    less, changed = write(listed(tmp_path, *first))
    left_out = tmp_path / "raw" / LEFT_OUT
    assert pd.read_parquet(left_out)["key"].tolist() == sorted(first)
    assert set(everything["key"]) - set(less["key"]) == set(first)
    assert {name for name in tars if tars[name] != changed[name]} == {"train-000000.tar"}
    again, _ = write(None)
    assert not left_out.exists()
    assert sorted(again["key"]) == sorted(everything["key"])
    assert sorted(again["index"]) == sorted(everything["index"])
    unchanged = everything.set_index("key")["sha256"].dropna()
    assert unchanged.equals(again.set_index("key")["sha256"].dropna()[unchanged.index])
