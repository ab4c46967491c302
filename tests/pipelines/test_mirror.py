from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipelines.project import mirror


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()
    }


def test_the_target_has_the_files_of_the_source_and_no_others(tmp_path: Path) -> None:
    source = write(tmp_path / "source", a="1", b__c="2")
    target = write(tmp_path / "target", a="old", s14__1="a person who was withdrawn")
    mirror.mirror(source, target)
    assert contents(target) == {"a": "1", "b/c": "2"}
    assert (target / "a").samefile(source / "a")
    assert not (target / "s14").exists(), "an empty folder bears the name of a person"


def test_files_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))

    monkeypatch.setattr(os, "link", no_link)
    source = write(tmp_path / "source", a="1")
    mirror.mirror(source, tmp_path / "target")
    assert contents(tmp_path / "target") == {"a": "1"}
    assert not (tmp_path / "target/a").samefile(source / "a")


def test_the_index_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(mirror, "link", lambda source, target: order.append(target.name))
    mirror.mirror(
        write(tmp_path / "source", **{"index.json": "{}", "train.tar": "", "a": ""}), tmp_path / "target"
    )
    assert order == ["a", "train.tar", "index.json"]
