"""A parameter sweep: each combination of some parameter values as a DVC experiment.

    prefect deployment run sweep/sweep -p grid='["train.lr=0.001,0.003", "objective=fra,byol"]'

An experiment runs in a temporary copy of the project (`dvc exp run --temp`), as a child process of the flow: it is
stopped with the flow, and nothing of it is left. A sweep whose worker died is started again and runs the experiments
that are missing. Pre-trainings wait for each other by the limit "gpu".
"""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Failed

from pipelines import params
from pipelines.orchestration import flow_run
from pipelines.orchestration.execution import Log, StageError, check, dvc_command
from pipelines.orchestration.workspace import Workspace, exclusive_workspace
from pipelines.overrides import REFERENCE, check_override
from pipelines.repo import experiments

EXECUTIONS = Path(".dvc/tmp/exps")
"""The folder in which DVC runs experiments and describes each in a file */run/<id>/<id>.run."""


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
        check_override(entry)
        if "{" in REFERENCE.sub("", values):  # its keys would get into the commands of dvc.yaml
            raise ValueError(f"grid: {entry!r} contains a mapping: name its parameters one by one")
        choices.append([f"{name}={value}" for value in values.split(",")])
    return [list(chosen) for chosen in itertools.product(*choices)]


def check_parameters(chosen: list[list[str]]) -> None:
    """Composes the parameters of every combination, as DVC does before it runs an experiment.

    Raises:
        ParamsError: a parameter does not exist, or has a value of the wrong type or out of range.
    """
    if not uses_hydra():
        for override in itertools.chain.from_iterable(chosen):
            params.subsection(override.partition("=")[0], params.read())
        return
    with TemporaryDirectory() as folder:
        composed = Path(folder) / "params.yaml"
        for overrides in chosen:
            params.compose(overrides, composed, params.CONF, Path(params.PROJECT).stem)
            params.check_sections(overrides, composed, params.CONF)


def uses_hydra() -> bool:
    """Returns whether DVC composes params.yaml with Hydra in this repository."""
    from dvc.repo import Repo

    with Repo() as repo:
        return bool(repo.config.get("hydra", {}).get("enabled"))


@flow(name="sweep", persist_result=False)
def sweep(grid: list[str], targets: list[str] | None = None, jobs: int = 1) -> State[None] | None:
    """Runs one experiment for each combination, and shows their metrics in one table.

    Args:
        grid: overrides as for `python -m pipelines.params`, with several values each, separated by commas.
        targets: stages to run; all if empty.
        jobs: the number of experiments that run at the same time.

    Returns:
        A Failed state that names each failed experiment with its error, or None.
    """
    log = get_run_logger()
    with flow_run.claimed() as current:
        try:
            chosen = combinations(grid)
            check_parameters(chosen)
        except ValueError as error:
            return Failed(message=str(error))
        log.info("%d experiments, %d at a time", len(chosen), jobs)
        # The same names in every start of this run, so that a continued run recognises what is finished.
        named = {
            f"sweep-{current.id.hex[:8]}-{number}": overrides for number, overrides in enumerate(chosen, 1)
        }
        with exclusive_workspace(log.info) as workspace:
            remove_leftovers(named)
            errors = run_all(Sweep(workspace, targets or [], log), named, jobs)
            create_table_artifact(
                compare(named, errors),
                key="sweep",
                description="Experiments of a sweep (`dvc exp apply NAME` restores one)",
            )
    if errors:
        reasons = "; ".join(f"{name} ({' '.join(named[name])}): {errors[name]}" for name in errors)
        return Failed(message=f"{len(errors)} of {len(named)} experiments failed: {reasons}")
    return None


@dataclass
class Sweep:
    """What the experiments of one sweep share."""

    workspace: Workspace
    targets: list[str]
    log: Log
    starting: threading.Lock = field(default_factory=threading.Lock)
    """Held while DVC sets an experiment up: it takes any waiting one, not the one that it was given."""

    def run(self, name: str, overrides: list[str]) -> None:
        """Runs one experiment to its end.

        Raises:
            StageError: it failed; the message is its own.
        """
        arguments = [part for override in overrides for part in ("--set-param", override)]
        command = dvc_command("exp", "run", "--temp", "--name", name, *arguments, *self.targets)
        self.starting.acquire()
        release = Once(self.starting)

        def show(line: str, overwritten: bool) -> None:
            if line.startswith("Reproducing experiment"):
                release()
            if line and not overwritten:
                self.log.info("%s: %s", name, line)

        try:
            check(name, self.workspace.run(command, show))
        finally:
            release()
            remove_leftovers([name])


@dataclass
class Once:
    """Releases a lock at the first call, and does nothing at further ones."""

    lock: threading.Lock
    called: bool = False

    def __call__(self) -> None:
        """Releases the lock if this is the first call."""
        if not self.called:
            self.called = True
            self.lock.release()


def run_all(sweep: Sweep, named: Mapping[str, list[str]], jobs: int) -> dict[str, str]:
    """Runs the experiments that are not finished yet, `jobs` at a time; returns the errors by experiment."""
    finished = {found.name for found in experiments.runs()}
    errors: dict[str, str] = {}

    def run(name: str) -> None:
        try:
            sweep.run(name, named[name])
        except StageError as error:
            errors[name] = str(error)

    pool = ThreadPoolExecutor(jobs, thread_name_prefix="experiment")
    try:
        list(pool.map(run, [name for name in named if name not in finished]))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a stop signal must not wait for the experiments
    return {name: errors[name] for name in named if name in errors}


def remove_leftovers(names: Collection[str]) -> None:
    """Removes the temporary folders of these experiments, which a DVC that was killed left."""
    for description in EXECUTIONS.glob("**/run/*/*.run"):
        execution = json.loads(description.read_text(encoding="utf-8"))
        if execution.get("name") in names:
            shutil.rmtree(execution["root_dir"], ignore_errors=True)
            shutil.rmtree(description.parent, ignore_errors=True)


def compare(named: Mapping[str, list[str]], errors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns one row for each experiment: its parameters, its state, and its metrics."""
    import dvc.api

    shown = {row.get("Experiment"): row for row in dvc.api.exp_show()}
    rows = []
    for name, overrides in named.items():
        metrics = {key: value for key, value in shown.get(name, {}).items() if isinstance(value, float)}
        state = f"Failed: {errors[name]}" if name in errors else "Success"
        rows.append({"experiment": name, "set": " ".join(overrides), "state": state, **metrics})
    return rows
