"""Coverage-guided fuzzing of the same readers as in the tests, as long as one likes.

    pip install --no-deps atheris==3.0.0
    python tests/hostile/fuzz.py SECONDS [TARGET…]       seconds for each target, of all where none is named

An input that broke a reader is kept in tests/hostile/corpus/<target>/, where the tests read it ever after. A run that
takes longer than two minutes by the clock (a busy machine is slow), or four gigabytes, counts as broken.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import warnings
from contextlib import redirect_stderr
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
with (
    redirect_stderr(io.StringIO()),  # it tells each module
    atheris.instrument_imports(include=["fra", "PIL", "braceexpand", "tarfile"]),
):
    from hostile.targets import TARGETS


def fuzz(target: str, folder: Path, limits: list[str]) -> None:
    """Runs libFuzzer on one target until it ends this process; `folder` gets the seeds, and what it says in `log`."""
    with (folder / "log").open("wb") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(TARGETS[target].seeds()):
        (seeds / str(number)).write_bytes(seed)
    run = TARGETS[target].run

    def once(content: bytes) -> None:
        run(content)

    atheris.Setup([sys.argv[0], str(seeds), *limits], once)
    atheris.Fuzz()


def watched(target: str, seconds: int) -> str:
    """One target in a process of its own; a line of figures."""
    kept = HERE / "corpus" / target
    kept.mkdir(parents=True, exist_ok=True)
    before = set(kept.iterdir())
    with tempfile.TemporaryDirectory() as folder:
        limits = [
            "-timeout=120",
            "-report_slow_units=120",
            "-rss_limit_mb=4096",
            f"-max_total_time={seconds}",
            f"-artifact_prefix={kept}/",
        ]
        process = multiprocessing.get_context("fork").Process(
            target=fuzz, args=(target, Path(folder), limits)
        )
        process.start()
        process.join()
        said = (Path(folder) / "log").read_text(errors="replace")
    runs = re.findall(r"Done (\d+) runs in (\d+) second|stat::number_of_executed_units: (\d+)", said)
    found = sorted(path.name for path in set(kept.iterdir()) - before)
    if not any(kept.iterdir()):
        kept.rmdir()
    coverage = re.findall(r"cov: (\d+)", said)
    figures = f"{runs[-1][0]} runs in {runs[-1][1]} s" if runs else f"ended with {process.exitcode}"
    problem = "" if runs or found else f": {said.strip().splitlines()[-1:]}"
    return f"{target}: {figures}, {coverage[-1] if coverage else 0} edges, {len(found)} findings {found or ''}{problem}"


if __name__ == "__main__":
    for name in sys.argv[2:] or TARGETS:
        print(watched(name, int(sys.argv[1])), flush=True)
