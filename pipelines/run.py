"""The whole pipeline as a Prefect flow: each stage of dvc.yaml is a task, run by DVC in the order of its graph.

    python -m pipelines.run [STAGE…] [--commit]

A stage that is up to date starts no process and is shown as Cached. Stages that do not depend on each other run at the
same time. A stage is retried after a transient error only. Without a Prefect server the same stages run as plain
Python, one after the other.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture, wait
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from pipelines.orchestration import artifacts, flow_run, server
from pipelines.orchestration.environment import bypass_proxy
from pipelines.orchestration.execution import Execution, Log, StageError, TransientError, prepare
from pipelines.orchestration.workspace import exclusive_workspace
from pipelines.project.errors import describe
from pipelines.project.root import require_root
from pipelines.repo import git_commit
from pipelines.repo.graph import Stage

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 3
BACKOFF = 4.0
"""Seconds before the first retry; doubled before each further one, with a random part added."""
RUNNER = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1))
"""Runs the tasks in threads: each only waits for the process of its stage."""


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Returns whether a failed task is retried (Prefect's `retry_condition_fn`)."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def as_task(function: Callable[P, R], run_name: str) -> Task[P, R]:
    """Returns `function` as a Prefect task that is retried after a transient error."""
    return task(function).with_options(
        task_run_name=run_name,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(BACKOFF / 2),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def run_stage(stage: Stage, execution: Execution) -> State[None] | None:
    """Runs one stage unless it is up to date; returns the state Cached if nothing ran."""
    log = get_run_logger()
    if execution.is_current(stage):
        return Completed(name="Cached", message="Up to date.")
    context = TaskRunContext.get()
    assert context is not None
    with artifacts.progress_of(stage.name, log) as progress:
        ran = execution.run_stage(stage, log, progress, str(context.task_run.id))
    return None if ran else Completed(name="Cached", message="Done before: taken from DVC's cache.")


def push_results(execution: Execution) -> None:
    """Sends all outputs to the DVC remote."""
    execution.push(get_run_logger())


stage_task = as_task(run_stage, "{stage.name}")
push_task = as_task(push_results, "push")


@flow(name="run", task_runner=RUNNER, persist_result=False)
def run(
    targets: list[str] | None = None, commit: bool = False, timeouts: dict[str, float] | None = None
) -> State[None] | None:
    """Brings stages of dvc.yaml and everything that they need up to date.

    Args:
        targets: names of stages, such as "pretrain", or of groups, such as "transfer"; all stages if empty.
        commit: commit dvc.lock and the parameters to git afterwards.
        timeouts: seconds that a stage may take, by stage, in place of the defaults.

    Returns:
        A Failed state with the stage's message, or None.
    """
    log = get_run_logger()
    with flow_run.claimed() as current:
        server.reconcile(log)
        if earlier := server.running_earlier(current):
            return Completed(message=f"Nothing to do: the earlier run {earlier.name} is still running.")
        with exclusive_workspace(log.info) as workspace:
            try:
                run_stages(prepare(workspace, targets or [], timeouts or {}), log, commit)
            except (StageError, ValueError, FileNotFoundError) as error:
                return Failed(message=describe(error))
    return None


def run_stages(execution: Execution, log: Log, commit: bool) -> None:
    """Runs all stages of the plan as tasks, publishes what they made, pushes it, and commits it if asked to.

    Raises:
        StageError: stages failed; the message has each one's own.
    """
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in execution.plan.stages:
        futures[stage.name] = stage_task.submit(
            stage, execution, wait_for=[futures[need] for need in stage.needs], return_state=False
        )
    wait(list(futures.values()))
    states = [future.state for future in futures.values()]
    failed = [state for state in states if state.is_failed() or state.is_crashed()]
    artifacts.publish(execution.plan, log)
    if failed:
        messages = dict.fromkeys(str(state.result(raise_on_failure=False)) for state in failed)
        raise StageError("; ".join(messages))
    if execution.plan.remote:
        push_task(execution)
    if commit:
        git_commit.commit(log)


def run_without_server(targets: list[str], commit: bool, log: Log) -> None:
    """Does the same as the flow `run` in this process, one stage after the other."""
    with exclusive_workspace(log.info) as workspace:
        execution = prepare(workspace, targets, {})

        def run_one(stage: Stage) -> None:
            execution.run_stage(stage, log, progress=lambda percent: None)

        for stage in execution.plan.stages:
            if execution.is_current(stage):
                log.info("%s: up to date", stage.name)
            else:
                retry(run_one, stage, log)
        if execution.plan.remote:
            retry(execution.push, log, log)
    if commit:
        git_commit.commit(log)


def retry(attempt: Callable[[R], object], argument: R, log: Log) -> None:
    """Calls `attempt(argument)`, again after each transient error, at most `RETRIES` times more."""
    for number in range(RETRIES):
        with suppress(TransientError):
            attempt(argument)
            return
        log.warning("retrying in %.0f s", BACKOFF * 2**number)
        time.sleep(BACKOFF * 2**number)
    attempt(argument)


def main() -> None:
    """Runs the pipeline from the command line: by the Prefect server if one answers, else without it."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.run",
        description="Brings stages of dvc.yaml and everything that they need up to date.",
    )
    parser.add_argument(
        "targets", nargs="*", metavar="STAGE", help="stages or groups of dvc.yaml; default: all"
    )
    parser.add_argument(
        "--commit", action="store_true", help="commit dvc.lock and the parameters to git afterwards"
    )
    arguments = parser.parse_args()
    log = logging.getLogger("pipelines")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        require_root()
        bypass_proxy()
        url = server.address()
        if url is None:
            configured = os.environ.pop("PREFECT_API_URL", None)
            missing = f"no Prefect server answers at {configured}" if configured else "no Prefect server"
            log.warning("%s: running without it", missing)
            run_without_server(arguments.targets, arguments.commit, log)
        else:
            os.environ["PREFECT_API_URL"] = url  # for the stages
            with temporary_settings({PREFECT_API_URL: url}):
                state = run(arguments.targets, arguments.commit, return_state=True)
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
