"""Stop signals: finish the step, save a checkpoint and exit with `os.EX_TEMPFAIL` (75)."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)


class StopSignal:
    """Context manager that records the first SIGTERM or SIGINT in `requested`; the second one ends the process.

    Only the main thread can change signal handlers; in another thread nothing is changed.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = {name: signal.signal(name, self._record) for name in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        logger.warning(
            "%s: saving after this step; send it once more to end at once", signal.Signals(number).name
        )

    def _restore(self) -> None:
        for name, handler in self._previous.items():
            signal.signal(name, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}
