"""A model card in Hugging Face's format; all its numbers are read from the records of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from fra.files import sha256, write_text
from fra.report import artifacts, headline
from fra.report.artifacts import TaskResult
from fra.report.sections.data import small_set
from fra.transfer.config import MINUS, kind_of
from fra.validation import verdict as validation
from fra.wording import counted
from pipelines.lineage import show
from pipelines.lineage.checks.people import withdrawals
from pipelines.lineage.in_toto import made_by
from pipelines.lineage.record import metadata
from pipelines.project import paths
from pipelines.repo.definition import lookup
from pipelines.repo.hashes import Hashes
from pipelines.repo.lock import LineageError, Stage, read

KINDS = {
    "expression": "image-classification",
    "attributes": "image-classification",
    "action_units": "image-classification",
    "alignment": "keypoint-detection",
    "verification": "image-feature-extraction",
}
"""Hugging Face's name of each task; other tasks are "other"."""
CREDITS = {
    "orl": 'AT&T "Database of Faces" (ORL): AT&T Laboratories Cambridge; F. Samaria and A. Harter, '
    '"Parameterisation of a stochastic model for human face identification", WACV 1994. '
    "Labels and landmarks are this project's own.",
    "generated": "Drawn by the generator in the package gan-face-generate 1.1.1 (MIT licence), which was trained on "
    "DigiFace-1M, rendered faces that Microsoft publishes for non-commercial research.",
    "synthetic": "Drawn as those of `generated`, with another seed; annotated by MediaPipe Face Mesh (pseudo-labels).",
}
"""The source of the images of an adapter, cited as its authors request."""

INTENDED = """## Intended use

Features of faces as a starting point for other work: classifying expressions and attributes, finding landmarks, and
research on representation learning. The backbone turns a cropped face into a feature map; a head must be trained and
evaluated for each use.

```python
import fra

encoder = fra.load("model.safetensors")
features = encoder.embed(["face.jpg"])
heatmaps = encoder.heatmaps(["face.jpg"])
```

Out of scope: deciding about people (hiring, credit, policing, borders, access), identifying people who did not agree to
it, mass surveillance, and reading emotions or character from faces as if they were facts. An expression label says what
a face looks like, not what a person feels.
"""
RESPONSIBLE = """## Faces are personal data

Images of faces are personal data, and features made to recognise people are biometric data, which the law of many
places protects more (in the European Union, article 9 of the GDPR). Before you train on faces or use this model on
them: establish the legal basis, inform the people, keep images no longer than needed, and evaluate the model on the
people it will be used with. A vector can be matched to a person as an image can: protect it in the same way.

When a person withdraws consent, `fra lineage who --subject ID` lists everything made from their images, and
`fra data withdraw --subject ID` removes them and marks it as stale; `dvc repro` then trains without them.
"""


def write(out: Path, root: Path = Path()) -> None:
    """Writes the model card of the run in `root`.

    Raises:
        LineageError: no stage has run yet, or the backbone is not the one in dvc.lock.
        FileNotFoundError, ValidationFailed, ValueError: a record of the run is missing or damaged; the message
            names it.
    """
    write_text(card(root), out)


def card(root: Path = Path()) -> str:
    """The model card as text: YAML front matter, then Markdown."""
    weights = root / paths.PRETRAIN / "backbone.safetensors"
    _, path = made_by(weights, root)
    about = metadata(weights)
    stages = read(root)
    origin = show.trace(str(root / path), root)
    dataset = about["provenance"]["params"]["dataset"]["name"]
    datasets = evaluated(stages, root)
    run = artifacts.read(
        validation=root / paths.VALIDATION,
        pretrain=root / paths.PRETRAIN,
        transfer={name: root / paths.TRANSFER / name for name in datasets},
        manifest=root / paths.manifest(dataset),
        quarantined=root / paths.VALIDATION / "quarantine.csv",
        shards=root / paths.shards(dataset),
        provenance=about["provenance"],
    )
    title = f"fra-{about['backbone']}-{dataset}"
    notes = {name: small_set(usable_rows(stages, name, root)) for name in datasets}
    stale = [str(problem) for problem in withdrawals(stages, root, Hashes(root)) if problem.subject == path]
    return "\n".join(
        [
            front_matter(title, run.tasks, datasets),
            f"# {title}\n",
            f"A `{about['backbone']}` backbone pre-trained without labels on the faces of `{dataset}` by Facial Region "
            "Awareness (FRA, CVPR 2024): two views of a face agree as a whole and region by region.\n",
            *(f"> **Do not use.** {problem}\n" for problem in stale),
            INTENDED,
            data(origin, stages, root),
            recipe(about, run.metrics),
            results(run.tasks, datasets, notes),
            limits(run, datasets, notes, origin),
            RESPONSIBLE,
            provenance(weights, about, origin),
        ]
    )


