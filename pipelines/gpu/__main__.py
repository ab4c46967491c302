"""`make gpu MINUTES=12`: tests, benchmarks and pre-training on a GPU, until the time is up.

Each phase is a process of its own, which is ended when its share of the time is used. What is measured is written to
`results.json` after each phase. A second run in the same folder continues the training; phases with a result are not
repeated.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fra.files import write_json
from pipelines.gpu import PACKAGES, PARAMS

PHASES = {"tests": 0.25, "benchmarks": 0.4, "training": 1.0}
"""Largest share of the remaining time that each phase may use, in their order."""
SAVING = 0.15
"""Share of a phase's time between the request to stop and its end by force, at most `SAVING_SECONDS`."""
SAVING_SECONDS = 20
MODULES = (
    "torch numpy numba pandas pyarrow PIL cv2 sklearn scipy safetensors filelock tqdm yaml fsspec threadpoolctl"
    " pydantic annotated_types webdataset"
)
"""What must be importable, from the environment or the bundle."""


def run_phase(name: str, command: Sequence[str], seconds: float) -> str:
    """Runs a phase for at most so many seconds.

    Returns:
        "done", "stopped" (it stopped when asked to), "killed" (it did not) or "failed".
    """
    saving = min(SAVING_SECONDS, SAVING * seconds)
    process = subprocess.Popen(
        command, start_new_session=True
    )  # a group of its own, with the processes it starts
    try:
        code = process.wait(seconds - saving)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(saving)
        except subprocess.TimeoutExpired:
            print(f"{name}: out of time", flush=True)
            return "killed"
        return "stopped"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "stopped" if code == os.EX_TEMPFAIL else "failed" if code else "done"


def run_phases(commands: Mapping[str, Sequence[str]], seconds: float, out: Path) -> dict[str, Any]:
    """Runs the phases that have no result yet, one after the other, and writes `results.json` after each.

    Args:
        commands: The command of each phase; it writes its result to `<phase>.json` in `out`.
        seconds: Time for all of them.
        out: Folder of the results.
    """
    start = time.monotonic()
    previous = out / "results.json"
    results: dict[str, Any] = json.loads(previous.read_text("utf-8")) if previous.is_file() else {}
    for name, command in commands.items():
        if results.get(name, {}).get("state") == "done":
            print(f"{name}: done before", flush=True)
            continue
        part = out / f"{name}.json"
        part.unlink(missing_ok=True)
        before = time.monotonic()
        state = run_phase(name, command, PHASES[name] * (seconds - (before - start)))
        found = json.loads(part.read_text("utf-8")) if part.is_file() else {}
        results[name] = {"state": state, "seconds": round(time.monotonic() - before, 1), **found}
        write_json(results, previous)
        print(f"{name}: {state} after {results[name]['seconds']:.0f} s", flush=True)
    return results


def check_machine() -> None:
    """Exits with a message that names what is missing on this machine."""
    if not PARAMS.is_file():
        sys.exit(
            f"error: {PARAMS} is missing: run `make gpu-bundle` on a machine with a network, and carry the folder"
        )
    missing = [name for name in MODULES.split() if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {sys.executable} (Python {sys.version.split()[0]}) has no {', '.join(missing)}: install them, or, "
            f"if {PACKAGES} is for another Python, run `make gpu-bundle` again with PYTHON set to this version"
        )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser("python -m pipelines.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0, help="time for all phases together")
    parser.add_argument("--out", type=Path, default=Path(".work/gpu-day"), help="folder of the results")
    parser.add_argument(
        "--epochs", type=int, help="epochs of the training (default: as many as the time allows)"
    )
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        parser.error(f"--minutes must be above 0, got {arguments.minutes}")
    start = time.monotonic()
    check_machine()
    arguments.out.mkdir(parents=True, exist_ok=True)
    commands = {
        name: [sys.executable, "-m", "pipelines.gpu.phases", name, str(arguments.out)] for name in PHASES
    }
    if arguments.epochs is not None:
        commands["training"] += ["--epochs", str(arguments.epochs)]
    deadline = start + 60 * arguments.minutes
    commands["training"] += ["--until", str(deadline)]  # of the monotonic clock, which all processes share
    results = run_phases(commands, deadline - time.monotonic(), arguments.out)
    print(f"results: {arguments.out / 'results.json'}")
    failed = [name for name, result in results.items() if result["state"] == "failed"]
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; the other results hold")


if __name__ == "__main__":
    main()
