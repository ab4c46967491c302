"""The fingerprint of a folder that DVC does not watch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.orchestration import fingerprint


def test_fingerprint_changes_with_times_and_names_of_files(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    image = tmp_path / "s1/1.jpg"
    image.write_bytes(b"12")
    first = fingerprint.of_folder(tmp_path)
    (tmp_path / ".hidden").write_text("")
    assert fingerprint.of_folder(tmp_path) == first
    os.utime(image, ns=(0, 0))
    touched = fingerprint.of_folder(tmp_path)
    assert touched != first
    image.rename(tmp_path / "s1/2.jpg")
    assert fingerprint.of_folder(tmp_path) not in (first, touched)


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        fingerprint.of_folder(tmp_path / "nowhere")


def test_only_the_stored_fingerprint_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "STORED", tmp_path / "seen")
    assert not fingerprint.is_stored("faces", "a")
    fingerprint.store("faces", "a")
    assert fingerprint.is_stored("faces", "a")
    assert not fingerprint.is_stored("faces", "b")
