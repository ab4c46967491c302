"""Digest and hashes of the result, severities, own rules, limits and pages."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import data_faults as faults
from support.data_faults import CONFIG, Prepared, validated
from support.workspace import ROOT, environment

from fra.validation import manifest, validate, verdict
from fra.validation.config import ValidateConfig
from fra.validation.page import sheet
from fra.validation.verdict import ValidationFailed, ValidationResult
from pipelines import params
from pipelines.validate import remedy

OWN = """
import great_expectations.expectations as gxe
from fra.validation.rules.rule import Rule

RULES = [
    Rule("not tiny", "{severity}", "fewer than 10,320 bytes",
         gxe.ExpectColumnValuesToBeBetween(column="{column}", min_value=10_320), report_column="bytes"),
]
"""


@pytest.fixture
def checked(clean: Prepared, clean_result: ValidationResult) -> Prepared:
    assert clean_result.success
    return clean


def test_a_damaged_test_image_of_another_set_leaves_out_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The images after it in the same shard are compared with the pre-training images, and shown in Data Docs."""
    other = faults.other_set(tmp_path)
    (shard,) = other.shards.glob("*.tar")
    with tarfile.open(shard) as tar:
        first = next(member for member in tar if not member.name.endswith(".json"))
    content = bytearray(shard.read_bytes())
    content[first.offset_data : first.offset_data + first.size] = bytes(first.size)
    shard.write_bytes(content)
    assert len(validate.held_out_images(other, workers=1).sources) == 2
    assert "theirs: 1 of 3 test images cannot be read" in caplog.text
    assert len(sheet.thumbnails(manifest.read(other.manifest).table, range(3), other.shards)) == 2


def own(folder: Path, severity: str = "quarantine", column: str = "bytes") -> str:
    path = folder / "own.py"
    path.write_text(OWN.format(severity=severity, column=column))
    return str(path)


@pytest.mark.parametrize(
    "name",
    [
        "shards/train-000000.tar",
        "shards/index.json",
        "beton/train.beton",
        "orl.parquet",
        "out/quarantine.csv",
        "out/profile.json",
    ],
)
def test_a_changed_byte_is_found_and_its_file_named(name: str, checked: Prepared) -> None:
    path = checked.folder / name
    check = checked.folder / "out/verdict.json"
    train = checked.folder / "beton/train.beton"
    assert verdict.check(check, [train]).success
    content = path.read_bytes()
    try:
        path.write_bytes(faults.flip(content, len(content) // 2))
        with pytest.raises(ValidationFailed, match=re.escape(f"{path}: changed since it was validated")):
            verdict.check(check, [train])
    finally:
        path.write_bytes(content)


def test_without_hashing_only_presence_is_checked(checked: Prepared, tmp_path: Path) -> None:
    """The other ranks of a machine rely on the one that hashes, but still check which files exist."""
    path, check = checked.folder / "beton/train.beton", checked.folder / "out/verdict.json"
    content = path.read_bytes()
    try:
        path.write_bytes(faults.flip(content, len(content) // 2))
        assert verdict.check(check, [path], hashed=False) == verdict.read(check)
        path.unlink()
        with pytest.raises(ValidationFailed, match="missing since it was validated"):
            verdict.check(check, [path], hashed=False)
    finally:
        path.write_bytes(content)
    with pytest.raises(ValidationFailed, match="not among the files validated"):
        verdict.check(check, [tmp_path / "other.beton"], hashed=False)


def test_a_changed_byte_of_the_result_is_found(checked: Prepared) -> None:
    path = checked.folder / "out/verdict.json"
    content = path.read_bytes()
    try:
        for place in range(0, len(content), 97):
            changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            path.write_bytes(changed)
            if content[place : place + 1].isspace() and changed[place : place + 1].isspace():
                continue
            with pytest.raises(ValidationFailed, match=re.escape(str(path))):
                verdict.read(path)
    finally:
        path.write_bytes(content)


def test_a_file_that_was_not_validated_is_refused(checked: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match="not among the files validated"):
        verdict.check(checked.folder / "out/verdict.json", [tmp_path / "other.beton"])


def test_the_same_data_give_the_same_bytes(clean: Prepared, tmp_path: Path) -> None:
    def outputs(name: str) -> dict[str, bytes]:
        prepared = faults.copied(clean, tmp_path / name)
        prepared.change(1, width=93)  # so that the pages show an image
        (tmp_path / "set").unlink(missing_ok=True)
        (tmp_path / "set").symlink_to(tmp_path / name)  # one path for both
        validated(Prepared(tmp_path / "set"))
        out = tmp_path / "set" / "out"
        return {
            str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
        }

    first, second = outputs("one"), outputs("two")
    assert {
        "verdict.json",
        "quarantine.csv",
        "profile.json",
        "data_docs/index.html",
        "data_docs/images.html",
    } <= set(first)
    assert first == second


def test_the_pages_load_nothing_and_show_the_faces(clean: Prepared, tmp_path: Path) -> None:
    prepared = faults.copied(clean, tmp_path / "set")
    source = prepared.change(1, width=93)
    validated(prepared)
    pages = sorted((prepared.folder / "out/data_docs").glob("*.html"))
    assert len(pages) >= 4
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<script|<link|<iframe|@import", text, re.IGNORECASE)
        assert not re.search(r"\bsrc=(?![\"']?data:)", text)
        assert not re.search(r"url\(", text)
    index = (prepared.folder / "out/data_docs/index.html").read_text(encoding="utf-8")
    assert '<img src="data:image/jpeg;base64,' in index
    assert f"<code>{source}</code>" in index
    assert "Did not pass" in index
    assert 'href="images.html"' in index


def test_an_own_rule_quarantines_rows(clean: Prepared, tmp_path: Path) -> None:
    prepared = faults.copied(clean, tmp_path / "set")
    found = validated(prepared, replace(CONFIG, expectations=own(tmp_path), max_quarantined=1.0))
    assert found.success
    assert 0 < found.quarantined < found.rows
    assert "fewer than 10,320 bytes (103" in (prepared.folder / "out/quarantine.csv").read_text()
    assert str(tmp_path / "own.py") in found.validated_files


def test_too_many_quarantined_rows_stop_the_run(clean: Prepared, tmp_path: Path) -> None:
    found = validated(
        faults.copied(clean, tmp_path / "set"),
        replace(CONFIG, expectations=own(tmp_path), max_quarantined=0.0),
    )
    assert not found.success
    assert "would be quarantined, more than validate.max_quarantined 0.0%" in found.reasons[0]


def test_a_severity_can_be_changed(clean: Prepared, tmp_path: Path) -> None:
    config = replace(CONFIG, expectations=own(tmp_path), severities={"not tiny": "warn"})
    found = validated(faults.copied(clean, tmp_path / "set"), config)
    assert found.success
    assert found.quarantined == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"severities": {"no such rule": "warn"}}, "no rule is named 'no such rule'"),
        ({"expectations": "nowhere.py"}, "nowhere.py: no such file"),
        ({"reference": "nowhere.json"}, "nowhere.json: no such file"),
    ],
)
def test_a_wrong_parameter_is_named(change: dict[str, object], message: str, clean: Prepared) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        validated(clean, replace(CONFIG, **change))


