"""Every combination of some parameters as DVC experiments, several at once.

    prefect deployment run sweep/sweep -p grid='["train.lr=0.001,0.003", "objective=fra,byol"]'

Each runs in a folder of its own (`dvc exp run --queue`); pre-trainings wait for each other by the limit "gpu".
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Failed

from pipelines import params
from pipelines.orchestration.workspace import Workspace, alone
from pipelines.run import StageError, check, dvc


def combinations(grid: list[str]) -> list[list[str]]:
    """["a=1,2", "b=3,4"] → [["a=1", "b=3"], ["a=1", "b=4"], ["a=2", "b=3"], ["a=2", "b=4"]].

    Raises:
        ValueError: an entry is not of the form NAME=VALUE[,VALUE…], or refers to something else than parameters.
    """
    choices = []
    for entry in grid:
        name, equals, values = entry.partition("=")
        if not name or not equals or not all(values.split(",")):
            raise ValueError(f"grid: {entry!r} is not of the form NAME=VALUE,VALUE…")
        params.check(entry)
        if "{" in params.REFERENCE.sub("", values):  # its keys would get into the commands of dvc.yaml
            raise ValueError(f"grid: {entry!r} has a mapping in it: name the parameters one by one")
        choices.append([f"{name}={value}" for value in values.split(",")])
    return [list(chosen) for chosen in itertools.product(*choices)]


@flow(name="sweep", persist_result=False)
def sweep(grid: list[str], targets: list[str] | None = None, jobs: int = 1) -> State[None] | None:
    """Runs one experiment a combination, and shows their metrics side by side.

    Args:
        grid: overrides with several values each, as `python -m pipelines.params` takes them with one.
        targets: stages to run, all where empty.
        jobs: how many experiments run at a time.
    """
    log = get_run_logger()
    try:
        chosen = combinations(grid)
    except ValueError as error:
        return Failed(message=str(error))
    log.info("%d experiments, %d at a time", len(chosen), jobs)
    with alone(log.info) as workspace:
        try:
            return explore(workspace, chosen, targets or [], jobs)
        except StageError as error:
            return Failed(message=str(error))
        finally:
            workspace.stop()


def explore(
    workspace: Workspace, chosen: list[list[str]], targets: list[str], jobs: int
) -> State[None] | None:
    """Queues, runs, compares."""
    log = get_run_logger()

    def show(line: str, overwritten: bool) -> None:
        if line and not overwritten:
            log.info("%s", line)

    names = []
    for overrides in chosen:
        name = f"sweep-{os.urandom(3).hex()}"
        arguments = [part for override in overrides for part in ("--set-param", override)]
        ended = workspace.run(dvc("exp", "run", "--queue", "--name", name, *arguments, *targets), show)
        check("sweep", ended)
        names.append(name)
    ended = workspace.run(dvc("exp", "run", "--run-all", "--jobs", str(jobs)), show)
    rows = compare(dict(zip(names, chosen, strict=True)))
    create_table_artifact(
        rows, key="sweep", description="Experiments of a sweep (`dvc exp apply NAME` takes one over)"
    )
    missing = [row["experiment"] for row in rows if row["state"] != "Success"]
    if ended.code or missing:
        return Failed(message=f"{len(missing)} of {len(rows)} experiments failed: {', '.join(missing)}")
    return None


def compare(experiments: dict[str, list[str]]) -> list[dict[str, Any]]:
    """One row an experiment: what was set, whether it succeeded, its figures."""
    import dvc.api
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo:
        states = {entry["name"]: entry["status"] for entry in repo.experiments.celery_queue.status()}
    shown = {row.get("Experiment"): row for row in dvc.api.exp_show()}
    rows = []
    for name, overrides in experiments.items():
        figures = {key: value for key, value in shown.get(name, {}).items() if isinstance(value, float)}
        rows.append(
            {"experiment": name, "set": " ".join(overrides), "state": states.get(name, "Unknown"), **figures}
        )
    return rows
