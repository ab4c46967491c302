"""A stage that stands in for long or failing work: `python toy_stage.py NAME [hold|flaky|bad]`.

It writes what it read, counts its starts, and notes when it worked in the file that TOY_LOG names.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from pipelines.stage import RESUME_ME, logger, main

NAME, MANNER = sys.argv[1], sys.argv[2]
WORK = Path(".work")
START = WORK / f"{NAME}.starts"
SAVED = WORK / f"{NAME}.saved"


def note(word: str) -> None:
    log = Path(os.environ.get("TOY_LOG", WORK / "log"))
    with log.open("a") as file:
        file.write(f"{time.time():.3f} {word} {NAME} {Path.cwd().name}\n")


def stage() -> None:
    WORK.mkdir(exist_ok=True)
    starts = len(START.read_text()) if START.exists() else 0
    START.write_text("x" * (starts + 1))
    if MANNER == "flaky" and not starts:
        raise ConnectionResetError("the network hiccuped")
    if MANNER == "bad":
        raise ValueError("a parameter is wrong")
    note("begin")
    try:
        if MANNER == "hold":
            hold()
    finally:
        note("end")
    inputs = "".join(path.read_text() for path in sorted(Path("made").glob("*")) if path.stem < NAME)
    Path("made").mkdir(exist_ok=True)
    Path("made", NAME).write_text(f"{NAME} {len(inputs)}\n")
    logger.info("%s is done", NAME)


def hold() -> None:
    """Works for as many tenths of a second as .work/tenths says; saves how far it came when told to stop."""
    told = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: told.append(number))
    done = int(SAVED.read_text()) if SAVED.exists() else 0
    if done:
        logger.info("continuing at %d", done)
    while done < int((WORK / "tenths").read_text()):
        time.sleep(0.1)
        done += 1
        print(f"\r{NAME}:  {done % 100}%|", end="", file=sys.stderr, flush=True)
        if told:
            SAVED.write_text(str(done))
            sys.exit(RESUME_ME)
    print(file=sys.stderr)


stage.__name__ = NAME
del sys.argv[1:]  # a stage's own arguments are checked
main(stage, limit="gpu" if NAME == "pretrain" else None)
