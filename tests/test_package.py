"""The package as others install it: in an empty folder, three lines of Python embed an image."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from support.workspace import ROOT, environment

LINES = """
import fra
encoder = fra.load("demo")
print(tuple(encoder.embed(["face.jpg"]).shape), fra.__file__)
"""


def test_three_lines_in_an_empty_folder(tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    install = [
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    source = tmp_path / "source"  # building writes beside the sources
    for name in ("fra", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", *install, "--target", site, source], check=True, env=environment())
    empty.mkdir()
    Image.new("RGB", (80, 90), "tan").save(empty / "face.jpg")
    done = subprocess.run(
        [sys.executable, "-c", LINES],
        cwd=empty,
        env={**environment(), "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    assert done.stdout.startswith("(1, ")


def test_a_checkout_on_windows_has_the_same_bytes(tmp_path: Path) -> None:
    """DVC compares the bytes of code and annotations, and so do the records."""
    text = "a,b\n1,2\n"
    (tmp_path / "from").mkdir()
    (tmp_path / "from/table.csv").write_text(text)
    shutil.copy(ROOT / ".gitattributes", tmp_path / "from")
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (("init", "-q"), ("add", "-A"), (*author, "commit", "-q", "-m", "start")):
        subprocess.run(["git", *command], cwd=tmp_path / "from", check=True)
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", "from", "to"], cwd=tmp_path, check=True)
    assert (tmp_path / "to/table.csv").read_bytes() == text.encode()
