"""The project folder as the workspace of one run at a time, and the processes that this run starts."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipelines.project import paths

LOCK = paths.WORK / "run.lock"


@dataclass(frozen=True)
class ProcessResult:
    """How a process ended: its exit code, its whole output, and whether it exceeded its timeout."""

    code: int
    output: str
    timed_out: bool


@dataclass
class Workspace:
    """The locked project folder, and the processes of the run that holds the lock."""

    lock: IO[str]
    stopping: bool = False
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self,
        command: list[str],
        show: Callable[[str, bool], None],
        timeout: float | None = None,
        environment: dict[str, str] | None = None,
    ) -> ProcessResult:
        """Runs a command to its end; it is stopped with this process, and by `stop`.

        Args:
            command: the program and its arguments.
            show: is called with each line as it is printed, and whether the next line overwrites it (a progress bar).
            timeout: seconds after which the command is stopped.
            environment: variables to add to this process's own.

        Raises:
            InterruptedError: the workspace is being stopped.
        """
        with self.guard:
            if self.stopping:
                raise InterruptedError("stopped by a signal")
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.orchestration.supervise", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=child_environment() | (environment or {}),
                # The workspace stays locked while any process of the command runs, even if this process has ended.
                pass_fds=[self.lock.fileno()],
            )
            self.running.add(process)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.terminate()

        timer = threading.Timer(timeout or 0, expire)
        timer.daemon = True
        if timeout is not None:
            timer.start()
        output = []
        try:
            assert process.stdout is not None
            for line, overwritten in read_lines(process.stdout):
                output.append(line)
                show(line, overwritten)
            code = process.wait()
        finally:
            timer.cancel()
            with self.guard:
                self.running.discard(process)
            assert process.stdin is not None
            process.stdin.close()
        return ProcessResult(code, "\n".join(output), expired.is_set())

    def stop(self) -> None:
        """Sends every running process the signal to save and end, and lets no other one start."""
        with self.guard:
            self.stopping = True
            for process in self.running:
                process.terminate()


def child_environment() -> dict[str, str]:
    """Returns this process's environment for a child: this Python first in PATH, nothing of this flow run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    here = str(Path(sys.executable).parent)
    return kept | {"PATH": f"{here}{os.pathsep}{kept.get('PATH', os.defpath)}", "PYTHONUNBUFFERED": "1"}


def read_lines(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Yields a stream's lines as they come, without colours; True with those that end in a carriage return."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *lines, rest = re.split(rb"(?<=[\r\n])", (rest + chunk).replace(b"\r\n", b"\n"))
        for line in lines:
            yield plain_text(line), line.endswith(b"\r")
    if rest:
        yield plain_text(rest), False


def plain_text(line: bytes) -> str:
    """Returns a line of terminal output as text, without colours and the space at its end."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.decode("utf-8", "replace")).rstrip()


@contextmanager
def exclusive_workspace(log: Callable[[str], None]) -> Iterator[Workspace]:
    """Waits until no other run holds this folder, then holds it; stops all processes that still run at the end.

    The system releases the lock of a dead process.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as lock:
        waiting = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    log(f"waiting: {LOCK.read_text().strip() or 'another run'} is running in this folder")
                    waiting = True
                time.sleep(0.5)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},\n")
        lock.flush()
        workspace = Workspace(lock)
        try:
            yield workspace
        finally:
            workspace.stop()
