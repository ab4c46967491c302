"""Weights, checkpoints and betons crafted to crash the reader or to run code."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import fra
from fra.data.shards.beton_reader import Beton, BetonError
from fra.train.checkpoint import Checkpoints
from fra.weights.convert import import_weights
from hostile.targets import beton_seeds


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The folder that a bomb creates; first shows that a bomb works."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trial")))
    assert (tmp_path / "trial").is_dir()
    return tmp_path / "trace"


def written(path: Path, trace: Path, form: str) -> Path:
    content = {"state_dict": {"conv1.weight": Bomb(trace)}, "epoch": 3}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_foreign_checkpoint_runs_nothing(form: str, suffix: str, trace: Path, tmp_path: Path) -> None:
    file = written(tmp_path / f"theirs{suffix}", trace, form)
    reason = (
        "not a complete safetensors file"
        if suffix == ".safetensors"
        else "cannot be read without executing code"
    )
    with pytest.raises(ValueError, match=f"theirs{suffix}: {reason}") as error:
        import_weights(file, tmp_path / "out.safetensors")
    assert "weights_only" not in str(error.value)
    assert not trace.exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_checkpoint_to_resume_from_runs_nothing(
    form: str, trace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Checkpoints(tmp_path / "run")
    kept.save(1, {"step": 1})
    written(tmp_path / "run" / "step-000000002.pt", trace, form)
    assert kept.load() == {"step": 1}
    assert not trace.exists()
    assert "step-000000002.pt cannot be read" in caplog.text
    assert (tmp_path / "run" / "step-000000002.damaged").is_file()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_loading_for_use_runs_nothing(form: str, trace: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "model.safetensors", trace, form)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a complete safetensors file"):
        fra.load(file)
    assert not trace.exists()


def safetensors(header: object, data: bytes = b"", size: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (safetensors({"a": TENSOR}, bytes(8), size=2**63), "not a complete safetensors file"),
        (safetensors({"a": {**TENSOR, "shape": [2**40]}}, bytes(8)), "not a complete safetensors file"),
        (
            safetensors({"a": {**TENSOR, "data_offsets": [0, 2**62]}}, bytes(8)),
            "not a complete safetensors file",
        ),
        (safetensors({"a": TENSOR, "b": TENSOR}, bytes(8)), "not a complete safetensors file"),
        (safetensors({"a": TENSOR}, bytes(8)), "no 'fra' metadata"),
        (
            safetensors({"__metadata__": {"fra": "[" * 100_000}}),
            "its metadata was not written by this project",
        ),
        (safetensors({"__metadata__": {"fra": "7"}}), "its metadata was not written by this project"),
        (safetensors({"__metadata__": {"fra": '{"contents": "backbone"}'}}), "its metadata lacks backbone"),
    ],
)
def test_crafted_safetensors_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.safetensors: {message}"):
        fra.load(tmp_path / "model.safetensors")


def beton(tmp_path: Path, *changes: tuple[int, bytes], cut: int | None = None) -> Path:
    """A small sound beton with bytes changed at some places; negative ones count from the end."""
    content = bytearray(beton_seeds()[0])
    for place, new in changes:
        start = place % len(content)
        content[start : start + len(new)] = new
    path = tmp_path / "train.beton"
    path.write_bytes(bytes(content[:cut]))
    return path


# The header: version (2 bytes), number of fields (2), page size (8), number of samples (8), place of the table (8).
@pytest.mark.parametrize(
    "changes",
    [
        [(0, b"\xff\xff")],
        [(2, b"\xff\xff")],
        [(2, b"\0\0")],
        [(12, b"\xff" * 8)],
        [(12, b"\0\0\0\0\0\0\0\x40")],
        [(20, b"\xff" * 8)],
        [(28, b"\xfe")],
    ],
    ids=[
        "version",
        "many fields",
        "no fields",
        "2^64 images",
        "2^62 images",
        "table beyond the end",
        "kind of field",
    ],
)
def test_a_crafted_beton_header_is_one_clear_error(changes: list[tuple[int, bytes]], tmp_path: Path) -> None:
    with pytest.raises(BetonError, match=r"train\.beton: not a readable beton: ."):
        Beton(beton(tmp_path, *changes))


def test_a_valid_beton_is_read(tmp_path: Path) -> None:
    opened = Beton(beton(tmp_path))
    assert [opened.pixels(place).shape[2] for place in range(len(opened))] == [3] * len(opened)


def test_a_beton_cannot_point_outside_of_itself(tmp_path: Path) -> None:
    """Pointers, sizes and shapes of images are compared with what is stored before a pixel is read."""
    path = beton(tmp_path)
    opened = Beton(path)
    rows = opened.images.copy()
    for field, value in (("data_ptr", 2**60), ("data_ptr", 0), ("height", 60_000), ("width", 0)):
        changed = rows.copy()
        changed[field][0] = value
        opened.images = changed
        with pytest.raises(BetonError, match="image 0 has"):
            opened.pixels(0)
    opened.images = rows
    opened.allocated = opened.allocated.copy()
    opened.allocated["size"] = np.iinfo(np.uint64).max // 2
    with pytest.raises(BetonError, match="image 0 has"):
        opened.pixels(0)
