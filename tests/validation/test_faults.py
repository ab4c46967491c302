"""Validation finds every planted fault, names file and reason, and reports nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import data_faults as faults
from support.data_faults import (
    CONFIG,
    DRAFT_FAULTS,
    DRIFTED,
    PREPARED_FAULTS,
    WRONG_VIEWS,
    Fault,
    Prepared,
    caught,
    validated,
    views,
)

from fra.validation.verdict import ValidationResult


def some_are_slow(cases: Iterable[Any]) -> list[Any]:
    """The cases; four of five are slow tests, as each validates a whole set."""
    return [
        pytest.param(case, marks=pytest.mark.slow if place % 5 else ()) for place, case in enumerate(cases)
    ]


def test_at_least_forty_faults_are_tested() -> None:
    names = [fault.name for fault in [*DRAFT_FAULTS, *PREPARED_FAULTS]] + [*DRIFTED, *WRONG_VIEWS]
    assert len(set(names)) == len(names) >= 40


def test_clean_faces_break_no_rule(clean_result: ValidationResult) -> None:
    assert clean_result.success
    assert clean_result.quarantined == 0
    assert [found["name"] for found in clean_result.expectations if not found["success"]] == []


def test_a_set_that_grew_breaks_no_rule(tmp_path: Path) -> None:
    draft = faults.draft(tmp_path)
    few = faults.Draft(draft.root, draft.records[draft.records.index % 3 > 0])
    faults.prepare(few, tmp_path / "set")
    result = validated(faults.prepare(draft, tmp_path / "set"))
    assert result.rows == len(draft.records)
    assert [found["name"] for found in result.expectations if not found["success"]] == []


@pytest.mark.parametrize("fault", DRAFT_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_the_images_or_records_is_found(
    fault: Fault, faulty: tuple[dict[str, str], ValidationResult, Path]
) -> None:
    named, result, folder = faulty
    source = named[fault.name]
    found = caught(result, fault.rule)
    # of duplicates one is kept: the rule names it as the other image
    assert any(line.startswith(f"{source}: ") or line.endswith(f": {source}") for line in found), found[:5]
    (rule,) = [rule for rule in result.expectations if rule["name"] == fault.rule]
    if rule["severity"] == "quarantine":
        quarantined = pd.read_csv(folder / "out/quarantine.csv").set_index("source")["reason"]
        assert source in quarantined.index
    if rule["severity"] == "error":
        assert any(reason.startswith(f"{fault.rule}: ") for reason in result.reasons)


def test_only_planted_faults_stop_the_run(faulty: tuple[dict[str, str], ValidationResult, Path]) -> None:
    _, result, _ = faulty
    stopped = {
        rule["name"] for rule in result.expectations if rule["severity"] == "error" and not rule["success"]
    }
    assert stopped <= {fault.rule for fault in DRAFT_FAULTS}


def test_only_faulty_rows_are_quarantined(faulty: tuple[dict[str, str], ValidationResult, Path]) -> None:
    named, _, folder = faulty
    quarantined = set(pd.read_csv(folder / "out/quarantine.csv")["source"])
    copied = {"s1/copy.pgm", "s_a/copy.pgm"}  # originals may be quarantined as well
    allowed = set(named.values()) | copied
    assert quarantined <= allowed, quarantined - allowed


@pytest.mark.parametrize("fault", some_are_slow(PREPARED_FAULTS), ids=lambda fault: fault.name)
def test_a_fault_in_shards_betons_or_manifest_is_found(fault: Fault, clean: Prepared, tmp_path: Path) -> None:
    prepared = faults.copied(clean, tmp_path / "set")
    named = fault.plant(prepared)
    result = validated(prepared)
    found = caught(result, fault.rule)
    assert any(line.startswith(f"{named}: ") for line in found), (named, found)
    assert not result.success
    assert any(reason.startswith(f"{fault.rule}: ") for reason in result.reasons)


def test_several_faces_of_one_file_are_named_with_their_key(clean: Prepared, tmp_path: Path) -> None:
    prepared = faults.copied(clean, tmp_path / "set")
    table = prepared.manifest()
    prepared.write(table.assign(source="group.jpg", width=table["width"].where(table.index != 1, 93)))
    (named,) = caught(validated(prepared), "size as listed")
    assert named.startswith(f"group.jpg: {table['key'][1]}: ")


def test_a_manifest_that_is_no_table_is_refused(clean: Prepared, tmp_path: Path) -> None:
    prepared = faults.copied(clean, tmp_path / "set")
    prepared.replace("orl.parquet", b"key,split\n")
    with pytest.raises(ValueError, match=r"orl\.parquet: not a readable manifest"):
        validated(prepared)


@pytest.mark.parametrize("name", some_are_slow(WRONG_VIEWS))
def test_wrong_view_settings_are_found(name: str, clean: Prepared, tmp_path: Path) -> None:
    rule, changes = WRONG_VIEWS[name]
    result = validated(faults.copied(clean, tmp_path / "set"), training=views(**changes))
    assert not result.success
    assert "(view 1)" in caught(result, rule)[0]


@pytest.mark.parametrize("name", some_are_slow(DRIFTED))
def test_drift_is_reported(
    name: str, clean: Prepared, clean_result: ValidationResult, tmp_path: Path
) -> None:
    rule, feature = DRIFTED[name]

    def change(profile: dict[str, Any]) -> None:
        if feature in profile["features"]:
            profile["features"][feature] = [value + 30 for value in profile["features"][feature]]
        else:
            profile["labels"][feature] = {"0": 5, "1": 95}

    reference = faults.profile_of(clean, change, tmp_path / "reference.json")
    from dataclasses import replace

    result = validated(faults.copied(clean, tmp_path / "set"), replace(CONFIG, reference=reference))
    assert result.success  # drift only warns
    assert [line.split(":")[0] for line in caught(result, rule)] == [feature]


def test_no_drift_from_itself(clean: Prepared, clean_result: ValidationResult, tmp_path: Path) -> None:
    from dataclasses import replace

    reference = faults.profile_of(clean, lambda profile: None, tmp_path / "reference.json")
    result = validated(faults.copied(clean, tmp_path / "set"), replace(CONFIG, reference=reference))
    (found,) = [found for found in result.expectations if found["name"] == "no drift"]
    assert found["evaluated"]
    assert found["success"]


def test_the_table_in_the_docs_is_current() -> None:
    text = faults.DOC.read_text(encoding="utf-8")
    assert faults.with_table(text) == text, "run `python tests/support/data_faults.py`"
