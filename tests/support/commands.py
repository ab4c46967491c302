"""The stages and commands that are disturbed, and the small finished chain that each works in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from support.workspace import environment

PERSON = "s2"
"""Whose four photographs the commands look at."""
TIMES = "speed.json"
"""How long training took: no two runs agree, and DVC does not keep it."""
MODEL = "artifacts/pretrain/model.safetensors"


@dataclass(frozen=True)
class Command:
    """`line` writes what is in `writes` (taken away before, so that there is work to do); `reads` is one of its inputs.

    `stage` is its name in dvc.yaml. `memory` is an address space, in GB, in which it cannot do its work.
    """

    name: str
    line: tuple[str, ...]
    writes: tuple[str, ...]
    reads: str
    memory: float
    stage: str | None = None

    @property
    def folder(self) -> str:
        """Where the first of its files goes."""
        return self.writes[0]


def stage(name: str, *writes: str, reads: str, memory: float) -> Command:
    module, _, task = name.partition("@")
    line = ("python", "-m", f"pipelines.{module}", *([task] if task else []))
    return Command(name, line, writes, reads, memory, name)


def fra(name: str, *arguments: str, writes: tuple[str, ...] = (), reads: str, memory: float) -> Command:
    return Command(f"fra {name}", ("fra", *name.split(), *arguments), writes, reads, memory)


FACES = f"faces/{PERSON}"
SHARDS = ("data/shards/orl", "data/beton/orl", "data/manifest")
COMMANDS = (
    stage("ingest", "data/raw/orl", reads="data/orl/annotations.csv", memory=0.3),
    stage("shard", *SHARDS, reads="data/raw/orl/records.parquet", memory=1.0),
    stage("validate", "artifacts/validation", reads="data/shards/orl/train-000000.tar", memory=1.0),
    stage("pretrain", "artifacts/pretrain", reads="data/beton/orl/train.beton", memory=1.0),
    stage(
        "transfer@verification",
        "artifacts/transfer/verification",
        reads="artifacts/pretrain/backbone.safetensors",
        memory=1.0,
    ),
    stage("report", "artifacts/report", reads=MODEL, memory=1.0),
    fra("embed", FACES, "--out", "out/e.parquet", writes=("out",), reads=MODEL, memory=1.0),
    fra("heatmaps", FACES, "--out", "out/h.png", writes=("out",), reads=MODEL, memory=1.0),
    fra("export", "safetensors", "--out", "out/x.safetensors", writes=("out",), reads=MODEL, memory=1.0),
    fra("lineage verify", reads=MODEL, memory=0.3),
    fra(
        "data withdraw",
        *("--subject", PERSON, "--by", "the board", "--no-run"),
        writes=("data/withdrawn/orl",),
        reads="data/manifest/orl.parquet",
        memory=0.3,
    ),
    Command(
        "dvc repro",
        ("dvc", "repro", "--force", "--single-item", "ingest", "shard"),
        ("data/raw/orl", *SHARDS),
        "data/orl/annotations.csv",
        0.3,
    ),
)


def start(command: Command, workspace: Path, *before: str) -> subprocess.Popen[str]:
    """Starts it in a session of its own, output and errors together; `before` goes before its line."""
    program, *arguments = command.line
    line = [
        sys.executable if program == "python" else str(Path(sys.executable).with_name(program)),
        *arguments,
    ]
    own = {**environment(), "PYTHONPATH": str(workspace), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*before, *line],
        cwd=workspace,
        env=own | ({"DVC_STAGE": command.stage} if command.stage else {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def undisturbed(command: Command, workspace: Path) -> float:
    """Runs it to its good end; returns the seconds that it took."""
    begun = time.monotonic()
    process = start(command, workspace)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return time.monotonic() - begun


def contents(workspace: Path, paths: tuple[str, ...]) -> dict[str, str]:
    """Every file below `paths`, but `TIMES`, with the SHA-256 of its bytes."""
    return {
        os.path.relpath(file, workspace): hashlib.sha256(file.read_bytes()).hexdigest()
        for path in paths
        for file in sorted((workspace / path).rglob("*"))
        if file.is_file() and file.name != TIMES
    }
