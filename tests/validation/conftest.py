from __future__ import annotations

from pathlib import Path

import pytest
from support import data_faults as faults
from support.data_faults import DRAFT_FAULTS, Prepared, validated, views

from fra.validation import validate
from fra.validation.verdict import ValidationResult


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Sharded faces without a fault. Tests must not change them."""
    folder = tmp_path_factory.mktemp("clean")
    return faults.prepare(faults.draft(folder), folder / "set")


@pytest.fixture(scope="session")
def clean_result(clean: Prepared) -> ValidationResult:
    return validated(clean, training=views())


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], ValidationResult, Path]:
    """One set with all faults of drafts: the row that each fault must name, the result, the folder."""
    folder = tmp_path_factory.mktemp("spoiled")
    other = faults.other_set(folder)
    draft = faults.draft(folder)
    named = {fault.name: fault.plant(draft) for fault in DRAFT_FAULTS}
    prepared = faults.prepare(draft, folder / "set")
    before = validate.EXAMPLES
    validate.EXAMPLES = 1000  # name all rows, not only the first five
    try:
        result = validated(prepared, held_out=[other])
    finally:
        validate.EXAMPLES = before
    return named, result, prepared.folder
