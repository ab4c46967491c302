"""The same seed on the same machine gives the same bytes in another folder, for another user, in another locale."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.workspace import few_faces, make_workspace, run

NOBODY = 65534


def chain(folder: Path, *before: str, **environment: str) -> dict[str, str]:
    """Runs the whole chain; returns the hash of every artifact, from dvc.lock."""
    done = run(folder, *before, "dvc", "repro", **environment)
    assert done.returncode == 0, done.stdout
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def workspace(folder: Path, faces: Path) -> Path:
    """Makes a workspace with a copy of the images."""
    shutil.copytree(faces, folder / "faces")  # with modification times, which `ingest` lists
    return make_workspace(folder, "dataset.root=faces")


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/dev/shm").stat().st_mode & 0o002, reason="others may not write to /dev/shm here"
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_artifacts_are_the_same_in_another_folder_and_for_another_user(tmp_path: Path) -> None:
    faces = few_faces(tmp_path / "faces")
    first = workspace(tmp_path / "here", faces)
    home = tmp_path / "home"
    home.mkdir()
    other = workspace(tmp_path / "another place" / "with a longer name", faces)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(other), str(home)], check=True)
    reads = "+dac_read_search"  # this Python may be in root's home folder, which others cannot enter
    other_user = (
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *(f"--inh-caps={reads}", f"--ambient-caps={reads}"),
    )
    with_umask = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    elsewhere = {
        "HOME": str(home),
        "USER": "nobody",
        "TZ": "Asia/Kathmandu",
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
    }
    expected = chain(first)
    assert len(expected) > 30
    assert chain(other, *other_user, *with_umask, **elsewhere) == expected
