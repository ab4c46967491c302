"""`make gpu-bundle`: prepares `.work/gpu`, on a machine with the project's environment and a network.

The parameters are composed here, and the few small packages are downloaded that a machine with PyTorch and the usual
scientific packages lacks. The folder is carried to the GPU machine with the project.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from fra.files import new_folder, write_text
from pipelines import params
from pipelines.gpu import PACKAGES, PARAMS
from pipelines.sections import ParamsError

CARRIED = (
    "annotated-types",
    "braceexpand",
    "gan-face-generate",  # the generator of faces
    "pydantic",
    "pydantic-core",
    "typing-inspection",
    "webdataset",
)
"""Packages of requirements.lock that are carried."""
DEFAULTS = ("recipe=gpu-small", "dataset=generated", "dataset.images=262144")
"""Overrides that come before the user's."""
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)


def locked(names: tuple[str, ...], lock: str) -> str:
    """Returns the requirements of packages, with versions and hashes, as requirements.lock has them."""
    blocks = re.findall(r"^[a-z0-9][^=\n]*==(?:.*\\\n)*.*\n", lock, re.MULTILINE)
    return "".join(block for block in blocks if block.partition("==")[0] in names)


def download(packages: Path, python: str) -> None:
    """Downloads `CARRIED` for a version of Python on Linux and unpacks them into a folder.

    Raises:
        CalledProcessError: A package could not be downloaded.
    """
    requirements = packages.parent / "requirements.txt"
    write_text(locked(CARRIED, Path("requirements.lock").read_text(encoding="utf-8")), requirements)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    platforms = [f"--platform={name}" for name in PLATFORMS]
    shutil.rmtree(packages, ignore_errors=True)
    with new_folder(packages) as folder:
        subprocess.run(
            [
                *command,
                *("--require-hashes", "--only-binary=:all:", "--no-compile", "--implementation=cp"),
                *(f"--python-version={python}", *platforms, f"--target={folder}"),
                *("--requirement", str(requirements)),
            ],
            check=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m pipelines.gpu.bundle", description=__doc__)
    parser.add_argument(
        "override", nargs="*", help=f"as of `python -m pipelines.params`; before them: {DEFAULTS}"
    )
    parser.add_argument("--python", default="3.12", help="version of Python on the GPU machine")
    arguments = parser.parse_args()
    try:
        chosen = [*DEFAULTS, *arguments.override]
        PARAMS.parent.mkdir(parents=True, exist_ok=True)
        params.compose(chosen, PARAMS)
        params.check_sections(chosen, PARAMS, params.CONF)
        download(PACKAGES, arguments.python)
    except (ParamsError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    size = sum(file.stat().st_size for file in PARAMS.parent.rglob("*") if file.is_file())
    print(f"{PARAMS.parent}: {size / 2**20:.0f} MiB, for Python {arguments.python}: `make gpu MINUTES=12`")
