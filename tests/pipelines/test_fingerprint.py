from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.orchestration import fingerprint


def test_signature_sees_what_changed(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    image = tmp_path / "s1/1.jpg"
    image.write_bytes(b"12")
    first = fingerprint.signature(tmp_path)
    (tmp_path / ".hidden").write_text("")
    assert fingerprint.signature(tmp_path) == first
    os.utime(image, ns=(0, 0))
    touched = fingerprint.signature(tmp_path)
    assert touched != first
    image.rename(tmp_path / "s1/2.jpg")
    assert fingerprint.signature(tmp_path) not in (first, touched)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        fingerprint.signature(tmp_path / "nowhere")


def test_only_what_was_noted_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SEEN", tmp_path / "seen")
    assert not fingerprint.is_known("faces", "a")
    fingerprint.note("faces", "a")
    assert fingerprint.is_known("faces", "a")
    assert not fingerprint.is_known("faces", "b")
