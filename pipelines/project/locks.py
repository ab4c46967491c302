"""A lock that keeps two processes from running the same stage in one folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from pipelines.project import paths


@contextmanager
def exclusive_lock(name: str) -> Iterator[None]:
    """Holds the lock `name` of this folder. The system releases it when the process ends, however it ends.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    path = paths.WORK / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise BlockingIOError(
            errno.EAGAIN, f"another process is running {name} in this folder: wait for it, or end it"
        ) from None
