"""The project's root: the folder with dvc.yaml, in which every command of the pipeline runs."""

from __future__ import annotations

from pathlib import Path

MARKER = "dvc.yaml"


class NotInRootError(RuntimeError):
    """A command that needs the project was started in another folder than the project's root."""


def find_root() -> Path | None:
    """Returns the nearest folder with dvc.yaml, from the current folder upwards; None if there is none."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / MARKER).is_file()), None)


def refuse_subfolder() -> None:
    """Checks that the current folder is not below the project's root, to which all paths are relative.

    Raises:
        NotInRootError: it is; the message names the root.
    """
    root, here = find_root(), Path.cwd()
    if root not in (None, here):
        raise NotInRootError(f"{here}: not the project's root: go there first (cd {root})")


def require_root() -> None:
    """Checks that the current folder is the project's root.

    Raises:
        NotInRootError: it is another folder; the message names the root if a parent folder is one.
    """
    refuse_subfolder()
    if find_root() is None:
        raise NotInRootError(
            f"{Path.cwd()}: not in a project ({MARKER} is missing): go to the project's root first"
        )
