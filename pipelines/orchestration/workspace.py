"""One run at a time in this folder, and the processes that it starts."""

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
class Ended:
    """How a process ended: exit code, all that it printed, and whether it took too long."""

    code: int
    output: str
    timed_out: bool


@dataclass
class Workspace:
    """The right to run stages here, and those that run at the moment."""

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
    ) -> Ended:
        """Runs a command to its end; it dies with this process, and with `stop`.

        `show` gets every line as it is printed, and whether the next one is to overwrite it (a progress bar).
        """
        with self.guard:
            if self.stopping:
                raise InterruptedError("told to stop")
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.orchestration.supervise", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=clean_environment() | (environment or {}),
                # As long as anything of the command lives, the workspace is taken, even if this process is gone.
                pass_fds=[self.lock.fileno()],
            )
            self.running.add(process)
        late = threading.Event()
        timer = threading.Timer(timeout or 0, lambda: (late.set(), process.terminate()))
        timer.daemon = True
        if timeout is not None:
            timer.start()
        output = []
        try:
            assert process.stdout is not None
            for line, overwritten in split(process.stdout):
                output.append(line)
                show(line, overwritten)
            code = process.wait()
        finally:
            timer.cancel()
            with self.guard:
                self.running.discard(process)
            assert process.stdin is not None
            process.stdin.close()
        return Ended(code, "\n".join(output), late.is_set())

    def stop(self) -> None:
        """Tells every process that runs to save its work and end, and lets no other start."""
        with self.guard:
            self.stopping = True
            for process in self.running:
                process.terminate()


def clean_environment() -> dict[str, str]:
    """This process's environment for a stage: this Python first, and nothing that belongs to the parent's flow run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    here = str(Path(sys.executable).parent)
    return kept | {"PATH": f"{here}{os.pathsep}{kept.get('PATH', os.defpath)}", "PYTHONUNBUFFERED": "1"}


def split(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Lines of a stream as they come, without colours; True for those that end in a carriage return."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *lines, rest = re.split(rb"(?<=[\r\n])", (rest + chunk).replace(b"\r\n", b"\n"))
        for line in lines:
            yield text(line), line.endswith(b"\r")
    if rest:
        yield text(rest), False


def text(line: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.decode("utf-8", "replace")).rstrip()


@contextmanager
def alone(say: Callable[[str], None]) -> Iterator[Workspace]:
    """Waits until no other run works in this folder. The lock is the system's: whoever dies gives it back."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as lock:
        waits = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waits:
                    say(f"waiting: {LOCK.read_text().strip() or 'another run'} works in this folder")
                    waits = True
                time.sleep(0.5)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        lock.flush()
        yield Workspace(lock)
