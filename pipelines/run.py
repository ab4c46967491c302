"""The whole pipeline, watched by Prefect: each stage of dvc.yaml a task, run by DVC, in the order of its graph.

    python -m pipelines.run [STAGE…] [--commit]

What is up to date starts no process and shows as Cached. Stages that do not need each other run at the same time. A
stage is tried again where the cause can pass, and nowhere else. Without a server the same steps run as plain Python.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any, TypeAlias

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import Abort, TerminationSignal
from prefect.futures import wait
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, Scheduled
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from pipelines import params
from pipelines.orchestration import artifacts, fingerprint, server
from pipelines.orchestration.workspace import Ended, Workspace, alone
from pipelines.project.errors import describe
from pipelines.repo import git_commit, graph
from pipelines.repo.graph import Plan, Stage
from pipelines.stage import PARENT, RESUME_ME, TRY_AGAIN

Log: TypeAlias = Logger | LoggerAdapter[Any]

HOUR = 3600.0
TIMEOUTS = {"pretrain": 30 * 24 * HOUR, "transfer": 48 * HOUR, "shard": 48 * HOUR, "benchmark": 48 * HOUR}
"""Seconds that a stage (each of a group) may take, unless a run says otherwise; `TIMEOUT` where none is given."""
TIMEOUT = 12 * HOUR
LISTED = "ingest.listed"
RETRIES = 3
BACKOFF = 4.0
"""Seconds before the first retry; doubled for each further one, and spread at random."""


class StageError(RuntimeError):
    """A stage failed for a cause that stays: parameters, data, code."""


class PassingError(StageError):
    """A stage failed for a cause that can pass: a disk, a network, a lock, a signal to save and stop."""


@dataclass
class Work:
    """What the tasks of one run share."""

    workspace: Workspace
    plan: Plan
    timeouts: dict[str, float]
    listed: str | None
    """The listing of the user's own folder, where it is not the one that `ingest` saw last."""
    changed: set[str] = field(default_factory=set)
    """Stages that made something else than was there before."""

    def timeout(self, name: str) -> float:
        """Seconds that the stage may take: its own figure, or its group's."""
        return self.timeouts.get(name, self.timeouts.get(name.partition("@")[0], TIMEOUT))

    def is_current(self, stage: Stage) -> bool:
        """Up to date, and so is all that it reads."""
        return not (stage.stale or self.must_list(stage) or self.changed.intersection(stage.needs))

    def must_list(self, stage: Stage) -> bool:
        """DVC does not watch a folder of the user's own: `ingest` lists it again where it changed."""
        return stage.name == "ingest" and self.listed is not None


