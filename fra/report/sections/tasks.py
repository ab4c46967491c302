"""Sections on the tasks: error curves, ROC, confusion matrices, attributes, few labels, groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fra.report import charts, faces, headline
from fra.report.artifacts import Run, TaskResult
from fra.report.elements import SERIES, Chart, Confusion, Table, curve
from fra.transfer import metrics
from fra.transfer.tasks.prediction_metrics import by_image, landmark_errors


def predictions_of(task: TaskResult) -> pd.DataFrame:
    """Return the predictions that metrics.json is computed from: first protocol, largest fraction of labels.

    Raises:
        ValueError: The file is missing.
    """
    rows = task.predictions()
    if rows is None:
        raise ValueError("The predictions of this task (predictions.parquet) are missing.")
    first = rows["protocol"] == rows["protocol"].iloc[0]
    chosen: pd.DataFrame = rows[first & (rows["fraction"] == rows["fraction"].max())]
    return chosen


def error_curve(task: TaskResult) -> Chart:
    """Draw the cumulative error curve of each model, over the test images of all seeds."""
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
    names = {model: headline.model_label(model, task.trained) for model in task.models}
    return curve(
        "Cumulative error",
        frame,
        "error",
        "Normalised error in %",
        names,
        "Images within, in %",
        ".1f",
        x_format=".1f",
        note="Share of test images with at most this error; higher is better.",
    )


def landmarks(task: TaskResult, run: Run) -> list[faces.Landmarks]:
    """Draw the landmarks of the worst and some typical faces, as predicted by the first model.

    Raises:
        ValueError: Predictions or shards are missing.
    """
    rows = predictions_of(task)
    if run.shards is None:
        raise ValueError("The shards, which contain the photographs, are missing.")
    return faces.draw_landmarks(rows[rows["model"] == task.models[0]], run.manifest, run.shards)


def roc(task: TaskResult) -> Chart:
    """Draw ROC curves, averaged over seeds at each false accept rate (vertical averaging, Fawcett 2006)."""
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
    names = {model: headline.model_label(model, task.trained) for model in task.models}
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
        note="Mean over seeds. The dotted diagonal is chance level.",
    )


def confusions(task: TaskResult, manifest: pd.DataFrame) -> list[Confusion]:
    """Return a confusion matrix for each model, over the test images of all seeds."""
    rows = predictions_of(task)
    label = matching_label(rows, manifest)
    matrices = []
    for model in task.models:
        fits = rows[rows["model"] == model]
        classes = list(dict.fromkeys(fits["output"]))
        count = np.zeros((len(classes), len(classes)))
        for _, fit in fits.groupby("seed"):
            _, (truth_NO, pred_NO) = by_image(fit, "truth", "prediction")
            np.add.at(count, (truth_NO.argmax(axis=1), pred_NO.argmax(axis=1)), 1)
        share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
        matrices.append(
            Confusion(
                label,
                headline.model_label(model, task.trained),
                classes,
                [
                    (name, [(f"{100 * share[i, j]:.0f} %", float(share[i, j])) for j in range(len(classes))])
                    for i, name in enumerate(classes)
                ],
            )
        )
    return matrices


def matching_label(rows: pd.DataFrame, manifest: pd.DataFrame) -> str | None:
    """Return the label of the manifest whose values equal the true classes; None if not exactly one does."""
    truth = rows[rows["truth"] > 0].drop_duplicates("key").set_index("key")["output"].astype(float)
    labels = manifest.set_index("key").filter(like="label.").reindex(truth.index).astype("Float64")
    equal = [name for name, values in labels.items() if values.eq(truth).fillna(False).all()]
    return str(equal[0]).removeprefix("label.").replace("_", " ") if len(equal) == 1 else None


def attribute_chart(task: TaskResult) -> Chart:
    """Draw the headline metric of each attribute, with the 95 % interval of its mean over seeds.

    Raises:
        ValueError: results.csv is missing or has no metrics of single attributes.
    """
    if task.results is None:
        raise ValueError("The metrics of single attributes (results.csv) are missing.")
    primary = headline.PRIMARY["attributes"]
    rows = means(task.results, task.models)
    rows = rows[rows["metric"].str.startswith(f"{primary}/") & (rows["fraction"] == rows["fraction"].max())]
    if rows.empty:
        raise ValueError("There are no metrics of single attributes in results.csv.")
    rows = rows[rows["protocol"] == rows["protocol"].iloc[0]]
    frame = pd.DataFrame(
        {
            "row": rows["metric"].str.split("/").str[1].str.replace("_", " "),
            "series": [headline.model_label(model, task.trained) for model in rows["model"]],
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
        "Mean over seeds; bars are 95 % intervals over test subjects. Chance level is the frequency of the attribute.",
    )


def few_labels(task: TaskResult) -> Iterator[Chart]:
    """Yield a chart of the headline metric over the fraction of labels, for each protocol with several fractions."""
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
        names = {model: headline.model_label(model, task.trained) for model in task.models if model in frame}
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


def group_tables(task: TaskResult) -> Iterator[Table]:
    """Yield a table of one metric in each group of test subjects, if the task has groups.

    It is the headline metric; or the first one, where that is defined in no group (a class is missing in each).
    """
    if task.results is None or not task.results["group"].notna().any():
        return
    known = task.results[task.results["group"].notna()]
    name = headline.table(task).primary.metric
    if name not in set(known["metric"]):
        name = str(known["metric"].iloc[0])
    metric = headline.metric_of(name)
    known = known[known["metric"] == name]
    known = known[
        (known["protocol"] == known["protocol"].iloc[0]) & (known["fraction"] == known["fraction"].max())
    ]
    frame = known.groupby(["group", "model"], sort=False)["value"].mean().unstack()
    yield Table(
        f"{headline.task_title(task.name)}: {metric.label} by group",
        ["Group", *(headline.model_label(model, task.trained) for model in task.models)],
        [
            [str(group).replace(":", ", "), *(metric.with_unit(values[model]) for model in task.models)]
            for group, values in frame.iterrows()
        ],
    )


def means(results: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Return the rows of results.csv that are means over seeds of `models`, over all test subjects."""
    return results[results["seed"].isna() & results["group"].isna() & results["model"].isin(models)]
