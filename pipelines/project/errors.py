"""What went wrong, in one line: whatever a command does not catch itself ends it so, and with exit code 1."""

from __future__ import annotations

import os
import sys
from types import TracebackType


def one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """`sys.excepthook`: the error in one line; its traceback where FRA_DEBUG is set."""
    if os.environ.get("FRA_DEBUG") or not isinstance(error, Exception):
        sys.__excepthook__(kind, error, traceback)
    else:
        print(f"error: {describe(error)}", file=sys.stderr)


def describe(error: BaseException) -> str:
    """An exception in one line; exceptions that we raise on purpose speak for themselves."""
    # the second: of a library, while it is loaded
    if isinstance(error, MemoryError) or "failed to map segment" in str(error):
        return "out of memory: give it more, or set fewer workers and smaller batches"
    if isinstance(error, OSError) and error.strerror:  # the system's words: which file, and why
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    ours = isinstance(error, (ValueError, FileNotFoundError, RuntimeError, KeyError))
    return text if ours and text else f"{type(error).__name__}: {text} (set FRA_DEBUG=1 for the traceback)"
