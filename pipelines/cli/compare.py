"""One HTML page that compares runs: the workspace and DVC experiments, with their metrics from DVC's cache."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fra.files import read_csv, write_text
from fra.report import charts
from fra.report.headline import metric_of
from fra.transfer.config import MINUS, PRETRAINED, RANDOM
from fra.transfer.tasks.table import task_of
from pipelines.project import paths
from pipelines.repo import experiments
from pipelines.repo.hashes import CACHE, object_path
from pipelines.repo.lock import LineageError, Stage, read
from pipelines.repo.run_cache import flatten

HERE = Path(__file__).parent
STYLE = HERE.parents[1] / "fra/report/templates/style.css"
MAX_PARAMETERS = 3
"""Maximum number of parameters in the label of a run."""
MAX_CURVES = 5
"""Maximum number of loss curves: more lines cannot be distinguished."""


@dataclass(frozen=True)
class Table:
    """A table of the page; `text` if its cells are not numbers."""

    title: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    text: bool = False


def write(out: Path, names: list[str], root: Path = Path()) -> list[str]:
    """Write the page that compares the workspace and experiments.

    Args:
        out: The HTML file.
        names: Names of experiments; if empty, all are compared.
        root: Folder of the project.

    Returns:
        Names of the runs that are left out because they are not finished: the workspace, and, if `names` is empty,
        any experiment.

    Raises:
        LineageError: An experiment in `names` does not exist or is not finished, no run is finished, or an artifact is
            missing in the cache.
    """
    known = {run.name: run for run in experiments.runs(root)}
    for name in names:
        if name not in known:
            raise LineageError(f"no experiment {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
        if not is_finished(known[name].stages()):
            raise LineageError(f"experiment {name!r} has no {paths.RESULTS}: run all of its stages")
    chosen = names or [run.name for run in known.values()]
    found = {"workspace": read(root)} | {name: known[name].stages() for name in chosen}
    stages = {name: run for name, run in found.items() if is_finished(run)}
    if not stages:
        raise LineageError(
            f"no run has {paths.RESULTS} yet: run all stages with `dvc repro`, or an experiment"
        )
    results = {
        name: flatten(json.loads(read_output(found, paths.RESULTS, root))) for name, found in stages.items()
    }
    params = {name: flatten(parameters(found)) for name, found in stages.items()}
    histories = {
        name: read_csv(
            BytesIO(read_output(found, paths.PRETRAIN / "history.csv", root)), {"step": "int64"}, "float64"
        )
        for name, found in stages.items()
    }
    tables = [
        Table(
            "Results",
            "The headline metric of each task, compared with random weights",
            *side_by_side(results),
        ),
        Table(
            "Parameters that differ", "All others are the same", *side_by_side(differing(params)), text=True
        ),
    ]
    names_of = labels(differing(params))
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("compare.html").render(
        style=STYLE.read_text(encoding="utf-8"),
        tables=tables,
        gains=gains({names_of[name]: task_metrics(found, root) for name, found in stages.items()}),
        chart=losses({names_of[name]: table for name, table in histories.items()}),
    )
    write_text(page, out)
    return [name for name in found if name not in stages]


def is_finished(stages: Mapping[str, Stage]) -> bool:
    """Return whether a run wrote its results, its last output."""
    return any(paths.RESULTS.as_posix() in stage.outs for stage in stages.values())


def read_output(stages: Mapping[str, Stage], path: Path, root: Path) -> bytes:
    """Read an output of a run from DVC's cache.

    Raises:
        LineageError: No stage of the run wrote it, or it is no longer in the cache.
    """
    for stage in stages.values():
        if digest := stage.outs.get(path.as_posix()):
            stored = object_path(root / CACHE, digest)
            if not stored.is_file():
                raise LineageError(
                    f"{path}: {digest} is no longer in DVC's cache: run `dvc fetch --all-commits`"
                )
            return stored.read_bytes()
    raise LineageError(f"{path}: no stage of the run wrote it")


def parameters(stages: Mapping[str, Stage]) -> dict[str, Any]:
    """Return the parameters of all stages of a run, by section."""
    return {key: value for stage in stages.values() for key, value in stage.params.items()}


def differing(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, by run, the keys whose values differ between runs."""
    keys = {key for run in values.values() for key in run}
    differ = {key for key in keys if len({json.dumps(run.get(key)) for run in values.values()}) > 1}
    return {name: {key: run.get(key) for key in sorted(differ)} for name, run in values.items()}


