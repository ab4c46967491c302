"""Folders of results that a later run brings up to date, and that survive a kill at any moment.

New files are written to the temporary folder `.partial` in each folder of results, and moved when all are complete:
until then, the results of an earlier run stay as they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from fra.files import FILES, PARTIAL, locked_folder, naming_full_disk, write_json
from fra.inference.journal import Entry, Journal, stamp_of

JOURNAL = ".journal.jsonl"
"""The file in the first folder that says what each photograph has given, see `fra.inference.journal`."""
STARTED, MOVE = "journal.jsonl", "move.json"
"""In the temporary folder: the journal of the run, and which files to move and to remove, once all is complete."""


class Photograph(NamedTuple):
    """What files are named by that a photograph gives, and the file on disk that contains it."""

    key: str
    path: str


class Header(NamedTuple):
    """What results depend on apart from the photographs.

    Attributes:
        settings: By name. Results of other settings are not replaced.
        code: A hash of the code. With other code, everything is computed again.
        places: Absolute paths or patterns of the photographs. Results of others are not replaced.
        drawings: The second folder of results, relative to the first one, if there is one.
    """

    settings: Mapping[str, Any]
    code: str
    places: Sequence[str]
    drawings: str | None


class Results:
    """Folders of results while a run fills them; `updated_folders` makes one.

    Attributes:
        folders: The temporary folders to write to.
        taken_over: Names of the photographs whose results are those of an earlier run that was complete.
    """

    def __init__(
        self, paths: Sequence[Path], last: str, header: Header, photos: Mapping[str, Photograph]
    ) -> None:
        """Takes over what earlier runs have left, complete or not; arguments as of `updated_folders`."""
        self.folders = [path / PARTIAL / FILES for path in paths]
        self.taken_over: set[str] = set()
        self._paths, self._last, self._header, self._photos = paths, last, header, photos
        finish_move(paths[0], last)
        earlier = Journal.read(paths[0] / JOURNAL) if (paths[0] / last).exists() else None
        check_contents(paths, header, Header(*earlier.header) if earlier else None)
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        self._earlier = earlier
        self._journal = self._continued()

    def find(self, name: str) -> Entry | None:
        """What an earlier run made of a photograph; None where it is new, has changed, or is remote."""
        if (entry := self._journal.find(name)) is not None:
            return entry
        if self._earlier is None or Header(*self._earlier.header).code != self._header.code:
            return None
        entry = self._earlier.find(name)
        if entry is None or not self._is_complete(entry, self._paths):
            return None
        self.taken_over.add(name)
        return entry

    def add(self, entry: Entry) -> None:
        """Records a finished photograph, whose files are in `folders`."""
        self._journal.add(entry)

    def removed(self) -> int:
        """How many photographs of the earlier run are not wanted any more."""
        return sum(name not in self._photos for name in self._earlier.names()) if self._earlier else 0

    def move(self) -> None:
        """Moves the new files to the folders of results, and removes what earlier runs have written and this one not.

        Raises:
            FileExistsError: There is another file of this name.
        """
        final = Journal.new(self.folders[0] / JOURNAL, self._header)
        for entry in self._entries():
            final.add(entry)
        before = set() if self._earlier is None else self._files(self._earlier)
        new = {
            (number, str(path.relative_to(folder)))
            for number, folder in enumerate(self.folders)
            for path in folder.rglob("*")
            if path.is_file()
        }
        for number, name in sorted(new - before - {(0, JOURNAL), (0, self._last)}):
            if (self._paths[number] / name).exists():
                raise FileExistsError(
                    f"{self._paths[number] / name}: a file of this name was put into the folder; move it away, then "
                    "give the same command again, which continues"
                )
        gone = sorted(before - self._files(final))
        final.close()
        folders = [os.path.relpath(path, self._paths[0]) for path in self._paths]
        write_json({"folders": folders, "gone": gone}, self._paths[0] / PARTIAL / MOVE)
        finish_move(self._paths[0], self._last)

    def close(self) -> None:
        """Closes the journals."""
        for journal in (self._journal, self._earlier):
            if journal is not None:
                journal.close()

    def _continued(self) -> Journal:
        """The journal of the run that was killed or interrupted, or a new one; files of no entry are removed."""
        path = self._paths[0] / PARTIAL / STARTED
        journal = Journal.read(path)
        if journal is None or journal.header != json.loads(json.dumps(self._header)):
            journal = Journal.new(path, self._header)
        for entry in journal:
            if not self._is_complete(entry, self.folders):
                journal.remove(entry.name)
        kept = {self.folders[number] / name for number, name in self._files(journal)}
        for folder in self.folders:
            for found in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
                if found.is_dir():
                    with suppress(OSError):  # not empty
                        found.rmdir()
                elif found not in kept:
                    found.unlink()
        return journal

    def _is_complete(self, entry: Entry, folders: Sequence[Path]) -> bool:
        """Whether a photograph is the one that an entry is of, and all its files are in these folders."""
        photo = self._photos.get(entry.name)
        if photo is None or entry.stamp is None or photo.key != entry.key:
            return False
        sizes = {(number, name): size for number, name, size in entry.files if number < len(folders)}
        return (
            {number for number, _ in sizes} >= set(range(1, len(folders)))
            and stamp_of(photo.path) == entry.stamp
            and all(
                (stamp := stamp_of(folders[number] / name)) is not None and stamp[0] == size
                for (number, name), size in sizes.items()
            )
        )

    def _entries(self) -> Iterator[Entry]:
        """The entries of all photographs, in their order."""
        for name in self._photos:
            earlier = self._earlier if name in self.taken_over else None
            entry = (earlier or self._journal).find(name)
            if entry is not None:
                yield entry._replace(files=[file for file in entry.files if file[0] < len(self._paths)])

    def _files(self, journal: Journal) -> set[tuple[int, str]]:
        """All files that a journal names in the folders of this run, as number of the folder and name."""
        same = Header(*journal.header).drawings == self._header.drawings
        return {(number, name) for entry in journal for number, name, _ in entry.files if number == 0 or same}


def check_contents(paths: Sequence[Path], header: Header, earlier: Header | None) -> None:
    """Checks that folders are empty, or hold results of an earlier run that this one may bring up to date.

    Raises:
        ValueError: A folder contains something else, or what other settings or photographs have given.
    """
    if earlier is not None:
        for name, value in header.settings.items():
            if earlier.settings.get(name) != value:
                raise ValueError(
                    f"{paths[0]}: made with {name}={earlier.settings.get(name)}, not {value}; give a new folder, or "
                    "the settings of the run before"
                )
        if list(earlier.places) != list(header.places):
            raise ValueError(
                f"{paths[0]}: made from {' '.join(earlier.places)}, not from {' '.join(header.places)}; give a new "
                "folder, or the photographs of the run before"
            )
    absolute = [path.resolve() for path in paths]
    for path, drawings in zip(paths, (None, header.drawings), strict=False):
        known = earlier is not None and drawings in (None, earlier.drawings)
        others = [
            entry
            for entry in path.resolve().iterdir()
            if entry.name != PARTIAL and not any(folder.is_relative_to(entry) for folder in absolute)
        ]
        if others and not known:
            raise ValueError(f"{path}: the folder is not empty; give a new or an empty one")


def finish_move(first: Path, last: str) -> None:
    """Moves the files of a run that is complete, also where an earlier process was killed while it did so."""
    plan = first / PARTIAL / MOVE
    if not plan.exists():
        return
    content = json.loads(plan.read_text(encoding="utf-8"))
    folders = [first / place for place in content["folders"]]
    final = first / PARTIAL / FILES / last
    if final.exists():
        (first / last).unlink(missing_ok=True)
        for number, name in content["gone"]:
            remove_file(folders[number], name)
        for folder in reversed(folders):
            files = folder / PARTIAL / FILES
            found = (path for path in files.rglob("*") if path.is_file())
            for path in sorted(found, key=lambda path: (path == final, path)):
                target = folder / path.relative_to(files)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    plan.unlink()
    for folder in folders:
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def remove_file(folder: Path, name: str) -> None:
    """Removes a file below a folder, and the folders that are empty then."""
    path = folder / name
    path.unlink(missing_ok=True)
    for parent in path.relative_to(folder).parents[:-1]:
        with suppress(OSError):  # not empty
            (folder / parent).rmdir()


@contextmanager
def updated_folders(
    paths: Sequence[Path], last: str, header: Header, photos: Mapping[str, Photograph]
) -> Iterator[Results]:
    """Yields the results of earlier runs, to which new ones are added; moves all to `paths` at the end.

    On an error nothing is left of this run. After an interruption or a kill, the next run with
    the same header continues.

    Args:
        paths: The folder of results and, if wanted, the folder of drawings: new, empty, or of an earlier run.
        last: Name of the file in the first folder that is moved last: where it exists, everything is complete.
        header: What the results depend on.
        photos: The photographs by name, in the order of the results.

    Raises:
        ValueError: A folder holds something else, or another process is writing to it.
        OSError: A path is not a folder or cannot be written, or there is no space for its files.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"{paths[0]}: crops and drawings need a folder each")
    created: list[Path] = []
    results: Results | None = None
    kept = False
    with ExitStack() as stack:
        stack.enter_context(naming_full_disk({path / PARTIAL / ".probe": path for path in paths}))
        try:
            for path in paths:
                if not path.exists():
                    path.mkdir(parents=True)
                    created.append(path)
                stack.enter_context(locked_folder(path))
            results = Results(paths, last, header, photos)
            stack.callback(results.close)
            yield results
            results.move()
            created.clear()
        except Exception as error:
            kept = isinstance(error, FileExistsError) or (paths[0] / PARTIAL / MOVE).exists()
            raise
        except BaseException:  # an interruption
            kept = True
            raise
        finally:
            if not kept:
                for path in paths if results else created:
                    shutil.rmtree(path / PARTIAL, ignore_errors=True)
                for path in reversed(created):
                    path.rmdir()
