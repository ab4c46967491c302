"""Folders as inputs of commands: the images in them, or their tar shards."""

from __future__ import annotations

from pathlib import Path

from fra.files import TAR_END, tar_member
from fra.inference.image_files import find


def test_a_folder_of_tar_shards_is_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "index.json").write_text("{}")
    for number in range(2):
        (folder / f"train-{number}.tar").write_bytes(tar_member(f"p/{number}.jpg", b"a face") + TAR_END)
    assert [file.name for file in find([str(folder)])] == [
        f"{folder}/train-0.tar/p/0.jpg",
        f"{folder}/train-1.tar/p/1.jpg",
    ]
    (folder / "own.jpg").write_bytes(b"a face")
    assert [file.name for file in find([str(folder)])] == [f"{folder}/own.jpg"]
