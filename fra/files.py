"""Atomic writing of files, tables with checksums, members of tars, and file hashes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd  # takes half a second: only where tables are used

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Values of `OSError.errno` where the disk, a quota or a limit (`ulimit -f`) has no room for a file."""


def check_output(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Checks that a file can be written, before any work for it is done.

    Raises:
        ValueError: The path has another suffix than those allowed.
        OSError: The path is a folder, or its folder cannot be written to.
    """
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{path}: the output file must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file to write")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: no permission to write to {folder}")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; it replaces `path` at the end and is removed on any error.

    The temporary path always has the same name, so that the remains of a killed process are overwritten. Another
    process that writes the same `path` waits for a file lock, which the kernel releases when its holder dies.

    Raises:
        OSError: There is no space for the file. The message names `path`, whichever library failed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with _locked(partial):
        try:
            yield partial
            os.replace(partial, path)
        except Exception as error:
            if (full := _disk_full(error, partial, path)) is not None:
                raise full from error
            raise
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `partial`, which is created where it is missing."""
    while True:
        with partial.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if partial.exists() and partial.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                yield
                return
        # otherwise the previous holder has moved the file away in the meantime: lock the new one


def _disk_full(error: Exception, partial: Path, path: Path) -> OSError | None:
    """The error that names `path` where there was no space to write the file `partial`, else None."""
    if (number := _out_of_space(error, partial)) is None:
        return None
    remedy = "make room for it (disk, quota, ulimit -f), then run it again"
    return OSError(number, f"{os.strerror(number)}: {remedy}", str(path))


def _out_of_space(error: Exception, partial: Path) -> int | None:
    """Which of `OUT_OF_SPACE` interrupted the writing of a file; None where the reason was another one.

    Python and pyarrow set `errno`. NumPy, safetensors and torch raise errors of their own: then the function tries to
    write one more block.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        try:
            with partial.open("ab") as file:
                file.write(bytes(4096))
        except OSError as failure:
            number = failure.errno
    return number if number in OUT_OF_SPACE else None


def write_text(text: str, path: Path) -> None:
    """Writes a text as UTF-8."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(value: Any, path: Path) -> None:
    """Writes `value` as sorted, indented JSON: equal values give equal bytes."""
    write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", path)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Writes a table with checksums: equal rows give equal bytes. Landmarks are stored as float32."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    for place, column in enumerate(arrow.schema):
        if column.name == "landmarks":
            values = arrow.column(place).cast(pa.list_(pa.float32()))
            arrow = arrow.set_column(place, pa.field("landmarks", pa.list_(pa.float32())), values)
    with atomic(path) as partial:
        pq.write_table(
            arrow.replace_schema_metadata(None), partial, compression="zstd", write_page_checksum=True
        )


def read_parquet(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Reads a table (`columns` only, where given) and compares its checksums.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or not a Parquet table.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such table: run `dvc repro`, which writes it") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: damaged, or not a table ({error}): run `dvc repro`, which writes it again"
        ) from None


def read_csv(
    source: Path | io.StringIO | io.BytesIO, types: Mapping[str, str], others: str | None = None
) -> pd.DataFrame:
    """Reads a table that this project wrote as CSV, with declared column types.

    pandas would guess types: of the key "000129" it makes the number 129, of the name "nan" a missing value. Here text
    stays as it is, and only an empty field of numbers is a missing value.

    Args:
        source: The file, or its content.
        types: The type of each required column: "str", "int64", "Int64" (with missing values) or "float64".
        others: The type of all further columns; None where there are none.

    Raises:
        ValueError: A column is missing or unexpected, or a value is not of its type.
    """
    import pandas as pd

    try:
        kinds = defaultdict(lambda: others or "str", types)
        table = pd.read_csv(source, dtype=kinds, keep_default_na=False, na_values=[""], encoding="utf-8")
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"not a table as written: {error}") from error
    if missing := [name for name in types if name not in table]:
        raise ValueError(f"the column {missing[0]!r} is missing")
    if others is None and (unexpected := [name for name in table if name not in types]):
        raise ValueError(f"the column {unexpected[0]!r} is unexpected")
    return table.fillna({name: "" for name in table if kinds[str(name)] == "str"})


TAR_END = b"\0" * 1024
"""The end mark of a tar file."""


def tar_member(name: str, content: bytes) -> bytes:
    """A file in a tar: header, content, padding. Owner, mode and time are constants, the same on every machine."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uname, info.gname = len(content), 0o644, 0, "fra", "fra"
    return (
        info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + b"\0" * (-len(content) % 512)
    )


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_each(paths: Iterable[Path]) -> dict[Path, str]:
    """The SHA-256 of each file, computed on all cores (hashing releases Python's global lock)."""
    files = list(paths)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(files, pool.map(sha256, files), strict=True))


PARTIAL, FILES, MOVED = ".partial", "files", "moved.json"
"""The temporary folder in a folder that is written; in it the folder of new files, and the list of those moved."""


@contextmanager
def new_folder(path: Path, last: str = "") -> Iterator[Path]:
    """Yields a temporary folder `.partial/files` inside `path`, whose contents are moved to it at the end.

    They are removed on any error. `path` is created where it is missing. Where a process is killed while it moves
    files, the next one undoes that.

    Args:
        path: A new or empty folder.
        last: Name of the file that is moved last: where it exists, everything is complete.

    Raises:
        ValueError: The folder is not empty, or another process is writing to it.
        OSError: The path is not a folder or cannot be written, or there is no space for its files.
    """
    created = not path.exists()
    opened = False
    partial = path / PARTIAL
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locked_folder(path), naming_full_disk({partial / ".probe": path}):
            if not (last and (path / last).exists()):
                _undo_move(path)
            if any(entry.name != PARTIAL for entry in path.iterdir()):
                raise ValueError(f"{path}: the folder is not empty; give a new or an empty one")
            opened = True
            shutil.rmtree(partial, ignore_errors=True)
            (partial / FILES).mkdir(parents=True)
            yield partial / FILES
            _move(path, last)
            created = False
    finally:
        if opened:
            shutil.rmtree(partial, ignore_errors=True)
        if created:
            with suppress(OSError):  # something else was written to it
                path.rmdir()


def _move(path: Path, last: str) -> None:
    """Moves the files of the temporary folder to `path`, after a list of them is written."""
    entries = sorted((path / PARTIAL / FILES).iterdir(), key=lambda entry: (entry.name == last, entry.name))
    write_text(json.dumps([entry.name for entry in entries]), path / PARTIAL / MOVED)
    for entry in entries:
        os.replace(entry, path / entry.name)


def _undo_move(path: Path) -> None:
    """Moves files back to the temporary folder where a process was killed before it had moved all."""
    partial = path / PARTIAL
    if not (partial / MOVED).exists():
        return
    for name in json.loads((partial / MOVED).read_text()):
        if (path / name).exists():
            os.replace(path / name, partial / FILES / name)
    (partial / MOVED).unlink()


@contextmanager
def naming_full_disk(folders: Mapping[Path, Path]) -> Iterator[None]:
    """Lets the error of a full disk name the folder that is written, whichever library failed.

    Args:
        folders: Each folder, by a file that is written there on trial.
    """
    try:
        yield
    except Exception as error:
        for probe, folder in folders.items():
            if (full := _disk_full(error, probe, folder)) is not None:
                raise full from error
        raise


@contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a folder.

    Raises:
        ValueError: Another process holds the lock, or has removed the folder since it was opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            locked = False
        if not locked:
            raise ValueError(f"{path}: another process is writing to this folder")
        yield
    finally:
        os.close(descriptor)
