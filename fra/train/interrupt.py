"""Stop signals: finish the step, save, and exit with code 75."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

RESUME_ME = 75
"""Exit code of a run that was stopped and continues where it was when started again (EX_TEMPFAIL)."""


class StopSignal:
    """Notes SIGTERM and SIGINT instead of dying of them; a second one ends the process at once.

    Only the main thread may change signal handlers; elsewhere nothing is changed.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {name: signal.signal(name, self._note) for name in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        logger.warning("%s: saving after this step; once more to end at once", signal.Signals(number).name)

    def _restore(self) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler if handler is not None else signal.SIG_DFL)
        self._before = {}