def dvc(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def execute(
    stage: Stage, work: Work, log: Log, progress: Callable[[float], None], task_run: str | None
) -> bool:
    """Runs one stage through DVC; False where DVC found it done already, here or in its cache of runs.

    Raises:
        PassingError, StageError: it failed, with the stage's own words.
    """
    before = graph.outputs(stage.name)

    def show(line: str, overwritten: bool) -> None:
        percent = re.search(r"(\d+)%\|", line)
        if percent:
            progress(float(percent[1]))
        if line and not overwritten:
            log.info("%s", line)

    force = ["--force"] if work.must_list(stage) else []
    ended = work.workspace.run(
        dvc("repro", "--single-item", *force, stage.name),
        show,
        work.timeout(stage.name),
        {PARENT: task_run} if task_run else None,
    )
    check(stage.name, ended)
    if work.must_list(stage):
        fingerprint.note(LISTED, str(work.listed))
    if graph.outputs(stage.name) != before:
        work.changed.add(stage.name)
    return "Running stage" in ended.output


def check(name: str, ended: Ended) -> None:
    """Raises what a process's end means; nothing where it ended well."""
    if ended.timed_out:
        raise StageError(
            f"{name}: took longer than its timeout and was stopped; what it saved is kept for the next run"
        )
    if ended.code == 0:
        return
    said = re.findall(r"^error: .*", ended.output, re.MULTILINE) or re.findall(
        r"^ERROR: .*", ended.output, re.MULTILINE
    )
    message = said[-1].partition(": ")[2] if said else f"{name} ended with exit code {ended.code}"
    codes = re.findall(r"exited with (-?\d+)", ended.output)  # DVC's own exit code hides that of the stage
    code = int(codes[-1]) if codes else None
    if code == RESUME_ME:
        raise PassingError(f"{name} was told to stop and saved its work")
    if code in (-9, 137):
        raise StageError(
            f"{name} was killed (kill -9, or out of memory); the next run continues from what it saved"
        )
    locked = code is None and re.search(
        r"Unable to acquire lock|is busy, it is being blocked by", ended.output
    )
    raise (PassingError if code == TRY_AGAIN or locked else StageError)(message)


def can_pass(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """Prefect's question before a retry."""
    return isinstance(state.result(raise_on_failure=False), PassingError)


attempts = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(BACKOFF / 2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": can_pass,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(task_run_name="{stage.name}", **attempts)
def perform(stage: Stage, work: Work) -> State[None] | None:
    """One stage as a task."""
    log = get_run_logger()
    if work.is_current(stage):
        return Completed(name="Cached", message="Up to date.")
    with artifacts.progress_of(stage.name, log) as progress:
        context = TaskRunContext.get()
        assert context is not None
        ran = execute(stage, work, log, progress, str(context.task_run.id))
    return None if ran else Completed(name="Cached", message="Done before: taken from DVC's cache.")


@task(task_run_name="push", **attempts)
def push(work: Work) -> None:
    """Sends what was made to the DVC remote."""
    transfer(work, get_run_logger())


def transfer(work: Work, log: Log) -> None:
    """`dvc push`; a remote that does not answer may answer later."""
    ended = work.workspace.run(
        dvc("push"), lambda line, again: None if again else log.info("%s", line), work.timeout("push")
    )
    if ended.code:
        said = re.findall(r"^ERROR: .*", ended.output, re.MULTILINE)
        raise PassingError(f"dvc push: {said[-1] if said else f'exit code {ended.code}'}")


@flow(name="run", task_runner=ThreadPoolTaskRunner(max_workers=os.cpu_count()), persist_result=False)
def run(
    targets: list[str] | None = None, commit: bool = False, timeouts: dict[str, float] | None = None
) -> State[None] | None:
    """Brings `targets` (stages or groups of dvc.yaml; all where empty) and what they need up to date.

    Args:
        targets: names of stages, such as "pretrain", or of groups, such as "transfer".
        commit: commit dvc.lock and the parameters to git afterwards.
        timeouts: seconds by stage, where others are wanted than `TIMEOUTS`.
    """
    log = get_run_logger()
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    with get_client(sync_client=True) as client:
        server.claim(client, context.flow_run.id)
    server.reconcile(log)
    if earlier := server.at_it(context.flow_run):
        return Completed(message=f"Nothing to do: {earlier.name}, due before, is still at it.")
    with alone(log.info) as workspace, watch_parent():
        try:
            drive(prepare(workspace, targets or [], timeouts or {}), log, commit)
        except (StageError, ValueError, FileNotFoundError) as error:
            return Failed(message=describe(error))
        except (TerminationSignal, KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
            workspace.stop()
            give_back(context.flow_run)
            raise
    return None


def prepare(workspace: Workspace, targets: list[str], timeouts: dict[str, float]) -> Work:
    """Reads the graph, and which stages run in any case."""
    plan = graph.read(targets)
    known = {part for stage in plan.stages for part in (stage.name, stage.name.partition("@")[0])} | {"push"}
    if unknown := timeouts.keys() - known:
        raise ValueError(f"timeouts: no stage {', '.join(sorted(unknown))}: use {', '.join(sorted(known))}")
    root = params.read()["dataset"]["root"]
    listed = f"{root} {fingerprint.signature(Path(root).expanduser())}" if root else None
    if listed is not None and fingerprint.is_known(LISTED, listed):
        listed = None
    return Work(workspace, plan, TIMEOUTS | timeouts, listed)


def drive(work: Work, log: Log, commit: bool) -> None:
    """All stages of the plan as tasks; then what they made is shown, sent and written into history."""
    tasks: dict[str, Any] = {}
    for stage in work.plan.stages:
        tasks[stage.name] = perform.submit(stage, work, wait_for=[tasks[need] for need in stage.needs])
    wait(list(tasks.values()))
    states = [future.state for future in tasks.values()]
    failed = [state for state in states if state.is_failed() or state.is_crashed()]
    artifacts.publish(work.plan, log)
    if failed:
        raise StageError(
            "; ".join(dict.fromkeys(str(state.result(raise_on_failure=False)) for state in failed))
        )
    if work.plan.remote:
        push(work)
    if commit:
        git_commit.commit(log)


def give_back(run: FlowRun) -> None:
    """Schedules the run of a deployment again, for another worker to continue, unless it was cancelled."""
    if run.deployment_id is None:
        return
    with get_client(sync_client=True) as client:
        if client.read_flow_run(run.id).state_type == StateType.CANCELLING:
            return
        again = Scheduled(message="Its worker went away; continues where it was.")
        client.set_flow_run_state(run.id, again, force=True)
    raise Abort("the worker of this run went away; another one continues it")


@contextmanager
def watch_parent() -> Iterator[None]:
    """Ends this process as a signal would, when the worker that started it dies."""
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if os.environ.get("PREFECT__FLOW_RUN_ID"):  # a worker's child; whoever starts a run by hand may leave
        threading.Thread(target=watch, daemon=True, name="watch-parent").start()
    try:
        yield
    finally:
        over.set()


def plain(targets: list[str], commit: bool, log: Log) -> None:
    """The same without a server: one stage after the other."""
    with alone(log.info) as workspace:
        work = prepare(workspace, targets, {})
        try:
            for stage in work.plan.stages:
                if work.is_current(stage):
                    log.info("%s: up to date", stage.name)
                else:
                    again(lambda stage=stage: execute(stage, work, log, lambda percent: None, None), log)
            if work.plan.remote:
                again(lambda: transfer(work, log), log)
        finally:
            workspace.stop()
    if commit:
        git_commit.commit(log)


def again(attempt: Callable[[], Any], log: Log) -> None:
    """Tries, and tries again after a cause that can pass."""
    for number in range(RETRIES):
        with suppress(PassingError):
            attempt()
            return
        log.warning("trying again in %.0f s", BACKOFF * 2**number)
        time.sleep(BACKOFF * 2**number)
    attempt()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.run", description=run.__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "targets", nargs="*", metavar="STAGE", help="stages or groups of dvc.yaml; all where none is named"
    )
    parser.add_argument(
        "--commit", action="store_true", help="commit dvc.lock and the parameters to git afterwards"
    )
    chosen = parser.parse_args()
    log = logging.getLogger("pipelines")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    log.propagate = False
    url = server.address()
    try:
        if url is None:
            wanted = os.environ.pop("PREFECT_API_URL", None)
            log.warning(
                "%s: running without it",
                f"no Prefect server answers at {wanted}" if wanted else "no Prefect server",
            )
            plain(chosen.targets, chosen.commit, log)
        else:
            os.environ["PREFECT_API_URL"] = url  # of the stages
            with temporary_settings({PREFECT_API_URL: url}):
                state = run(chosen.targets, chosen.commit, return_state=True)
            if not state.is_completed():
                sys.exit(f"error: {state.message}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("FRA_DEBUG"):
            raise
        sys.exit(f"error: {describe(error)}")


if __name__ == "__main__":
    main()
