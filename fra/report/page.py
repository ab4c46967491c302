"""Writes the report: artifacts → sections → one HTML file, styles, script, charts and pictures inside.

Same artifacts, same bytes: nothing of the time, the machine or chance gets into the page.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fra import inference
from fra.data.files import write_text
from fra.report import artifacts, charts, faces, headline
from fra.report.artifacts import Run, TaskResult
from fra.transfer import metrics
from fra.transfer.tasks import blocks, landmark_errors

T = TypeVar("T")

SERIES = [f"var(--series-{number})" for number in range(5)]
"""Colours of models and of curves, defined by the style sheet for light and dark."""
SMALL = 2000
"""Labelled images below which figures are marked as those of a small set."""
TABLE_ROWS = 24
"""Rows of the table beside a curve."""


@dataclass(frozen=True)
class Table:
    """A table: columns, rows of text, and what it shows."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A chart, what it says in a sentence (for those who do not see it), its numbers, and how to read it."""

    title: str
    svg: Markup
    summary: str
    table: Table
    note: str = ""


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of one model: rows are true classes; each cell is (text, share of its row).

    `label` is the manifest's label that the classes are values of, where it can be told.
    """

    label: str | None

    caption: str
    classes: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]


@dataclass(frozen=True)
class Missing:
    """Why a part of the page is not there."""

    reason: str


def write(
    out: Path,
    *,
    validation: Path,
    pretrain: Path,
    transfer: dict[str, Path],
    manifest: Path,
    shards: Path,
    provenance: dict[str, Any],
) -> Path:
    """Write the report page of a run to `out` and return it.

    `validation`, `pretrain`, `shards` and the values of `transfer` (by task) are folders that the stages wrote;
    `manifest` is the labelled set's. `provenance` says what the run was made from: scalars and nested dicts, shown as
    they are; `params.views`, if there, are the views that the page draws.

    Missing optional pieces are named on the page in their place: quarantine.csv, data_docs, model.safetensors,
    results.csv, predictions.parquet, the shards.

    Raises:
        FileNotFoundError: a piece is missing without which there is nothing to report.
        GateError: there is no verdict, or it was edited.
        ValueError: a file is damaged.
    """
    run = artifacts.read(
        validation=validation,
        pretrain=pretrain,
        transfer=transfer,
        manifest=manifest,
        shards=shards,
        provenance=provenance,
    )
    environment = Environment(
        loader=PackageLoader("fra.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(context(run, out))
    write_text(page, out)
    return out


def context(run: Run, out: Path) -> dict[str, Any]:
    """What the template shows, section by section; a part that cannot be made is a `Missing`."""
    tables = [headline.table(task) for task in run.tasks]
    tasks = {task.name: task for task in run.tasks}
    return {
        "dataset": run.manifest_path.stem,
        "subtitle": subtitle(run),
        "small": small_set(run.manifest),
        "tables": tables,
        "model_label": headline.model_label,
        "better": {
            "better": ("▲", "better"),
            "worse": ("▼", "worse"),
            "unclear": ("≈", "no clear difference"),
        },
        "training": training_charts(run.history),
        "training_facts": training_facts(run.metrics),
        "regions": attempt(lambda: see_regions(run)),
        "errors": per_task(tasks.get("alignment"), error_curve),
        "landmarks": per_task(tasks.get("alignment"), lambda task: landmarks(task, run)),
        "confusions": per_task(tasks.get("expression"), lambda task: confusions(task, run.manifest)),
        "roc": per_task(tasks.get("verification"), roc),
        "attributes": per_task(tasks.get("attributes"), attribute_chart),
        "few_labels": [chart for task in run.tasks for chart in few_labels(task)],
        "groups": [table for task in run.tasks for table in groups(task)],
        "splits": split_table(run.manifest),
        "labels": label_table(run.manifest),
        "verdict": run.verdict,
        "quarantine": run.quarantine,
        "data_docs": None if run.data_docs is None else link(run.data_docs, out),
        "files": [(path.name, path.parent.name, link(path, out)) for path in run.files],
        "provenance": list(provenance_tables(run)),
        "is_missing": lambda part: isinstance(part, Missing),
    }


def link(target: Path, page: Path) -> str:
    """The relative address of a file, as the page at `page` links to it."""
    return quote(Path(os.path.relpath(target, page.parent)).as_posix())


def attempt(make: Callable[[], T]) -> T | Missing:
    """What `make` returns, or why its artifacts do not allow it."""
    try:
        return make()
    except (ValueError, RuntimeError, KeyError, FileNotFoundError) as error:
        return Missing(str(error.args[0]))


def per_task(task: TaskResult | None, make: Callable[[TaskResult], T]) -> T | Missing:
    """What `make` returns for a task's artifacts, or why there is nothing."""
    return Missing("This task was not run.") if task is None else attempt(lambda: make(task))


