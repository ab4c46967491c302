"""`fra embed` that was killed continues with the same bytes, and only where nothing has changed."""

from __future__ import annotations

import json
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
from support.parts import parts_written

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
def kill_in_the_fourth(encoder, files, out, *others):
    if len(done) == 3:
        out.with_name(f".{out.name}.partial").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(out)
    write(encoder, files, out, *others)
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
    written = parts_written(monkeypatch)
    assert len(embed([str(pictures)], Path("demo"), out, batch_size=3).unreadable) == 1
    assert parts / "000000.arrow" not in written
    assert out.read_bytes() == whole.read_bytes()
    assert len(read(out).names) == 39
    assert not parts.exists()


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, pictures: Path, out: Path) -> None:
    """Interrupts a run after some parts."""
    with monkeypatch.context() as patch:
        parts_written(patch, count)
        with pytest.raises(KeyboardInterrupt):
            embed([str(pictures)], Path("demo"), out, batch_size=3)


FIRST = """
import sys
from pathlib import Path
from fra.gallery.embed import resumable
with resumable(Path(sys.argv[1]), {"run": 1}):
    print("started", flush=True)
    sys.stdin.read()
    print((Path(sys.argv[1]) / "plan.json").read_text())
"""


def test_a_second_process_leaves_the_parts_of_a_new_run_alone(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    command = [sys.executable, "-c", FIRST, str(parts)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "started\n"
        with (
            pytest.raises(ValueError, match="parts: another process is writing"),
            module.resumable(parts, {}),
        ):
            pass
        output, _ = first.communicate("")
    assert json.loads(output) == {"run": 1}
    assert not parts.exists()


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