def test_an_own_rule_on_an_unknown_column_is_named(clean: Prepared, tmp_path: Path) -> None:
    config = replace(CONFIG, expectations=own(tmp_path, column="beauty"))
    with pytest.raises(ValueError, match="the rule 'not tiny' could not be evaluated"):
        validated(faults.copied(clean, tmp_path / "set"), config)


def test_of_duplicates_in_two_splits_the_test_image_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FER2013 has them: the printed command keeps the project's parameters, and no test image is lost."""
    draft = faults.draft(tmp_path)
    original, relabelled = draft.of("train", 4), draft.of("train", 5)
    label = draft.records.at[draft.row(relabelled), "label.Smiling"]
    for source, copy, change in (
        (original, "s_a/copy.pgm", {}),
        (relabelled, "s_b/copy.pgm", {"label.Smiling": 1 - label}),
    ):
        (draft.root / copy).parent.mkdir()
        shutil.copy(draft.root / source, draft.root / copy)
        draft.add(copy, source, split="test", person=None, **change)
    draft.records["person"] = None
    prepared = faults.prepare(draft, tmp_path / "set")
    stopped = validated(prepared)
    assert {reason.split(":")[0] for reason in stopped.reasons} == {
        "no duplicate across splits",
        "one label per image",
    }
    command = remedy(stopped)
    assert command.endswith(
        "'+validate.severities={no duplicate across splits: quarantine, one label per image: quarantine}'"
    )
    project = tmp_path / "project"
    for name in ("fra", "pipelines"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(project)
    params.choose(["dataset=fer2013", "dataset.root=/d/My Faces"])
    printed = remedy(stopped)
    subprocess.run(printed[printed.index("python -m") :], shell=True, check=True, env=environment())
    assert params.read()["dataset"]["root"] == "/d/My Faces"
    chosen = params.section("validate", ValidateConfig).severities
    monkeypatch.undo()
    accepted = validated(prepared, replace(CONFIG, severities=chosen))
    assert accepted.success
    assert set(verdict.read_quarantine(prepared.folder / "out/quarantine.csv")["source"]) == {
        original,
        relabelled,
    }


def test_nothing_is_suggested_where_storage_is_damaged(clean: Prepared, tmp_path: Path) -> None:
    prepared = faults.copied(clean, tmp_path / "set")
    prepared.change(1, width=93)
    assert remedy(validated(prepared)) == ""


def test_labels_stored_as_floats_are_checked_by_the_label_rules(clean: Prepared, tmp_path: Path) -> None:
    """As pandas stores whole numbers with missing values."""
    prepared = faults.copied(clean, tmp_path / "set")
    table = prepared.manifest()
    values = table["label.Smiling"].astype("float64").to_numpy(na_value=np.nan).copy()
    values[0] = 7.0
    prepared.write(table.astype({"label.Smiling": "float64"}).assign(**{"label.Smiling": values}))
    listed = manifest.read(prepared.data.manifest)
    assert listed.missing == []
    assert str(listed.table["label.Smiling"].dtype) == "Int64"
    assert listed.table["label.Smiling"].isna().sum() == np.isnan(values).sum()
    found = faults.caught(validated(prepared), "label.Smiling is known")
    assert [line.split(": ")[0] for line in found] == [table["source"][0]]
