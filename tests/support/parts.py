"""The parts that `fra embed` writes, observed and interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fra.gallery import embed
from fra.inference.encoder import FaceEncoder
from fra.inference.image_files import File


def parts_written(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[Path]:
    """The parts that runs write from now on; a run is interrupted before it writes more than `most` of them."""
    write, done = embed.write_part, list[Path]()

    def record(encoder: FaceEncoder, files: Sequence[File], out: Path, *others: Any) -> None:
        if len(done) == most:
            raise KeyboardInterrupt
        done.append(out)
        write(encoder, files, out, *others)

    monkeypatch.setattr(embed, "write_part", record)
    return done