def subtitle(run: Run) -> str:
    """What was trained, from which code, in one line, as far as the provenance tells."""
    model, code = run.provenance.get("params", {}).get("model", {}), run.provenance.get("code", {})
    parts = []
    if "backbone" in model:
        parts.append(f"backbone {model['backbone']}")
    if "num_masks" in model:
        parts.append(f"{model['num_masks']} masks")
    if code.get("commit"):
        parts.append(f"commit {code['commit'][:10]}{' with local changes' if code.get('modified') else ''}")
    return ", ".join(parts)


def small_set(manifest: pd.DataFrame) -> str:
    """How small the labelled set is, where it is too small for figures that rank methods; else empty."""
    images, people = int(manifest["shard"].notna().sum()), manifest["person"].nunique()
    if images >= SMALL:
        return ""
    of_people = f" of {people} people" if people else ""
    return f"{images} photographs{of_people}"


def training_facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what is known of the run of pre-training."""
    facts = [
        ("step", "Steps", ",.0f"),
        ("epoch", "Last epoch", ".0f"),
        ("rollbacks", "Rollbacks", ".0f"),
    ]
    shown = [
        (label, format(metrics[name], form)) for name, label, form in facts if metrics.get(name) is not None
    ]
    device = [str(metrics[name]) for name in ("device", "precision") if metrics.get(name)]
    return [*shown, ("Device", ", ".join(device))] if device else shown


def training_charts(history: pd.DataFrame) -> list[Chart]:
    """Losses, learning rate and signs of collapse over the steps of pre-training."""
    losses = {"total": "Total", "global": "Global", "region": "Region", "relation": "Relation"}
    health = {"embedding_std": "Spread of embeddings", "mask_entropy": "Entropy of masks"}
    described = [
        ("Losses", losses, "Loss", ".3f", "Means over the steps since the point before."),
        ("Learning rate", {"lr": "Learning rate"}, "", ".2g", ""),
        (
            "Masks in use",
            {"masks_used": "Masks in use"},
            "",
            ".2f",
            "As many masks as would share the pixels equally: 1 when one mask takes all.",
        ),
        (
            "Signs of collapse",
            health,
            "",
            ".3f",
            "Spread: about 1 when embeddings fill the sphere, 0 when all images look the same. "
            "Entropy: 1 when no pixel prefers a mask, 0 when each is certain.",
        ),
    ]
    if "knn" in history and history["knn"].notna().any():
        note = "Balanced accuracy of a vote among nearest neighbours of other people; on the side, no test people."
        described.append(("Online probe", {"knn": "Nearest neighbours"}, "", ".3f", note))
    history = charts.binned(
        history[["step", *(name for _, columns, *_ in described for name in columns)]], "step"
    )
    return [
        curve(title, history, "step", "Step", columns, y_title, form, note=note)
        for title, columns, y_title, form, note in described
    ]


def curve(
    title: str,
    frame: pd.DataFrame,
    x: str,
    x_title: str,
    y: Mapping[str, str],
    y_title: str,
    y_format: str,
    *,
    x_format: str = ",.0f",
    note: str = "",
    from_zero: bool = True,
    diagonal: bool = False,
    log_x: bool = False,
) -> Chart:
    """A chart of curves, with a summary and a table made from the same numbers."""
    svg = charts.curves(
        frame,
        x=x,
        y=y,
        colours=SERIES,
        x_title=x_title,
        y_title=y_title,
        x_format=x_format,
        y_format=y_format,
        from_zero=from_zero,
        diagonal=diagonal,
        log_x=log_x,
    )
    places = np.unique(np.linspace(0, len(frame) - 1, TABLE_ROWS).round().astype(int))
    rows = [
        [format(row[x], x_format), *("" if pd.isna(row[c]) else format(row[c], y_format) for c in y)]
        for _, row in frame.iloc[places].iterrows()
    ]
    courses = [
        f"{name} goes from {format(known.iloc[0], y_format)} to {format(known.iloc[-1], y_format)}"
        for column, name in y.items()
        if len(known := frame[column].dropna())
    ]
    ends = f"{x_title} {format(frame[x].iloc[0], x_format)} to {format(frame[x].iloc[-1], x_format)}"
    summary = f"{title}, {ends}: {'; '.join(courses)}."
    return Chart(title, svg, summary, Table(title, [x_title, *y.values()], rows), note)


def see_regions(run: Run) -> faces.Regions:
    """The masks on held-out faces. Raises ValueError where weights or shards are missing."""
    if run.weights is None:
        raise ValueError("The weights of the whole model (model.safetensors) are missing.")
    if run.shards is None:
        raise ValueError("The shards, which hold the photographs, are missing.")
    views = run.provenance.get("params", {}).get("views")
    return faces.see_regions(inference.load(run.weights), run.manifest, run.shards, views)


def predictions_of(task: TaskResult) -> pd.DataFrame:
    """The task's predictions in the setting of metrics.json: its first protocol, at the largest fraction of labels.

    Raises:
        ValueError: they are missing.
    """
    rows = task.predictions()
    if rows is None:
        raise ValueError("The predictions of this task (predictions.parquet) are missing.")
    first = rows["protocol"] == rows["protocol"].iloc[0]
    chosen: pd.DataFrame = rows[first & (rows["fraction"] == rows["fraction"].max())]
    return chosen


def error_curve(task: TaskResult) -> Chart:
    """The cumulative error curve of each model, all seeds together."""
    rows = predictions_of(task)
    errors = {
        model: np.concatenate(
            [landmark_errors(fit)[1] for _, fit in rows[rows["model"] == model].groupby("seed")]
        )
        for model in task.models
    }
    limit = max(0.10, float(np.quantile(np.concatenate(list(errors.values())), 0.98)))
    limits_T = np.linspace(0, np.ceil(100 * limit) / 100, 61)
    frame = pd.DataFrame(
        {"error": 100 * limits_T}
        | {m: 100 * metrics.cumulative_errors(e, limits_T) for m, e in errors.items()}
    )
    names = {model: headline.model_label(model) for model in task.models}
    return curve(
        "Cumulative error",
        frame,
        "error",
        "Normalised error in %",
        names,
        "Images within, in %",
        ".1f",
        x_format=".1f",
        note="Share of test images whose error is at most the value below; higher and further left is better.",
    )


def landmarks(task: TaskResult, run: Run) -> list[faces.Landmarks]:
    """The worst and some typical faces of the first model. Raises ValueError where their files are missing."""
    rows = predictions_of(task)
    if run.shards is None:
        raise ValueError("The shards, which hold the photographs, are missing.")
    return faces.draw_landmarks(rows[rows["model"] == task.models[0]], run.manifest, run.shards)


def roc(task: TaskResult) -> Chart:
    """ROC curves, averaged over seeds at each false accept rate (Fawcett 2006, vertical averaging)."""
    rows = predictions_of(task)
    far_T = np.linspace(0, 1, 101)
    frame = pd.DataFrame({"far": far_T})
    for model in task.models:
        curves = []
        for _, fit in rows[rows["model"] == model].groupby("seed"):
            ranking = metrics.rank(
                metrics.by_score(fit["truth"].to_numpy(), fit["score"].to_numpy()), np.ones((1, len(fit)))
            )
            true_T, false_T = (np.append(0, side[0] / side[0, -1]) for side in ranking)
            curves.append(np.array([true_T[false_T <= far + 1e-12][-1] for far in far_T]))
        frame[model] = np.mean(curves, axis=0)
    names = {model: headline.model_label(model) for model in task.models}
    return curve(
        "ROC of verification",
        frame,
        "far",
        "False accept rate",
        names,
        "True accept rate",
        ".3f",
        x_format=".2f",
        diagonal=True,
        note="Mean over seeds. The dotted diagonal is chance.",
    )


def confusions(task: TaskResult, manifest: pd.DataFrame) -> list[Confusion]:
    """A confusion matrix a model, the test images of all seeds together."""
    rows = predictions_of(task)
    label = label_of(rows, manifest)
    matrices = []
    for model in task.models:
        fits = rows[rows["model"] == model]
        classes = list(dict.fromkeys(fits["output"]))
        count = np.zeros((len(classes), len(classes)))
        for _, fit in fits.groupby("seed"):
            _, (truth_NO, pred_NO) = blocks(fit, "truth", "prediction")
            np.add.at(count, (truth_NO.argmax(axis=1), pred_NO.argmax(axis=1)), 1)
        share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
        matrices.append(
            Confusion(
                label,
                headline.model_label(model),
                classes,
                [
                    (name, [(f"{100 * share[i, j]:.0f} %", float(share[i, j])) for j in range(len(classes))])
                    for i, name in enumerate(classes)
                ],
            )
        )
    return matrices


def label_of(rows: pd.DataFrame, manifest: pd.DataFrame) -> str | None:
    """The one label of the manifest whose values are the true classes of the predictions, or None."""
    truth = rows[rows["truth"] > 0].drop_duplicates("key").set_index("key")["output"].astype(float)
    labels = manifest.set_index("key").filter(like="label.").reindex(truth.index).astype("Float64")
    equal = [name for name, values in labels.items() if values.eq(truth).fillna(False).all()]
    return str(equal[0]).removeprefix("label.").replace("_", " ") if len(equal) == 1 else None


def attribute_chart(task: TaskResult) -> Chart:
    """The primary figure of each attribute, with the 95 % interval of its mean over seeds."""
    if task.results is None:
        raise ValueError("The figures of single attributes (results.csv) are missing.")
    primary = headline.PRIMARY["attributes"]
    rows = means(task.results, task.models)
    rows = rows[rows["metric"].str.startswith(f"{primary}/") & (rows["fraction"] == rows["fraction"].max())]
    if rows.empty:
        raise ValueError("There are no figures of single attributes in results.csv.")
    rows = rows[rows["protocol"] == rows["protocol"].iloc[0]]
    frame = pd.DataFrame(
        {
            "row": rows["metric"].str.split("/").str[1].str.replace("_", " "),
            "series": rows["model"].map(headline.model_label),
            "mean": rows["value"],
            "low": rows["low"],
            "high": rows["high"],
        }
    )
    label = headline.metric_of(primary).label
    shown = [
        [row, series, f"{mean:.3f}", f"{low:.3f} to {high:.3f}"]
        for row, series, mean, low, high in frame.itertuples(index=False)
    ]
    summary = "; ".join(f"{row}, {series}: {mean}" for row, series, mean, _ in shown)
    return Chart(
        "Each attribute",
        charts.intervals(frame, colours=SERIES, x_title=label),
        f"{label} of each attribute: {summary}.",
        Table("Each attribute", ["Attribute", "Model", label, "95 % interval"], shown),
        "Mean over seeds; bars are 95 % intervals over people. Chance depends on how common the attribute is.",
    )


def few_labels(task: TaskResult) -> Iterator[Chart]:
    """The task's primary figure over the fraction of labels, a chart a protocol; none where one fraction was run."""
    if task.results is None:
        return
    name = headline.table(task).primary.metric
    metric = headline.metric_of(name)
    rows = means(task.results, task.models)
    for protocol, part in rows[rows["metric"] == name].groupby("protocol", sort=False):
        if part["fraction"].nunique() < 2:
            continue
        frame = (
            part.pivot_table(index="fraction", columns="model", values="value")
            .mul(metric.scale)
            .reset_index()
        )
        frame["fraction"] *= 100
        names = {model: headline.model_label(model) for model in task.models if model in frame}
        yield curve(
            f"{headline.task_title(task.name)}, {protocol}",
            frame,
            "fraction",
            "Labels used in %",
            names,
            f"{metric.label}{f' in {metric.unit}' if metric.unit else ''}",
            f".{metric.digits}f",
            x_format=".3g",
            from_zero=False,
            log_x=True,
            note="Lower is better." if headline.lower_is_better(task.name, name) else "Higher is better.",
        )


