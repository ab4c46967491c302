"""`fra embed` that was killed continues with the same bytes, and only where nothing has changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fra.gallery import embed as module
from fra.gallery.embed import embed
from fra.gallery.files import read


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty pictures and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 60)).save(folder / f"{number:02d}.png")
    (folder / "17.png").write_text("no image")
    return folder


KILLED = """
import os, signal, sys
from pathlib import Path
from fra.gallery import embed as module
module.PART = 8
write, done = module.write_part, []
def kill_in_the_fourth(job):
    if len(done) == 3:
        job.out.with_name(f".{job.out.name}.partial").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(job)
    return write(job)
module.write_part = kill_in_the_fourth
module.embed([sys.argv[1]], Path("demo"), Path(sys.argv[2]), batch_size=3)
"""


@pytest.mark.parametrize(
    "suffix", [".arrow", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".parquet", ".npz"))]
)
def test_a_killed_run_continues_with_the_same_bytes(
    suffix: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 8)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    assert list(embed([str(pictures)], Path("demo"), whole, batch_size=3).unreadable) == [
        str(pictures / "17.png")
    ]
    if suffix == ".arrow":
        killed = subprocess.run([sys.executable, "-c", KILLED, str(pictures), str(out)], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    else:
        stop_after(2, monkeypatch, pictures, out)
    parts = tmp_path / f".out{suffix}.parts"
    assert not out.exists()
    assert len(list(parts.glob("[0-9]*.arrow"))) == (3 if suffix == ".arrow" else 2)
    written: list[Path] = []
    write = module.write_part
    monkeypatch.setattr(module, "write_part", lambda job: written.append(job.out) or write(job))
    assert len(embed([str(pictures)], Path("demo"), out, batch_size=3).unreadable) == 1
    assert parts / "000000.arrow" not in written
    assert out.read_bytes() == whole.read_bytes()
    assert len(read(out).names) == 39
    assert not parts.exists()


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, pictures: Path, out: Path) -> None:
    """Interrupts a run after some parts."""
    write, done = module.write_part, []

    def interrupt(job: module.PartJob) -> int:
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(job)
        return write(job)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_part", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed([str(pictures)], Path("demo"), out, batch_size=3)


def test_parts_of_other_files_are_not_used(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 8)
    out = tmp_path / "out.arrow"
    stop_after(2, monkeypatch, pictures, out)
    shutil.copy(pictures / "20.png", pictures / "00.png")
    os.utime(pictures / "00.png", ns=(0, time.time_ns()))
    embed([str(pictures)], Path("demo"), out, batch_size=3)
    values_ND = read(out).embeddings_ND
    np.testing.assert_allclose(values_ND[0], values_ND[19], atol=1e-5)
