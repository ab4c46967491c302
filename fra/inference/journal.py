"""What a run has finished, one line per photograph: a run that was killed or interrupted is continued from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

Stamp = tuple[int, int, int]
"""Size, time of change in nanoseconds and inode of a file: where they are the same, so are its bytes."""


class Entry(NamedTuple):
    """A finished photograph.

    Attributes:
        name: The name of the photograph.
        key: The name of its files, without number and suffix: it depends on the other photographs, too.
        stamp: Of its file, before it was read; None where it had none.
        rows: Its rows of the table.
        no_face: Why there are none.
        files: The files that were written for it, relative to the folders of the results, with their sizes.
    """

    name: str
    key: str
    stamp: Stamp | None
    rows: Sequence[Mapping[str, Any]]
    no_face: str | None
    files: Sequence[tuple[int, str, int]]


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file; None where it cannot be read."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


class Journal:
    """The photographs that runs with the same settings have finished, by name."""

    def __init__(self, stream: IO[str], entries: Mapping[str, Entry]) -> None:
        """Takes the open file and what it contains; `open_journal` makes one."""
        self._stream = stream
        self._entries = entries

    def find(self, name: str, key: str, stamp: Stamp | None) -> Entry | None:
        """What an earlier run made of a photograph; None where it is new, has changed, or has no stamp (remote)."""
        entry = self._entries.get(name)
        known = entry is not None and stamp is not None and (entry.key, entry.stamp) == (key, stamp)
        return entry if known else None

    def add(self, entry: Entry) -> None:
        """Appends a line, which is in the file before this returns."""
        self._stream.write(json.dumps(entry) + "\n")
        self._stream.flush()


@contextmanager
def open_journal(
    path: Path, folders: Sequence[Path], settings: Mapping[str, Any], places: Mapping[str, str]
) -> Iterator[Journal]:
    """Opens the journal of a run, with what earlier runs of the same settings have finished.

    Files in the folders of results that are not part of a finished photograph are removed: they are half-written, or
    from another photograph or setting.

    Args:
        path: The file of the journal.
        folders: The folders of results.
        settings: Everything that the results depend on apart from the photographs.
        places: The file on disk of each photograph, by its name.
    """
    known = {}
    for entry in _read(path, settings):
        place = places.get(entry.name)
        stamp = None if place is None else stamp_of(place)
        if stamp is not None and stamp == entry.stamp and _complete(entry, folders):
            known[entry.name] = entry
    kept = {folders[number] / name for entry in known.values() for number, name, _ in entry.files}
    for folder in folders:
        for found in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
            if found.is_dir():
                with suppress(OSError):  # not empty
                    found.rmdir()
            elif found not in kept:
                found.unlink()
    partial = path.with_suffix(".new")
    with partial.open("w", encoding="utf-8") as stream:
        journal = Journal(stream, known)
        stream.write(json.dumps(settings) + "\n")
        for entry in known.values():
            journal.add(entry)
        os.replace(partial, path)
        yield journal


def _read(path: Path, settings: Mapping[str, Any]) -> Iterator[Entry]:
    """The complete lines of a journal; none where the settings are others."""
    if not path.exists():
        return
    first, *lines = path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
    if first != json.dumps(settings):
        return
    for line in lines:
        try:
            name, key, stamp, rows, no_face, files = json.loads(line)
        except ValueError:  # cut off where the whole machine failed
            return
        yield Entry(name, key, stamp and (stamp[0], stamp[1], stamp[2]), rows, no_face, files)


def _complete(entry: Entry, folders: Sequence[Path]) -> bool:
    """Whether all files that were written for a photograph exist in their size."""
    return all(
        (stamp := stamp_of(str(folders[number] / name))) is not None and stamp[0] == size
        for number, name, size in entry.files
    )
