"""A file with what a run has finished, one line per photograph, so that nothing is computed twice."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

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
        files: The files that were written for it: to which of the folders of results, the name, and the size.
    """

    name: str
    key: str
    stamp: Stamp | None
    rows: Sequence[Mapping[str, Any]]
    no_face: str | None
    files: Sequence[tuple[int, str, int]]


def stamp_of(path: str | Path) -> Stamp | None:
    """The stamp of a file; None where it cannot be read."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


class Journal:
    """Entries in a file, found by the name of the photograph. Only their places in the file are kept in memory."""

    def __init__(self, stream: BinaryIO, header: Any = None) -> None:
        """Takes the open file; `Journal.new` and `Journal.read` open one."""
        self.header = header
        self._stream = stream
        self._places: dict[str, tuple[int, int]] = {}
        self._writing = threading.Lock()

    @classmethod
    def new(cls, path: Path, header: Any) -> Self:
        """A new journal that is written to a file."""
        journal = cls(path.open("w+b"), header)
        journal._append(header)
        return journal

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The journal in a file, to which more can be added; None where there is none, or not even its header.

        A line that was cut off when the process was killed is removed.
        """
        try:
            journal = cls(path.open("r+b"))
        except FileNotFoundError:
            return None
        end = 0
        for line in journal._stream:
            value = _value(line)
            if end == 0:
                journal.header = value
            elif value is None:
                break
            else:
                journal._places[value[0]] = end, len(line)
            end += len(line)
        if journal.header is None:
            journal.close()
            return None
        journal._stream.truncate(end)
        journal._stream.seek(end)
        return journal

    def __iter__(self) -> Iterator[Entry]:
        """All entries, in the order in which they were added."""
        return (entry for name in self.names() if (entry := self.find(name)) is not None)

    def names(self) -> list[str]:
        """The photographs that have an entry."""
        return list(self._places)

    def find(self, name: str) -> Entry | None:
        """The entry of a photograph. Several threads may use the journal at a time."""
        if name not in self._places:
            return None
        offset, length = self._places[name]
        name, key, stamp, rows, no_face, files = json.loads(os.pread(self._stream.fileno(), length, offset))
        return Entry(name, key, stamp and (stamp[0], stamp[1], stamp[2]), rows, no_face, files)

    def add(self, entry: Entry) -> None:
        """Appends an entry, which is in the file before this returns."""
        self._places[entry.name] = self._append(entry)

    def remove(self, name: str) -> None:
        """Forgets an entry; its line remains in the file until a later entry replaces it."""
        self._places.pop(name, None)

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def _append(self, value: Any) -> tuple[int, int]:
        line = json.dumps(value).encode() + b"\n"
        with self._writing:
            offset = self._stream.tell()
            self._stream.write(line)
            self._stream.flush()
        return offset, len(line)


def _value(line: bytes) -> Any:
    """The content of a line; None where it is not complete."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
