"""A stage of the toy pipeline: `python toy_stage.py NAME [plain|hold|flaky|bad]`.

It counts its starts, and writes the times of its beginning and end into the file that TOY_LOG names.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from pipelines.stage import logger, main

NAME, BEHAVIOUR = sys.argv[1], sys.argv[2]
WORK = Path(".work")
LOG = Path(os.environ.get("TOY_LOG", WORK / "log"))
"""Below the toy's folder, also where the stage runs in a copy of it, as an experiment does."""
START = WORK / f"{NAME}.starts"
SAVED = WORK / f"{NAME}.saved"


def note(word: str) -> None:
    with LOG.open("a") as file:
        file.write(f"{time.time():.3f} {word} {NAME} {Path.cwd().name}\n")


def stage() -> None:
    WORK.mkdir(exist_ok=True)
    starts = len(START.read_text()) if START.exists() else 0
    START.write_text("x" * (starts + 1))
    if BEHAVIOUR == "flaky" and not starts:
        raise ConnectionResetError("the network failed")
    if BEHAVIOUR == "bad":
        raise ValueError("a parameter is wrong")
    note("begin")
    try:
        if BEHAVIOUR == "hold":
            hold()
    finally:
        note("end")
    inputs = "".join(path.read_text() for path in sorted(Path("made").glob("*")) if path.stem < NAME)
    Path("made").mkdir(exist_ok=True)
    Path("made", NAME).write_text(f"{NAME} {len(inputs)}\n")
    logger.info("%s is done", NAME)


def hold() -> None:
    """Runs for the time in .work/tenths (tenths of a second); saves its progress after a stop signal."""
    signals = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: signals.append(number))
    done = int(SAVED.read_text()) if SAVED.exists() else 0
    if done:
        logger.info("continuing at %d", done)
    while done < int(LOG.with_name("tenths").read_text()):
        time.sleep(0.1)
        done += 1
        print(f"\r{NAME}:  {done % 100}%|", end="", file=sys.stderr, flush=True)
        if signals:
            SAVED.write_text(str(done))
            sys.exit(os.EX_TEMPFAIL)
    print(file=sys.stderr)


stage.__name__ = NAME
del sys.argv[1:]  # `main` refuses arguments that a stage does not take
main(stage, limit="gpu" if NAME == "pretrain" else None)
