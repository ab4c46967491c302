"""Quarantined rows are excluded everywhere, whatever their keys look like."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.data_faults import CONFIG, ROOT, SHARDS

from fra.data.datasets import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import write as shards
from fra.files import read_csv
from fra.validation import validate, verdict
from fra.validation.validate import DatasetFiles
from fra.validation.verdict import ValidationFailed

NAMES = [["000129", "0133"], ["1e5", "1.0", "-5"], ["True", "False"], ["nan", "None", "NA", "null", "inf"]]
"""File names that pandas would read as whole numbers, numbers, truth values or missing values."""


def prepare(names: list[str], out: Path) -> DatasetFiles:
    """A set with a blank image of each name, and an image with content of each name preceded by "a"."""
    folder, random = out / "images", np.random.default_rng(0)
    for name in names:
        for stem, image in (
            (f"a{name}", random.integers(0, 256, (8, 8, 3))),
            (name, np.full((8, 8, 3), 128)),
        ):
            path = folder / f"p{name}" / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    records = ingest.ingest(DatasetConfig("mine", "folder", str(folder)), out / "raw")
    records["key"] = records["source"].map(lambda source: Path(source).stem)
    files = DatasetFiles("mine", out / "manifest.parquet", out / "shards")
    shards.write(records.sort_values("key"), folder, files.shards, files.manifest, SHARDS, out / "state")
    return files


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_rows_with_keys_that_look_like_other_types_are_quarantined(names: list[str], tmp_path: Path) -> None:
    data = prepare(names, tmp_path)
    config = replace(CONFIG, sharpness=(0.0, 9.0), labels={})
    result, _ = validate.validate(data, tmp_path / "out", config, workers=1)
    assert result.quarantined == len(names)
    quarantined = verdict.read_quarantined_keys(tmp_path / "out/quarantine.csv")
    assert quarantined == set(names)
    usable = verdict.read_usable_rows(data.manifest, quarantined)
    assert set(usable["key"]) == {f"a{name}" for name in names}


def test_indices_are_those_of_the_split() -> None:
    rows = pd.DataFrame({"split": ["train", "train", "test"], "index": [3, -1, 5]})
    assert verdict.quarantined_indices(rows, "train") == {3}


def test_usable_rows_are_sharded_not_quarantined_and_of_the_splits() -> None:
    manifest = pd.DataFrame(
        {
            "key": ["a", "b", "c", "d"],
            "shard": ["s", None, "s", "s"],
            "split": ["train", "train", "test", "test"],
        }
    )
    assert verdict.usable_rows(manifest, {"d"})["key"].to_list() == ["a", "c"]
    assert verdict.usable_rows(manifest, {"d"}, ("test",))["key"].to_list() == ["c"]
    assert verdict.usable_rows(manifest, frozenset(), ("test",)).index.to_list() == [0, 1]


@pytest.mark.parametrize("content", ["", "key,split\na,b\n", "key,split,index,source,reason\na,b,x,c,d\n"])
def test_a_file_that_is_no_quarantine_list_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.csv"
    with pytest.raises(ValidationFailed, match="missing"):
        verdict.read_quarantine(path)
    path.write_text(content)
    with pytest.raises(ValidationFailed, match="no quarantine list"):
        verdict.read_quarantine(path)


def test_text_in_a_table_stays_as_written() -> None:
    names = [*(name for group in NAMES for name in group), "", " x"]
    table = pd.DataFrame({"name": names, "value": [1.5, np.nan, *range(len(names) - 2)]})
    read = read_csv(io.StringIO(table.to_csv(index=False)), {"name": "str", "value": "float64"})
    assert read["name"].to_list() == table["name"].to_list()
    pd.testing.assert_series_equal(read["value"], table["value"])


def test_a_table_with_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="'name' is missing"):
        read_csv(io.StringIO("value\n1\n"), {"name": "str"}, others="float64")
    with pytest.raises(ValueError, match="'value' is unexpected"):
        read_csv(io.StringIO("name,value\na,1\n"), {"name": "str"})


def test_only_one_module_decides_which_rows_are_usable() -> None:
    """Sharding and validation see all rows; every other module must get its rows from `fra.validation.verdict`."""
    for path in sorted([*ROOT.glob("fra/**/*.py"), *ROOT.glob("pipelines/**/*.py")]):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        if not name.startswith(("fra/data/", "fra/validation/", "pipelines/shard.py")):
            assert '["shard"].notna()' not in text, name
        # A user's table of labels has no declared types, and orl.py reads files of this project's own.
        if name not in {"fra/files.py", "fra/data/datasets/adapters/orl.py", "fra/atlas/annotations.py"}:
            assert "pd.read_csv(" not in text, f"{name}: use fra.files.read_csv"
