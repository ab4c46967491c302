"""Stages and commands in a workspace with a number of generated faces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fra.bench.growth.table import Cost, Costs

PYTHON = (sys.executable, "-m")
TASKS = ("expression", "attributes", "alignment", "verification")
STAGES = {
    **{stage: (stage,) for stage in ("ingest", "shard", "validate", "pretrain")},
    "transfer": tuple(f"transfer@{task}" for task in TASKS),
    "report": ("report",),
}
"""DVC's stages by the name in the table; those of `transfer` read the labelled set, whose size is the same."""
STARTER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss], file)
sys.exit(code)
"""
"""Runs a command and writes its CPU seconds and the peak of its largest process in KiB to a file."""
WEIGHTS = "artifacts/pretrain/model.safetensors"


def stages_and_commands(shards: str, query: str) -> dict[str, list[str]]:
    """Returns what is measured, in this order; each runs in the workspace.

    Args:
        shards: Pattern of the tar shards.
        query: An image to search for.
    """
    fra = [*PYTHON, "pipelines.cli"]
    return {
        **{
            f"dvc repro {name}": [*PYTHON, "dvc", "repro", "--single-item", *stages]
            for name, stages in STAGES.items()
        },
        "dvc status": [*PYTHON, "dvc", "status"],
        "fra lineage verify": [*fra, "lineage", "verify"],
        "fra lineage show": [*fra, "lineage", "show", WEIGHTS],
        "fra embed": [*fra, "embed", shards, "-o", "faces.arrow", "-w", WEIGHTS],
        "fra index": [*fra, "index", "faces.arrow"],
        "fra search": [*fra, "search", query, "--in", "faces.arrow", "-w", WEIGHTS],
        "fra atlas": [*fra, "atlas", "faces.arrow", "-o", "atlas", "-w", WEIGHTS, "--no-serve"],
    }


def measure_commands(root: Path, sizes: Sequence[int], only: Sequence[str] = ()) -> Costs:
    """Runs every stage and command at every size, in a clone of the project with small networks.

    Args:
        root: The project's folder, a git repository.
        sizes: Numbers of images.
        only: Names in the table, such as "dvc repro ingest"; empty: all. What they read must be among them.

    Raises:
        ValueError: A name in `only` is not in the table.
        RuntimeError: A command fails; the message has its output.
    """
    costs: dict[str, dict[int, Cost]] = {}
    known = stages_and_commands("", "")
    if wrong := set(only) - known.keys():
        raise ValueError(f"no stage or command {', '.join(sorted(wrong))}; there are {', '.join(known)}")
    with _workspace(root) as folder:
        for size in sorted(sizes):
            _choose(folder, f"faces-{size}", size)
            for name, command in stages_and_commands(f"data/shards/faces-{size}/*.tar", "query.png").items():
                if only and name not in only:
                    continue
                print(f"{size:,} images: {name}", file=sys.stderr)
                costs.setdefault(name, {})[size] = run(command, folder)
    return costs


@contextmanager
def _workspace(root: Path) -> Iterator[Path]:
    """Yields a clone of the project with its labelled set and an image to search for.

    The code is copied with its times, since Numba otherwise compiles it again, which would count at the smallest size.
    """
    with tempfile.TemporaryDirectory(prefix="fra-growth-") as name:
        folder = Path(name) / "project"
        run(["git", "clone", "--quiet", str(root), str(folder)], Path(name))
        for code in ("fra", "pipelines"):
            ignored = shutil.ignore_patterns("*.pyc", "*.pyc.*", "*.tmp.*")
            shutil.copytree(root / code, folder / code, ignore=ignored, dirs_exist_ok=True)
        _choose(folder, "faces-first", 1)
        run([*PYTHON, "dvc", "repro", "benchmark@orl"], folder)
        _write_query(folder / "query.png")
        yield folder


def _choose(folder: Path, name: str, images: int) -> None:
    """Chooses the parameters: a data set of generated faces, and one epoch of a small network."""
    parameters = [
        *("recipe=tiny", "model=mini", "dataset=generated", f"dataset.name={name}"),
        *(f"dataset.images={images}", "train.epochs=1", "train.warmup_epochs=0", "train.batch_size=50"),
    ]
    run([*PYTHON, "pipelines.params", *parameters], folder)


def _write_query(path: Path) -> None:
    import cv2

    from fra.bench.detection import generated_faces

    cv2.imwrite(str(path), generated_faces(1, seed=1)[0])


def run(command: Sequence[str], folder: Path) -> Cost:
    """Runs a command in a folder to its end and returns its cost.

    A small process starts it: a new process inherits the peak memory of the one that starts it.

    Raises:
        RuntimeError: It fails; the message has its output.
    """
    environment = {**os.environ, "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "true", "PYTHONPATH": ""}
    with tempfile.NamedTemporaryFile() as usage:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", STARTER, usage.name, *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
        )
        wall = time.perf_counter() - start
        if done.returncode:
            text = done.stdout.strip()[-3000:]
            raise RuntimeError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{text}")
        cpu, kibibytes = json.load(usage)
    return Cost(wall, cpu, kibibytes * 1024)
