from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset

from data.conftest import prepare
from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.images import decode, read
from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.files import sha256


@pytest.fixture(scope="module")
def manifest(prepared: Path) -> pd.DataFrame:
    return pd.read_parquet(prepared / "manifest.parquet")


def test_the_manifest_names_images_that_cannot_be_decoded(manifest: pd.DataFrame) -> None:
    errors = manifest.set_index("source")["error"].dropna().to_dict()
    assert set(errors) == {"s1/text.jpg", "s1/empty.png", "s1/truncated.png"}
    assert "0 bytes" in errors["s1/empty.png"]
    assert "not an image" in errors["s1/text.jpg"]
    assert "truncated" in errors["s1/truncated.png"]
    assert manifest.loc[manifest["error"].notna(), "shard"].isna().all()
    assert (manifest.loc[manifest["error"].notna(), "index"] == -1).all()


def test_index_counts_the_images_of_each_split(manifest: pd.DataFrame) -> None:
    for _, rows in manifest[manifest["shard"].notna()].groupby("split"):
        assert sorted(rows["index"]) == list(range(len(rows)))


def test_splits_never_share_a_person(manifest: pd.DataFrame) -> None:
    assert manifest.groupby("person")["split"].nunique().eq(1).all()
    assert manifest["split"].nunique() > 1


def test_the_shards_hold_the_files_own_bytes(faces: Path, prepared: Path, manifest: pd.DataFrame) -> None:
    sources = manifest.set_index("key")["source"]
    seen = 0
    for shard in sorted((prepared / "shards").glob("*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False):
            (suffix,) = {"png", "jpg", "bmp"} & set(sample)
            assert sample[suffix] == (faces / sources[sample["__key__"]]).read_bytes()
            assert json.loads(sample["json"])["person"] == sample["__key__"].split("/")[0]
            seen += 1
    assert seen == manifest["shard"].notna().sum() == 61


def test_index_json_names_every_shard_with_its_hash(prepared: Path) -> None:
    splits = json.loads((prepared / "shards" / "index.json").read_text())["splits"]
    named = {shard["name"]: shard["sha256"] for split in splits.values() for shard in split["shards"]}
    assert named == {path.name: sha256(path) for path in (prepared / "shards").glob("*.tar")}


def test_a_second_run_gives_the_same_bytes(faces: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(faces, tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert {file: sha256(tmp_path / file) for file in files} == {
        file: sha256(prepared / file) for file in files
    }


def test_shards_do_not_depend_on_the_machine(prepared: Path) -> None:
    with tarfile.open(next((prepared / "shards").glob("*.tar"))) as tar:
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in tar} == {
            (0, 0, "fra", 0o644)
        }


def test_a_smaller_set_leaves_no_stale_shards(faces: Path, tmp_path: Path) -> None:
    prepare(faces, tmp_path, images_per_shard=5)
    many = len(list((tmp_path / "shards").iterdir()))
    prepare(faces, tmp_path, images_per_shard=50)
    assert len(list((tmp_path / "shards").iterdir())) < many
    splits = json.loads((tmp_path / "shards" / "index.json").read_text())["splits"]
    assert {shard["name"] for split in splits.values() for shard in split["shards"]} == {
        path.name for path in (tmp_path / "shards").glob("*.tar")
    }


def test_other_files_and_folders_in_the_output_are_removed(faces: Path, tmp_path: Path) -> None:
    """Such as one that a file browser or a colleague left; what a link points to is kept."""
    prepare(faces, tmp_path)
    wanted = {path.name for path in (tmp_path / "shards").iterdir()}
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "shards/@eaDir/old").mkdir(parents=True)
    (tmp_path / "shards/@eaDir/old/train-000000.tar").write_text("x")
    (tmp_path / "shards/link").symlink_to(tmp_path / "kept")
    prepare(faces, tmp_path)
    assert {path.name for path in (tmp_path / "shards").iterdir()} == wanted
    assert (tmp_path / "kept/file").is_file()


def test_a_set_without_a_decodable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_text("text")
    records = ingest(DatasetConfig("bad", "folder", str(tmp_path / "in")), tmp_path / "raw")
    with pytest.raises(ValueError, match="none of 2 images can be decoded"):
        write(
            records,
            tmp_path / "in",
            tmp_path / "out",
            tmp_path / "m.parquet",
            ShardConfig(),
            tmp_path / "state",
        )
    assert not (tmp_path / "m.parquet").exists()
    assert not (tmp_path / "out" / "index.json").exists()


def test_read_gives_the_rows_in_their_order(faces: Path, prepared: Path, manifest: pd.DataFrame) -> None:
    rows = manifest[manifest["shard"].notna()].sample(7, random_state=0)
    images = read(rows, prepared / "shards", 32)
    assert images.shape == (7, 32, 32, 3)
    again = read(rows.iloc[::-1], prepared / "shards", 32)
    assert np.array_equal(images, again[::-1])
    whole = decode((faces / rows["source"].iloc[0]).read_bytes())
    assert images[0].mean() == pytest.approx(whole.mean(), abs=2)


def test_read_names_a_row_that_is_in_no_shard(prepared: Path, manifest: pd.DataFrame) -> None:
    with pytest.raises(KeyError, match="s1/empty"):
        read(manifest[manifest["source"] == "s1/empty.png"], prepared / "shards", 32)
