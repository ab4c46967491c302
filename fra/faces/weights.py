"""Detectors' weights that other people's Python packages carry: read from the installed package and checked."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


@cache
def packaged_weights(package: str, name: str, sha256: str, install: str) -> bytes:
    """The bytes of a weights file in an installed package, whose code is not run.

    Args:
        package: Name of the package.
        name: Name of the file.
        sha256: Expected SHA-256 of the file.
        install: The command that installs the package, for the message of an error.

    Raises:
        FileNotFoundError: The package is not installed, or has no such file.
        ValueError: The file has another SHA-256.
    """
    try:
        found = [file for file in files(package) or [] if file.name == name]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError(
            f"{name}: the weights of the face detector are missing; the package {package} has them: `{install}`"
        )
    path = Path(str(found[0].locate()))
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ValueError(f"{path}: SHA-256 is {digest}, expected {sha256}: `{install} --force-reinstall`")
    return content
