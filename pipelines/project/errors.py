"""Error messages of one line, for every exception that a command does not handle itself."""

from __future__ import annotations

import os
import sys
from types import TracebackType


def print_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints an uncaught exception in one line (`sys.excepthook`); with its traceback if FRA_DEBUG is set."""
    if os.environ.get("FRA_DEBUG") or not isinstance(error, Exception):
        sys.__excepthook__(kind, error, traceback)
    else:
        print(f"error: {describe(error)}", file=sys.stderr)


def describe(error: BaseException) -> str:
    """Returns an exception's message in one line; its type is added unless this project raised it on purpose."""
    # The second condition: a shared library could not be loaded for lack of memory.
    if isinstance(error, MemoryError) or "failed to map segment" in str(error):
        return "out of memory: give it more, or set fewer workers and smaller batches"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if type(error).__module__.startswith("pydantic"):  # a configuration dataclass built without params.yaml
        return _invalid(error)
    text = " ".join(str(error).split())
    ours = isinstance(error, (ValueError, FileNotFoundError, RuntimeError, KeyError))
    return text if ours and text else f"{type(error).__name__}: {text} (set FRA_DEBUG=1 for the traceback)"


def _invalid(error: BaseException) -> str:
    from pydantic import ValidationError

    from pipelines import params

    return params.describe(error, error.title) if isinstance(error, ValidationError) else str(error)
