"""The stages and commands that faults are injected into."""

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
"""The person whose four photographs the commands read."""
TIMES = "speed.json"
"""The file with the duration of a training: it differs in each run, and DVC does not store it."""
MODEL = "artifacts/pretrain/model.safetensors"


@dataclass(frozen=True)
class Command:
    """A stage or command.

    Attributes:
        name: its name in the table of results.
        line: the command line.
        writes: its outputs, which are removed before it is run.
        reads: one of its inputs.
        memory: an address space, in GB, that is too small for it.
        stage: its name in dvc.yaml, if it is a stage.
    """

    name: str
    line: tuple[str, ...]
    writes: tuple[str, ...]
    reads: str
    memory: float
    stage: str | None = None

    @property
    def folder(self) -> str:
        """Returns the path of its first output."""
        return self.writes[0]


def stage(name: str, *writes: str, reads: str, memory: float) -> Command:
    """Returns a stage of dvc.yaml as a command."""
    module, _, task = name.partition("@")
    line = ("python", "-m", f"pipelines.{module}", *([task] if task else []))
    return Command(name, line, writes, reads, memory, name)


def fra(name: str, *arguments: str, writes: tuple[str, ...] = (), reads: str, memory: float) -> Command:
    """Returns a `fra` command."""
    return Command(f"fra {name}", ("fra", *name.split(), *arguments), writes, reads, memory)


FACES = f"faces/{PERSON}"
SHARDS = ("data/shards/orl", "data/beton/orl", "data/manifest", ".work/shards/orl")
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
    """Starts a command in its own session, output and errors together; `before` is put before its line."""
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
    """Runs a command successfully to its end; returns the seconds that it took."""
    begin = time.monotonic()
    process = start(command, workspace)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return time.monotonic() - begin


def contents(workspace: Path, paths: tuple[str, ...]) -> dict[str, str]:
    """Returns every file below `paths` except `TIMES`, with the SHA-256 of its bytes."""
    return {
        os.path.relpath(file, workspace): hashlib.sha256(file.read_bytes()).hexdigest()
        for path in paths
        for file in sorted((workspace / path).rglob("*"))
        if file.is_file() and file.name != TIMES
    }
