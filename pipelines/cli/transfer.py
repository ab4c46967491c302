"""`fra transfer`: baselines, stored metrics, region quality, comparisons of backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fra.transfer.config import HeadProtocol
from pipelines.cli.options import Device, Weights
from pipelines.project import paths

transfer = typer.Typer(
    help="Transfer evaluation: baselines, stored metrics and region quality.", no_args_is_help=True
)


SHOWN = 20
"""Largest number of differences printed per task."""


@transfer.command()
def baseline(
    experiment: Annotated[
        str, typer.Argument(help="A DVC experiment or a git branch, as `dvc exp show` names it")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Else data/baselines/<experiment>.safetensors")
    ] = None,
) -> None:
    """Copy the backbone of an experiment from DVC's cache, as a baseline to compare with."""
    from fra.files import atomic
    from pipelines.cli.compare import read_output
    from pipelines.repo import experiments as history
    from pipelines.repo.lock import LineageError

    known = {run.name: run for run in history.runs()}
    if experiment not in known:
        raise LineageError(f"no experiment {experiment!r}; there are: {', '.join(sorted(known)) or 'none'}")
    target = out or paths.BASELINES / f"{experiment}.safetensors"
    weights = read_output(known[experiment].stages(), paths.PRETRAIN / "backbone.safetensors", Path())
    with atomic(target) as partial:
        partial.write_bytes(weights)
    print(target)