def side_by_side(values: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of a table of keys and runs; the more numerous of the two are the rows."""
    keys = list(dict.fromkeys(key for run in values.values() for key in run))
    if len(values) > len(keys):
        return ["", *keys], [[name, *(as_text(run.get(key)) for key in keys)] for name, run in values.items()]
    rows = [[key, *(as_text(run.get(key)) for run in values.values())] for key in keys]
    return ["", *values], rows


def as_text(value: Any) -> str:
    """Return a value of a table cell as text; a missing one is a dash."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def labels(differ: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the label of each run in a chart.

    It has the parameters that differ, if they are few and identify each run; otherwise those with another value than
    in most runs, as in an ablation; otherwise it is the name of the run.
    """
    names = {name: name for name in differ}
    keys = {key for run in differ.values() for key in run}
    usual = {
        key: Counter(json.dumps(run.get(key)) for run in differ.values()).most_common(1)[0][0] for key in keys
    }
    unusual = {
        name: {key: value for key, value in run.items() if json.dumps(value) != usual[key]}
        for name, run in differ.items()
    }
    for chosen in (differ, unusual):
        if keys and all(len(run) <= MAX_PARAMETERS for run in chosen.values()):
            labelled = {
                name: ", ".join(f"{key.rpartition('.')[2]} {as_text(value)}" for key, value in run.items())
                or "as most runs"
                for name, run in chosen.items()
            }
            if len(set(labelled.values())) == len(names):
                return labelled
    return names


def task_metrics(stages: Mapping[str, Stage], root: Path) -> dict[str, dict[str, Any]]:
    """Return the content of metrics.json for each task on which a run was evaluated."""
    written = {path for stage in stages.values() for path in stage.outs}
    files = [Path(path) for path in sorted(written) if Path(path).match(f"{paths.TRANSFER}/*/metrics.json")]
    return {file.parent.name: json.loads(read_output(stages, file, root)) for file in files}


def gains(runs: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, Markup]:
    """Draw a chart for each task: difference of the headline metric to random weights, with its 95 % interval.

    Args:
        runs: Content of metrics.json, by label of the run and task.
    """
    drawn: dict[str, Markup] = {}
    for task in dict.fromkeys(task for metrics in runs.values() for task in metrics):
        name = task_of(task).primary
        metric = metric_of(name)
        difference = {
            run: metrics[task][f"{PRETRAINED}{MINUS}{RANDOM}"][name]
            for run, metrics in runs.items()
            if task in metrics
        }
        frame = pd.DataFrame(
            [
                {
                    "row": run,
                    "series": "run",
                    **{part: entry[part] * metric.scale for part in ("mean", "low", "high")},
                }
                for run, entry in difference.items()
            ]
        )
        better = "lower is better" if name in task_of(task).lower_is_better else "higher is better"
        unit = "% points, " if metric.scale == 100 else ""
        title = f"{metric.label} ({unit}{better})"
        drawn[task] = charts.intervals(
            frame, colours=["var(--series-0)"], x_title=title, row_height=22, line_at=0.0
        )
    return drawn


def losses(histories: Mapping[str, pd.DataFrame]) -> Markup | None:
    """Draw the total loss of the first `MAX_CURVES` runs; None if no run has a history."""
    drawn = {name: table for name, table in list(histories.items())[:MAX_CURVES] if len(table)}
    if not drawn:
        return None
    joined = pd.concat(
        [table.set_index("step")["total"].rename(name) for name, table in drawn.items()], axis=1
    )
    colours = [f"var(--series-{number})" for number in range(len(drawn))]
    labels = {name: name for name in drawn}
    frame = joined.interpolate(limit_area="inside").reset_index()
    return charts.curves(
        frame, x="step", y=labels, colours=colours, x_title="Step", y_title="Total loss", from_zero=False
    )