def evaluated(stages: dict[str, Stage], root: Path) -> dict[str, str]:
    """Each task that was evaluated, and the data set it was evaluated on. Raises `LineageError` where there is none."""
    found = {
        name.removeprefix("transfer@"): lookup(stage.params, f"tasks.{name.removeprefix('transfer@')}")[
            "dataset"
        ]
        for name, stage in stages.items()
        if name.startswith("transfer@")
    }
    if not found:
        raise LineageError(f"{root / 'dvc.lock'}: no task was evaluated: run `dvc repro`")
    return found


def usable_rows(stages: dict[str, Stage], task: str, root: Path) -> pd.DataFrame:
    """Returns the usable rows of the data set that a task was evaluated on."""
    chosen = lookup(stages[f"transfer@{task}"].params, f"tasks.{task}")
    quarantined = validation.read_quarantined_keys(root / chosen["validation"] / "quarantine.csv")
    return validation.read_usable_rows(root / paths.manifest(chosen["dataset"]), quarantined)


def front_matter(title: str, tasks: list[TaskResult], datasets: dict[str, str]) -> str:
    """The front matter that Hugging Face reads: library, tags, headline metrics with intervals and a baseline."""
    entries = [
        EvalResult(
            task_type=KINDS.get(kind_of(task.name), "other"),
            task_name=headline.task_title(task.name),
            dataset_type=datasets[task.name],
            dataset_name=datasets[task.name],
            dataset_config=task.name,  # without it, tasks of one kind on one set would be merged
            dataset_split="test",
            metric_type=row["metric"],
            metric_name=headline.metric_of(row["metric"]).label,
            metric_value=row["value"],
            metric_args={
                "protocol": row["protocol"],
                "label_fraction": row["fraction"],
                "interval_95": [row["low"], row["high"]],
                **{
                    f"{other}_weights": value
                    for other, value in [("random", value_of(task, "random", row["metric"]))]
                    if value is not None
                },
            },
        )
        for task in tasks
        for row in means(task).query("model == 'pretrained'").to_dict("records")
    ]
    about = ModelCardData(
        model_name=title,
        library_name="pytorch",
        pipeline_tag="image-feature-extraction",
        tags=["face", "self-supervised-learning", "facial-region-awareness"],
        eval_results=entries,
    )
    return f"---\n{about.to_yaml()}\n---\n"


def means(task: TaskResult) -> pd.DataFrame:
    """The headline metrics of a task as means over seeds: first protocol, all labels, no groups or single labels."""
    if task.results is None:
        raise LineageError(f"{task.folder / 'results.csv'}: missing: run `dvc repro transfer@{task.name}`")
    table = task.results
    chosen: pd.DataFrame = table[
        (table["protocol"] == table["protocol"].iloc[0])
        & (table["fraction"] == table["fraction"].max())
        & table["group"].isna()
        & table["seed"].isna()
        & ~table["metric"].str.contains("/")
    ]
    return chosen


def value_of(task: TaskResult, model: str, metric: str) -> float | None:
    """The mean of a metric of one model; None where it was not computed."""
    entry = task.metrics.get(model, {}).get(metric)
    return None if entry is None else float(entry["mean"])


