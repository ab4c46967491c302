"""Runs the stages of one plan through DVC: which are up to date, one stage, what its end means, the push of results."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any, TypeAlias

from pipelines import params
from pipelines.orchestration import fingerprint
from pipelines.orchestration.environment import PARENT_TASK_RUN
from pipelines.orchestration.workspace import ProcessResult, Workspace
from pipelines.repo import graph
from pipelines.repo.graph import Plan, Stage
from pipelines.sections import check_lists

Log: TypeAlias = Logger | LoggerAdapter[Any]

HOUR = 3600.0
TIMEOUTS = {"pretrain": 30 * 24 * HOUR, "transfer": 48 * HOUR, "shard": 48 * HOUR, "benchmark": 48 * HOUR}
"""Seconds that a stage, or each stage of a group, may take unless a run says otherwise."""
DEFAULT_TIMEOUT = 12 * HOUR
INGESTED = "ingest.listed"
"""Name of the stored fingerprint of `dataset.root` as `ingest` listed it last."""


class StageError(RuntimeError):
    """A stage failed because of its parameters, data or code: a retry cannot succeed."""


class TransientError(StageError):
    """A stage failed because of a disk, a network, a lock or a stop signal: a retry may succeed."""


@dataclass
class Execution:
    """The stages of one run, and what their tasks share."""

    workspace: Workspace
    plan: Plan
    timeouts: dict[str, float]
    root_fingerprint: str | None
    """The fingerprint of `dataset.root` if it is not the one that `ingest` listed last, else None."""
    changed: set[str] = field(default_factory=set)
    """Stages whose outputs this run changed."""

    def timeout(self, name: str) -> float:
        """Returns the seconds that a stage may take: its own entry of `timeouts`, or its group's."""
        return self.timeouts.get(name, self.timeouts.get(name.partition("@")[0], DEFAULT_TIMEOUT))

    def is_current(self, stage: Stage) -> bool:
        """Returns whether a stage and everything that it reads are up to date."""
        return not (stage.stale or self.must_list(stage) or self.changed.intersection(stage.needs))

    def must_list(self, stage: Stage) -> bool:
        """Returns whether `ingest` must list `dataset.root` again: DVC does not watch that folder."""
        return stage.name == "ingest" and self.root_fingerprint is not None

    def run_stage(
        self, stage: Stage, log: Log, progress: Callable[[float], None], task_run: str | None = None
    ) -> bool:
        """Runs one stage through DVC.

        Args:
            stage: the stage.
            log: gets the stage's lines.
            progress: is called with the percentage of each progress bar.
            task_run: the id of the task run below which the stage's flow run is shown.

        Returns:
            False if DVC did not run it, as it found the outputs up to date or in its run cache.

        Raises:
            TransientError, StageError: it failed; the message is the stage's own.
        """
        before = graph.outputs(stage.name)

        def show(line: str, overwritten: bool) -> None:
            percent = re.search(r"(\d+)%\|", line)
            if percent:
                progress(float(percent[1]))
            if line and not overwritten:
                log.info("%s", line)

        force = ["--force"] if self.must_list(stage) else []
        result = self.workspace.run(
            dvc_command("repro", "--single-item", *force, stage.name),
            show,
            self.timeout(stage.name),
            {PARENT_TASK_RUN: task_run} if task_run else None,
        )
        check(stage.name, result)
        if self.must_list(stage):
            fingerprint.store(INGESTED, str(self.root_fingerprint))
        if graph.outputs(stage.name) != before:
            self.changed.add(stage.name)
        return "Running stage" in result.output

    def push(self, log: Log) -> None:
        """Sends all outputs to the DVC remote (`dvc push`).

        Raises:
            TransientError: it failed; a remote that does not answer now may answer later.
        """
        result = self.workspace.run(
            dvc_command("push"),
            lambda line, overwritten: None if overwritten else log.info("%s", line),
            self.timeout("push"),
        )
        if result.code:
            messages = re.findall(r"^ERROR: .*", result.output, re.MULTILINE)
            raise TransientError(f"dvc push: {messages[-1] if messages else f'exit code {result.code}'}")


def prepare(workspace: Workspace, targets: list[str], timeouts: dict[str, float]) -> Execution:
    """Reads the graph of stages, and compares `dataset.root` with what `ingest` listed last.

    Raises:
        ValueError: a target or a key of `timeouts` is not a stage; the message names the stages.
        ParamsError: a list of keys is missing.
    """
    values = params.read()
    check_lists(values["dataset"], values.get("benchmarks") or {})
    plan = graph.read(targets)
    known = {part for stage in plan.stages for part in (stage.name, stage.name.partition("@")[0])} | {"push"}
    if unknown := timeouts.keys() - known:
        raise ValueError(f"timeouts: no stage {', '.join(sorted(unknown))}: use {', '.join(sorted(known))}")
    root = values["dataset"]["root"]
    current = f"{root} {fingerprint.of_folder(Path(root).expanduser())}" if root else None
    if current is not None and fingerprint.is_stored(INGESTED, current):
        current = None
    return Execution(workspace, plan, TIMEOUTS | timeouts, current)


def dvc_command(*arguments: str) -> list[str]:
    """Returns the command line of `dvc`, which waits if another DVC process holds the repository's lock."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def check(name: str, result: ProcessResult) -> None:
    """Raises the error that a DVC process ended with, if any.

    Args:
        name: the stage, for the message.
        result: how the process ended.

    Raises:
        TransientError: a disk, a network, a lock or a stop signal was the cause.
        StageError: any other cause; the message is the stage's own.
    """
    if result.timed_out:
        raise StageError(
            f"{name}: exceeded its timeout and was stopped; what it saved is kept for the next run"
        )
    if result.code == 0:
        return
    codes = re.findall(r"exited with (-?\d+)", result.output)  # the stage's exit code, which is not DVC's
    code = int(codes[-1]) if codes else None
    if code == os.EX_TEMPFAIL:
        raise TransientError(f"{name} was stopped by a signal and saved its work")
    if code in (-9, 137):
        raise StageError(
            f"{name} was killed (kill -9, or out of memory); the next run continues from what it saved"
        )
    locked = code is None and re.search(
        r"Unable to acquire lock|is busy, it is being blocked by", result.output
    )
    raise (TransientError if code == os.EX_IOERR or locked else StageError)(message(name, result))


def message(name: str, result: ProcessResult) -> str:
    """Returns the last error line of a process: a stage's own if there is one, else DVC's, else its exit code."""
    for pattern in (r"^error: (.*)", r"^ERROR: (.*)"):
        if lines := re.findall(pattern, result.output, re.MULTILINE):
            return str(lines[-1])
    return f"{name} ended with exit code {result.code}"
