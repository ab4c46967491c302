"""One page that sets runs side by side: the workspace, and DVC experiments by name. Figures come from DVC's cache."""

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
from fra.report.artifacts import MINUS
from fra.report.headline import metric_of
from fra.transfer.config import PRETRAINED, RANDOM
from fra.transfer.tasks import TASKS
from pipelines.project import paths
from pipelines.repo import experiments
from pipelines.repo.hashes import CACHE, object_path
from pipelines.repo.lock import LineageError, Stage, read

HERE = Path(__file__).parent
STYLE = HERE.parents[1] / "fra/report/templates/style.css"
LABELLED = 3
"""Parameters that fit into a run's name in a chart."""
CURVES = 5
"""Runs whose loss is drawn: more lines than this cannot be told apart."""


@dataclass(frozen=True)
class Table:
    """A table of the page; `words` where its cells are no numbers."""

    title: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    words: bool = False


def write(out: Path, names: list[str], root: Path = Path()) -> list[str]:
    """Writes the comparison of the workspace and the experiments `names` (all, where none is named).

    Returns the runs that were left out, as they have no results: the workspace, or any where none is named.

    Raises:
        LineageError: an experiment is not known, or was not run to its end, or its figures are no longer in the cache.
    """
    known = {run.name: run for run in experiments.runs(root)}
    for name in names:
        if name not in known:
            raise LineageError(f"no experiment {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
        if not ended(known[name].stages()):
            raise LineageError(
                f"experiment {name!r} has no {paths.RESULTS}: run it to its end, without naming a stage"
            )
    chosen = names or [run.name for run in known.values()]
    found = {"workspace": read(root)} | {name: known[name].stages() for name in chosen}
    stages = {name: run for name, run in found.items() if ended(run)}
    if not stages:
        raise LineageError(f"no run has {paths.RESULTS} yet: `dvc repro`, or an experiment, to its end")
    results = {name: flat(json.loads(content(found, paths.RESULTS, root))) for name, found in stages.items()}
    params = {name: flat(parameters(found)) for name, found in stages.items()}
    histories = {
        name: read_csv(
            BytesIO(content(found, paths.PRETRAIN / "history.csv", root)), {"step": "int64"}, "float64"
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
            "Parameters that differ", "All others are the same", *side_by_side(differing(params)), words=True
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


def ended(stages: Mapping[str, Stage]) -> bool:
    """Whether a run wrote its results, the last of what it makes."""
    return any(paths.RESULTS.as_posix() in stage.outs for stage in stages.values())


def content(stages: Mapping[str, Stage], path: Path, root: Path) -> bytes:
    """The bytes of an artifact of a run, from DVC's cache. Raises `LineageError` where they are gone."""
    for stage in stages.values():
        if digest := stage.outs.get(path.as_posix()):
            stored = object_path(root / CACHE, digest)
            if not stored.is_file():
                raise LineageError(
                    f"{path}: {digest} is no longer in DVC's cache: run `dvc fetch --all-commits`"
                )
            return stored.read_bytes()
    raise LineageError(f"{path}: a run did not write it")


def parameters(stages: Mapping[str, Stage]) -> dict[str, Any]:
    return {key: value for stage in stages.values() for key, value in stage.params.items()}


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, its keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def differing(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Only the keys that are not the same in every run."""
    keys = {key for run in values.values() for key in run}
    differ = {key for key in keys if len({json.dumps(run.get(key)) for run in values.values()}) > 1}
    return {name: {key: run.get(key) for key in sorted(differ)} for name, run in values.items()}


def side_by_side(values: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: keys by runs, the more numerous of the two down the page."""
    keys = list(dict.fromkeys(key for run in values.values() for key in run))
    if len(values) > len(keys):
        return ["", *keys], [[name, *(shown(run.get(key)) for key in keys)] for name, run in values.items()]
    rows = [[key, *(shown(run.get(key)) for run in values.values())] for key in keys]
    return ["", *values], rows


def shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def labels(differ: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What each run is called in a chart: its few parameters that differ, if they tell all apart; else those that it
    has otherwise than most runs, as in an ablation; else its name."""
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
        if keys and all(len(run) <= LABELLED for run in chosen.values()):
            told = {
                name: ", ".join(f"{key.rpartition('.')[2]} {shown(value)}" for key, value in run.items())
                or "as most runs"
                for name, run in chosen.items()
            }
            if len(set(told.values())) == len(names):
                return told
    return names


def task_metrics(stages: Mapping[str, Stage], root: Path) -> dict[str, dict[str, Any]]:
    """The `metrics.json` of each task that a run was judged on."""
    written = {path for stage in stages.values() for path in stage.outs}
    files = {task: paths.TRANSFER / task / "metrics.json" for task in TASKS}
    return {
        task: json.loads(content(stages, file, root))
        for task, file in files.items()
        if file.as_posix() in written
    }


def gains(runs: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, Markup]:
    """A chart a task: the figure of each run less that of random weights, with its 95 % interval."""
    drawn: dict[str, Markup] = {}
    for task in dict.fromkeys(task for metrics in runs.values() for task in metrics):
        name = TASKS[task].primary
        metric = metric_of(name)
        less = {
            run: metrics[task][f"{PRETRAINED}{MINUS}{RANDOM}"][name]
            for run, metrics in runs.items()
            if task in metrics
        }
        frame = pd.DataFrame(
            [
                {
                    "row": run,
                    "series": "run",
                    **{part: figure[part] * metric.scale for part in ("mean", "low", "high")},
                }
                for run, figure in less.items()
            ]
        )
        better = "less is better" if name in TASKS[task].lower_is_better else "more is better"
        unit = "points, " if metric.scale == 100 else ""
        title = f"{metric.label}, less random weights ({unit}{better})"
        drawn[task] = charts.intervals(
            frame, colours=["var(--series-0)"], x_title=title, row_height=22, line_at=0.0
        )
    return drawn


def losses(histories: Mapping[str, pd.DataFrame]) -> Markup | None:
    """The total loss of the first runs in one chart; None where there is none."""
    drawn = {name: table for name, table in list(histories.items())[:CURVES] if len(table)}
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
