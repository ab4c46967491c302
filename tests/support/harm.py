"""The faults: each one disturbs a run of a command, and is removed afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.commands import Command, start
from support.workspace import environment

PATIENCE = 300
"""Seconds within which a disturbed command must end."""


@dataclass(frozen=True)
class Ended:
    """The exit code and output of a disturbed command."""

    code: int
    output: str


Fault = Callable[[Command, Path, float], list[Ended]]
"""Disturbs a run of a command in a workspace, given the seconds of an undisturbed run; returns how it ended."""


def finish(process: subprocess.Popen[str]) -> Ended:
    """Waits for the end of a process."""
    output, _ = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, output)


def signalled(number: signal.Signals) -> Fault:
    """Returns a fault: a signal to the process, not to its group, at a time that the command's name seeds."""

    def fault(command: Command, workspace: Path, seconds: float) -> list[Ended]:
        process = start(command, workspace)
        moment = random.Random(f"{number.name} {command.name}").uniform(0.4, 0.95) * seconds
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        return [finish(process)]

    return fault


def around(harm: Callable[[Command, Path], AbstractContextManager[None]]) -> Fault:
    """Returns a fault that lasts for the whole run."""

    def fault(command: Command, workspace: Path, seconds: float) -> list[Ended]:
        with harm(command, workspace):
            return [finish(start(command, workspace))]

    return fault


def mounted(options: str, *, full: bool = False) -> Callable[[Command, Path], AbstractContextManager[None]]:
    """Returns a fault: a small file system in memory, mounted at the command's first output."""

    @contextmanager
    def harm(command: Command, workspace: Path) -> Iterator[None]:
        folder = workspace / command.folder
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        try:
            if full:
                (folder / "something-else").write_bytes(bytes(4096))
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)

    return harm


def input_is(harm: Callable[[Path], None]) -> Callable[[Command, Path], AbstractContextManager[None]]:
    """Returns a fault: one input is damaged, its modification time kept, and restored afterwards."""

    @contextmanager
    def damaged(command: Command, workspace: Path) -> Iterator[None]:
        victim = workspace / command.reads
        whole = workspace.with_name("whole")
        shutil.copy2(victim, whole)
        victim.unlink()
        shutil.copy2(whole, victim)  # a copy, not a link into DVC's cache
        victim.chmod(0o644)
        harm(victim)
        try:
            yield
        finally:
            victim.unlink(missing_ok=True)
            shutil.copy2(whole, victim)

    return damaged


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x41
    path.write_bytes(content)


@contextmanager
def clock_moved(command: Command, workspace: Path) -> Iterator[None]:
    """All files have modification times ten years ahead: they are newer than what the run writes."""
    ahead = time.time() + 10 * 365 * 86400
    for name in ("fra", "pipelines", "data", "artifacts", "dvc.lock", "params.yaml"):
        top = workspace / name
        for path in [top, *top.rglob("*")]:
            os.utime(path, (ahead, ahead))
    yield


def little_memory(command: Command, workspace: Path, seconds: float) -> list[Ended]:
    return [finish(start(command, workspace, "prlimit", f"--as={int(command.memory * 2**30)}"))]


def lock_of_the_dead(command: Command, workspace: Path, seconds: float) -> list[Ended]:
    """Another DVC process holds DVC's lock, and then is killed."""
    program = (
        "import sys, time\nfrom dvc.repo import Repo\nrepo = Repo()\nrepo.lock.lock()\n"
        "print('held', flush=True)\ntime.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], cwd=workspace, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    refused = finish(start(command, workspace))
    holder.kill()
    holder.wait()
    return [refused, finish(start(command, workspace))]


def twice(command: Command, workspace: Path, seconds: float) -> list[Ended]:
    processes = [start(command, workspace) for _ in range(2)]
    return [finish(process) for process in processes]


FAULTS: dict[str, Fault] = {
    "SIGKILL": signalled(signal.SIGKILL),
    "SIGTERM": signalled(signal.SIGTERM),
    "disk full": around(mounted("size=4k", full=True)),
    "output read-only": around(mounted("ro")),
    "input truncated": around(input_is(truncate)),
    "input flipped": around(input_is(flip)),
    "input removed": around(input_is(Path.unlink)),
    "clock moved": around(clock_moved),
    "memory limited": little_memory,
    "two at once": twice,
    "lock of the dead": lock_of_the_dead,
}