def data(origin: dict[str, Any], stages: dict[str, Stage], root: Path) -> str:
    """The images that the backbone was trained on, whether they passed validation, and what was quarantined."""
    lines = ["## Training data\n"]
    for found in origin["images"]:
        splits = ", ".join(f"{count:,} {split}" for split, count in found["splits"].items())
        people = f" of {counted(found['people'], 'person')}" if found["people"] else ""
        lines.append(
            f"- `{found['manifest']}`: {counted(found['images'], 'image')}{people} ({splits}); "
            "only `train` was trained on."
        )
    for verdict in origin["verdicts"]:
        word = "passed" if verdict["success"] else "did not pass"
        lines.append(
            f"- Validation `{verdict['path']}`: {word}; of {verdict['rows'] - verdict['without_face']:,} images "
            f"{validation.exclusions(verdict)}. Digest `{verdict['digest']}`."
        )
        for rule in validation.read(root / verdict["path"]).expectations:
            if rule["severity"] == "quarantine" and rule["unexpected_count"]:
                lines.append(f"  - {rule['unexpected_count']:,} quarantined: {rule['reason']}")
    for adapter in sorted(set(adapters(stages))):
        if adapter in CREDITS:
            lines.append(f"- Source: {CREDITS[adapter]}")
    return "\n".join(lines) + "\n"


def adapters(stages: dict[str, Stage]) -> Iterator[str]:
    """The adapters of all data sets that were used."""
    for stage in stages.values():
        for key, values in stage.params.items():
            if (key == "dataset" or key.startswith("benchmarks.")) and "adapter" in values:
                yield values["adapter"]


def recipe(about: dict[str, Any], metrics: dict[str, Any]) -> str:
    """How the backbone was trained: the training metrics and every parameter."""
    rows = [
        (f"`{section}.{key}`", f"`{value}`")
        for section, values in sorted(about["provenance"]["params"].items())
        for key, value in sorted(values.items())
        if section != "dataset"
    ]
    training = [
        (name.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else str(value))
        for name, value in metrics.items()
    ]
    init = about["provenance"].get("init")
    start = f"Started from `{init['source']}` (SHA-256 `{init['sha256']}`).\n\n" if init else ""
    return (
        f"## Training\n\n{start}"
        f"{table(['at the end of training', ''], training)}\n"
        f"<details><summary>All parameters</summary>\n\n{table(['parameter', 'value'], rows)}\n</details>\n"
    )


def results(tasks: list[TaskResult], datasets: dict[str, str], notes: dict[str, str]) -> str:
    """Every headline metric compared with random weights, with 95 % intervals over people."""
    parts = [
        "## Results\n",
        "The backbone is frozen; test people are in no other split of their data set. Means over seeds, with 95 % "
        "intervals from resampling test people; differences are of the same resamples.\n",
    ]
    for task in tasks:
        figures = means(task)
        about = headline.table(task).about
        parts.append(f"### {headline.task_title(task.name)} on `{datasets[task.name]}`\n")
        if notes[task.name]:
            parts.append(f"**Small data**: {notes[task.name]}, too few to rank methods.\n")
        parts.append(f"{about}.\n")
        models = list(dict.fromkeys(figures["model"]))
        cells = {
            (row["metric"], row["model"]): text_of(row, MINUS in row["model"])
            for row in figures.to_dict("records")
        }
        rows = [
            (better(task.name, metric), *(cells.get((metric, model), "") for model in models))
            for metric in dict.fromkeys(figures["metric"])
        ]
        parts.append(table(["", *(model_label(model, task.trained) for model in models)], rows))
    return "\n".join(parts)


def better(task: str, metric: str) -> str:
    """A metric's name, and an arrow in the direction that is better."""
    arrow = "↓" if headline.lower_is_better(task, metric) else "↑"
    return f"{headline.metric_of(metric).label} {arrow}"


def model_label(name: str, trained: str) -> str:
    """A model's name in a table; of a difference both names."""
    return " − ".join(headline.model_label(part, trained) for part in name.split(MINUS))


def text_of(row: Mapping[Any, Any], signed: bool) -> str:
    """A metric with its unit and interval as text."""
    metric = headline.metric_of(row["metric"])
    value, low, high = (metric.text(row[key], signed) for key in ("value", "low", "high"))
    return f"{value} {metric.unit}".strip() + f" ({low} to {high})"