@transfer.command()
def fit(
    task: Annotated[str, typer.Argument(help="The task, as in `tasks` of params.yaml")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write")],
    protocol: Annotated[
        HeadProtocol, typer.Option(help="linear: a head on frozen features; finetune: the backbone, too")
    ] = "linear",
    weights: Weights = paths.BACKBONE,
    classes: Annotated[
        str,
        typer.Option(
            help="Names of the classes of expression, in the order of their values: neutral,smiling"
        ),
    ] = "",
    device: Device = "auto",
) -> None:
    """Fit a task on its labelled set and write a task model, with which `fra predict` answers on other pictures.

    Validation persons choose the regularisation or the epoch. The metrics on the test persons are printed and stored in
    the file. Where --device is auto, transfer.device of params.yaml decides.
    """
    from fra.files import check_output
    from fra.transfer import task_model
    from pipelines.transfer import fit_task

    check_output(out, (".safetensors",))
    model = fit_task(task, protocol, weights, [name for name in classes.split(",") if name], device)
    task_model.save(model, out)
    for name, value in model.metadata["metrics"].items():
        if "/" not in name:
            print(f"{name}: {value:.4f}")
    print(out)


@transfer.command()
def recompute(
    task: Annotated[
        str | None, typer.Argument(help="One task; all that were evaluated where none is named")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the tasks' folders are")] = paths.TRANSFER,
) -> None:
    """Compute all stored metrics again from the stored predictions; exit with code 1 if any differs."""
    from fra.transfer.recompute import differences

    tasks = [task] if task else sorted(path.parent.name for path in folder.glob("*/predictions.parquet"))
    if not tasks:
        raise FileNotFoundError(f"{folder}: no task's predictions in it; run `dvc repro transfer` first")
    found = {name: differences(name, folder / name) for name in tasks}
    for name, lines in found.items():
        print(f"{name}: " + (f"{len(lines):,} differences" if lines else "pass"))
        for line in lines[:SHOWN]:
            print(f"  {line}")
        if len(lines) > SHOWN:
            print(f"  … and {len(lines) - SHOWN:,} more")
    if any(found.values()):
        raise typer.Exit(1)


@transfer.command("pool")
def aggregate_runs(
    runs: Annotated[list[Path], typer.Argument(help="The artifacts/transfer of each pre-training")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the aggregated metrics")] = Path(
        "pooled"
    ),
) -> None:
    """Aggregate pre-training runs that differ only in their seed: means over all seeds, with intervals."""
    from rich.console import Console

    from fra.transfer.aggregate import aggregate
    from pipelines.cli.summary import differences

    Console().print(differences(aggregate(runs, out)))
    print(out)


@transfer.command("regions")
def regions(
    weights: Annotated[
        Path, typer.Option("--weights", "-w", "--model", help="The model, with its region branch")
    ] = paths.MODEL,
    dataset: Annotated[str, typer.Option(help="A data set with 68 or 98 landmarks, by name")] = "orl",
    compare_with: Annotated[
        list[Path] | None, typer.Option(help="Further weights, whose features are clustered as baselines")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The metrics (JSON)")] = Path("regions.json"),
    device: Device = "auto",
) -> None:
    """Measure how well heatmaps agree with facial parts, compared with clusters, untrained networks and position."""
    from fra.dist import choose_device
    from fra.region_quality.compare import measure_regions
    from fra.validation import verdict
    from pipelines.project.dataset import validation_folder

    for row, metrics in measure_regions(
        weights,
        paths.manifest(dataset),
        verdict.read_quarantined_keys(validation_folder(dataset) / "quarantine.csv"),
        paths.shards(dataset),
        out,
        compare_with or [],
        choose_device(device),
    ).items():
        print(
            f"{row}: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name != "iou")
        )
    print(out)


@transfer.command()
def ruler(
    weights: Annotated[
        list[str],
        typer.Argument(
            help="Weights files or released weights, the first compared with the others; name=file gives a name, "
            "and files of one name are its seeds; random:0, random:1: the architecture of the first, random weights"
        ),
    ],
    part: Annotated[
        Literal["val", "test"],
        typer.Option(help="val: choose by it as often as you like; test: for what is reported"),
    ] = "val",
    labels: Annotated[str, typer.Option(help="Numbers of labelled faces")] = "100,400,1600,4000",
    draws: Annotated[int, typer.Option(help="Random choices of the labelled faces, averaged", min=1)] = 3,
    grid: Annotated[int, typer.Option(help="Largest side of a feature map", min=1)] = 8,
    photographs: Annotated[
        bool,
        typer.Option(help="The cross test as well: landmarks of the 400 embedded photographs"),
    ] = False,
    standardise: Annotated[bool, typer.Option(help="Divide each feature by its standard deviation")] = True,
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune", help="Train the whole backbone on the labelled faces; default: frozen features"
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for predictions and the tables computed from them"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Compare backbones on 7,319 synthetic faces: landmarks, head direction, facial actions, open mouth.

    The faces are drawn at the first call (45 CPU seconds); a frozen backbone then takes about half a minute. Values
    are means over the choices of labelled faces; differences are those of the first weights and the others, with 95 %
    intervals. --finetune trains the whole backbone: minutes each.
    Several pre-trainings of each recipe: fra=a.safetensors fra=b.safetensors byol=c.safetensors byol=d.safetensors.
    """
    import pandas as pd
    from rich.console import Console

    from fra.dist import choose_device
    from fra.files import write_parquet, write_text
    from fra.ruler import cross, faces, fit, results
    from pipelines.cli import ruler_tables

    if finetune and photographs:
        raise ValueError("--photographs fits heads on frozen features: run it without --finetune")
    if finetune and not standardise:
        raise ValueError("--no-standardise is for frozen features: leave out --finetune or --no-standardise")
    setting = fit.Setting(part, _numbers(labels), draws, grid, standardise, finetune)
    entries = fit.load_all(weights)
    labelled = faces.read_faces(paths.WORK / "raw" / "synthetic")
    predictions, table, measured = results.run(entries, labelled, setting, choose_device(device))
    stored = {"predictions": predictions}
    if photographs:
        photos = cross.read_photographs(paths.WORK / "raw" / "orl", labelled)
        stored["photographs"] = cross.predict(entries, labelled, photos, setting, choose_device(device))
        table = pd.concat([table, results.table(cross.values(stored["photographs"]))], ignore_index=True)
    written = {"results": table, "measures": measured}
    console = Console()
    console.print(ruler_tables.metrics(table))
    console.print(ruler_tables.measures(measured))
    if measured["model"].nunique() >= ruler_tables.MODELS:
        written["correlations"] = results.correlations(measured, table)
        console.print(ruler_tables.correlations(written["correlations"]))
    for line in ruler_tables.conclusions(results.beyond_chance(table)):
        console.print(line)
    if out is not None:
        for name, frame in stored.items():
            write_parquet(frame, out / f"{name}.parquet")
        for name, frame in written.items():
            write_text(frame.to_csv(index=False), out / f"{name}.csv")
        print(out)


@transfer.command()
def forest(
    results: Annotated[Path, typer.Argument(help="The results.csv of `fra transfer ruler -o FOLDER`")],
    difference: Annotated[
        str, typer.Option(help="The difference to draw, such as 'fra - byol'; default: the first")
    ] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE: these rows alone (may be repeated)")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the axis; default: the names of the two models")] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="The .svg file to write")] = Path("forest.svg"),
) -> None:
    """Draw a difference of two backbones as a forest plot: change of the error in per cent, with 95 % intervals.

    Wide bars are intervals over test faces, thin lines over seeds. The error of open mouth is 1 − ROC AUC, that of a
    facial action 1 − R².
    """
    from fra.files import check_output, write_text
    from fra.ruler import forest
    from pipelines.cli.ruler_tables import METRICS

    check_output(out, (".svg",))
    rows = forest.relative(forest.read(results, where or []), difference)
    write_text(forest.draw(rows, {name: metric.label for name, metric in METRICS.items()}, title), out)
    print(out)


def _numbers(labels: str) -> tuple[int, ...]:
    """Returns the numbers of labelled faces of --labels, which are separated by commas."""
    words = labels.split(",")
    if not all(word.strip().isdecimal() and int(word) >= 10 for word in words):
        raise ValueError(f"--labels is {labels!r}: give numbers of faces from 10 up, such as 100,400")
    return tuple(map(int, words))