def groups(task: TaskResult) -> Iterator[Table]:
    """The task's primary figure in each group of people, where groups are known: one table a task."""
    if task.results is None or not task.results["group"].notna().any():
        return
    row = headline.table(task).primary
    metric = headline.metric_of(row.metric)
    known = task.results[task.results["group"].notna() & (task.results["metric"] == row.metric)]
    known = known[
        (known["protocol"] == known["protocol"].iloc[0]) & (known["fraction"] == known["fraction"].max())
    ]
    frame = known.groupby(["group", "model"], sort=False)["value"].mean().unstack()
    yield Table(
        f"{headline.task_title(task.name)}: {metric.label} by group",
        ["Group", *(headline.model_label(model) for model in task.models)],
        [
            [str(group).replace(":", ", "), *(metric.with_unit(values[model]) for model in task.models)]
            for group, values in frame.iterrows()
        ],
    )


def means(results: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """The rows of results.csv that are means over seeds of `models`, over all people."""
    return results[results["seed"].isna() & results["group"].isna() & results["model"].isin(models)]


def split_table(manifest: pd.DataFrame) -> Table:
    """Images, people, sizes and bytes of each split."""
    parts = [(split, manifest[manifest["split"] == split]) for split in ("train", "val", "test")]
    rows = []
    for name, part in [*((name, part) for name, part in parts if len(part)), ("all", manifest)]:
        decoded = part[part["width"] > 0]
        sizes = ""
        if len(decoded):
            small, large = decoded[["width", "height"]].min(), decoded[["width", "height"]].max()
            sizes = f"{small['width']}×{small['height']}"
            if not small.equals(large):
                sizes += f" to {large['width']}×{large['height']}"
        rows.append(
            [
                name,
                f"{len(part):,}",
                f"{part['person'].nunique():,}",
                sizes,
                f"{part['bytes'].sum() / 1e6:,.1f} MB",
            ]
        )
    return Table("Images of each split", ["Split", "Images", "People", "Width × height", "Files"], rows)


def label_table(manifest: pd.DataFrame) -> Table | None:
    """How many images have each label, and each of its values; None where there are no labels."""
    rows = []
    for column in (name for name in manifest if str(name).startswith("label.")):
        known = manifest[column].dropna()
        values = known.value_counts().sort_index()
        rows.append(
            [
                str(column).removeprefix("label.").replace("_", " "),
                f"{len(known):,}",
                ", ".join(f"{value:g}: {count:,}" for value, count in values.items()),
            ]
        )
    landmarks_known = int(manifest["landmarks"].notna().sum())
    if landmarks_known:
        points = len(manifest["landmarks"].dropna().iloc[0]) // 2
        rows.append(["Landmarks", f"{landmarks_known:,}", f"{points} points"])
    return Table("Labels", ["Label", "Images", "Values: images"], rows) if rows else None


def provenance_tables(run: Run) -> Iterator[Table]:
    """What the run was made from, a table a part; nested names are joined by dots. Judged files last, by hash."""
    scalars = [
        [key, written(value)] for key, value in run.provenance.items() if not isinstance(value, Mapping)
    ]
    if scalars:
        yield Table("General", ["Name", "Value"], scalars)
    for part, values in run.provenance.items():
        if isinstance(values, Mapping) and values:
            yield Table(part.replace("_", " ").capitalize(), ["Name", "Value"], list(flat(values)))
    judged = [[file, digest] for file, digest in run.verdict.judged.items()]
    yield Table("Files that validation judged", ["File", "SHA-256"], judged)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield [f"{prefix}{name}", written(value)]


def written(value: Any) -> str:
    """A parameter as one would write it in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    return "none" if value is None else str(value)
