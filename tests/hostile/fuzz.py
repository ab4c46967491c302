"""Coverage-guided fuzzing of the readers in `targets`, for any time.

    pip install --no-deps atheris==3.0.0
    python tests/hostile/fuzz.py SECONDS [TARGET…]       seconds for each target, of all where none is named

An input that broke a reader is stored in tests/hostile/corpus/<target>/, which the tests read. A single run that
takes more than two minutes of wall-clock time, or four gigabytes, counts as broken.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).parent
TESTS = str(HERE.parent)


def fuzz(target: str, arguments: list[str]) -> None:
    """Runs libFuzzer on one target in this process, which libFuzzer ends."""
    import atheris

    sys.path.insert(0, TESTS)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["fra", "PIL", "braceexpand", "tarfile"]):
        from hostile.targets import TARGETS
    run = TARGETS[target].run
    folder = Path(arguments[0])
    for number, seed in enumerate(TARGETS[target].seeds()):
        (folder / str(number)).write_bytes(seed)

    def run_once(content: bytes) -> None:
        run(content)

    atheris.Setup([sys.argv[0], *arguments], run_once)
    atheris.Fuzz()


def fuzz_in_process(target: str, seconds: int) -> str:
    """Fuzzes one target in a process of its own; returns a line of results."""
    kept = HERE / "corpus" / target
    kept.mkdir(parents=True, exist_ok=True)
    before = set(kept.iterdir())
    with tempfile.TemporaryDirectory() as seeds:
        limits = [
            "-timeout=120",
            "-report_slow_units=120",
            "-rss_limit_mb=4096",
            f"-max_total_time={seconds}",
            f"-artifact_prefix={kept}/",
        ]
        command = [sys.executable, __file__, "--inside", target, seeds, *limits]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    runs = re.findall(r"Done (\d+) runs in (\d+) second|stat::number_of_executed_units: (\d+)", done.stderr)
    found = sorted(path.name for path in set(kept.iterdir()) - before)
    if not any(kept.iterdir()):
        kept.rmdir()
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    figures = f"{runs[-1][0]} runs in {runs[-1][1]} s" if runs else f"ended with {done.returncode}"
    problem = "" if runs or found else f": {done.stderr.strip().splitlines()[-1:]}"
    return f"{target}: {figures}, {coverage[-1] if coverage else 0} edges, {len(found)} findings {found or ''}{problem}"


def main() -> None:
    if sys.argv[1] == "--inside":
        fuzz(sys.argv[2], sys.argv[3:])
        return
    sys.path.insert(0, TESTS)
    from hostile.targets import TARGETS

    for target in sys.argv[2:] or TARGETS:
        print(fuzz_in_process(target, int(sys.argv[1])), flush=True)


if __name__ == "__main__":
    main()