def limits(
    run: artifacts.Run, datasets: dict[str, str], notes: dict[str, str], origin: dict[str, Any]
) -> str:
    """The limits of the results, as far as the records show them."""
    lines = ["## Limits\n"]
    for dataset in dict.fromkeys(datasets[name] for name, note in notes.items() if note):
        note = next(note for name, note in notes.items() if note and datasets[name] == dataset)
        lines.append(f"- `{dataset}` is small ({note}): its results cannot rank methods.")
    clear = {task.name: headline.table(task).primary for task in run.tasks}
    for name, row in clear.items():
        for difference in row.differences:
            if difference.conclusion != "better":
                other = headline.model_label(difference.other)
                said = (
                    f"worse than {other}"
                    if difference.conclusion == "worse"
                    else f"not clearly better than {other}"
                )
                value = f"{difference.value} {row.unit}".strip()
                lines.append(
                    f"- {headline.task_title(name)}, by {row.label}: {said} (difference {value}, 95 % interval "
                    f"{difference.interval})."
                )
    lines += groups(run.tasks)
    code = run.provenance["code"]
    if code["commit"] is None or code["modified"]:
        lines.append(
            "- The code that trained it, or a part of it, is in no commit: it cannot be reproduced exactly."
        )
    if not all(verdict["success"] for verdict in origin["verdicts"]):
        lines.append("- The training data did not pass validation.")
    lines.append(
        "- Faces must be found and cropped before; other crops than those of training give worse features."
    )
    lines.append(
        "- No licence is recorded with the run: name one, for weights and data, before you share this."
    )
    return "\n".join(lines) + "\n"


def groups(tasks: list[TaskResult]) -> Iterator[str]:
    """How far metrics differ between groups of people, or that this was not measured."""
    measured = False
    for task in tasks:
        table = task.results
        if table is None:
            continue
        found = table[
            table["group"].astype(str).str.endswith(":difference")
            & (table["model"] == "pretrained")
            & (table["metric"] == headline.table(task).primary.metric)
        ]
        for group, values in found.groupby("group")["value"]:
            measured = True
            metric = headline.metric_of(headline.table(task).primary.metric)
            yield (
                f"- {headline.task_title(task.name)}: {metric.label} differs by {metric.with_unit(values.mean())} "
                f"between groups by `{str(group).removesuffix(':difference')}`."
            )
    if not measured:
        yield (
            "- Not measured: whether it serves groups of people (by age, gender, skin tone) equally well. Set "
            "`transfer.groups` to labels that the data have, and evaluate that before use."
        )


def provenance(weights: Path, about: dict[str, Any], origin: dict[str, Any]) -> str:
    """The origin of the backbone, to be compared with the output of `fra lineage show` and `verify`."""
    record = about["provenance"]
    code, environment = record["code"], record["environment"]
    libraries = environment.get("libraries") or {}
    changed = " with changes that are in no commit" if code["modified"] else ""
    rows = [
        ("backbone, SHA-256", f"`{sha256(weights)}`"),
        ("backbone, MD5 (DVC)", f"`{origin['md5']}`"),
        ("code", f"`{code['commit']}`{changed}" if code["commit"] else "in no git repository"),
        ("Python", environment["python"]),
        *((name, version) for name, version in libraries.items() if version),
        ("device", environment["device"]),
        ("CUDA", environment["cuda"]),
        ("requirements.lock, SHA-256", f"`{environment['lock']}`" if environment["lock"] else None),
        *((f"input `{path}`, SHA-256", f"`{digest}`") for path, digest in sorted(record["inputs"].items())),
    ]
    return (
        f"## Provenance\n\n{table(['', ''], [row for row in rows if row[1]])}\n"
        "`fra lineage show FILE` traces any copy of the weights; `fra lineage verify` checks every "
        "hash.\n"
    )


def table(header: list[str], rows: Sequence[tuple[str, ...]]) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '¦') for cell in line)} |\n" for line in lines)
