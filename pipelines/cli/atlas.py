"""The command `fra atlas`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fra.wording import counted
from pipelines.cli.inference import detection_of, report_skipped
from pipelines.cli.options import (
    WEIGHTS,
    BatchSize,
    CropOrDefault,
    Detect,
    Device,
    Weights,
    refuse_options,
)
from pipelines.project.root import find_root

if TYPE_CHECKING:
    from fra.atlas.annotations import Dataset

app = typer.Typer()
WRITING = ["weights", "out", "labels", "clusters", "seed", "batch_size", "device", "detect", "crop"]
"""Options that are used only when an atlas is made."""


@app.command()
def atlas(
    context: typer.Context,
    places: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, patterns or tar shards; a file that `fra embed` wrote; or an atlas to open again. "
            "Default: the data set to pre-train on"
        ),
    ] = None,
    weights: Weights = WEIGHTS,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to write; an atlas in it is replaced")
    ] = Path("atlas"),
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file with a column `image` (or `key`) and others, which are added to the map"
        ),
    ] = None,
    clusters: Annotated[int, typer.Option(help="Number of clusters", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the map", min=0)] = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    detect: Detect = False,
    crop: CropOrDefault = None,
    serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Show it to browsers of this machine until Ctrl-C")
    ] = True,
    port: Annotated[int, typer.Option(help="Port of the server; 0: any free one", min=0, max=65535)] = 5055,
) -> None:
    """Show faces on an interactive map: similar faces are close together, with pictures, histograms and filters.

    The map is a folder that works on any web server, and without the internet. It shows of each face its cluster,
    brightness, sharpness, face score, yaw and shares of the masks; of a data set of the project also split, person,
    labels, and why it is quarantined. Colour the points by a column, draw a lasso or a range in a histogram to select
    faces, click a face for its neighbours, and save the selection with the download button (top right).

    Examples: `fra atlas photos/ --detect -w demo`; `fra atlas embeddings.parquet --labels labels.csv`; `fra atlas` in a
    project; `fra atlas atlas/` opens one again.
    """
    from fra.atlas import viewer
    from fra.atlas.write import make

    if places is not None and len(places) == 1 and viewer.is_atlas(Path(places[0])):
        out = Path(places[0])
        shown = f"{out} is an atlas, which is shown as it is; give its images or embeddings to make it again"
        refuse_options(context, WRITING, shown)
        if not serve:
            raise typer.BadParameter(f"--no-serve leaves nothing to do: {shown}")
    else:
        if not serve:
            refuse_options(context, ["port"], "--no-serve starts no server")
        dataset = dataset_of_project()
        if not places and dataset is None:
            raise typer.BadParameter(
                "give images or embeddings: this folder is no project with a sharded data set"
            )
        written = make(
            places or [f"{dataset.shards}/*.tar"],  # type: ignore[union-attr]
            weights,
            out,
            labels=labels,
            dataset=dataset,
            detection=detection_of(detect, crop),
            clusters=clusters,
            seed=seed,
            batch_size=batch_size,
            device=device,
        )
        print(f"{out}: {counted(written.faces, 'face')}", flush=True)
        for note in written.notes:
            print(f"note: {note}", file=sys.stderr)
        if not serve:
            report_skipped(written.skipped)
            return
        for name, reason in (written.skipped.unreadable | written.skipped.no_face).items():
            print(f"left out: {name}: {reason}", file=sys.stderr)
    if serve:
        show(out, port)


def show(folder: Path, port: int) -> None:
    """Serve an atlas until Ctrl-C."""
    from fra.atlas.server import HOST, server

    with server(folder, port) as running:
        number = running.server_address[1]
        print(f"http://{HOST}:{number}/  (Ctrl-C stops)", flush=True)
        print(f"from another machine: ssh -L {number}:localhost:{number} THIS-MACHINE", file=sys.stderr)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print(f"\nstopped; `fra atlas {folder}` shows it again", file=sys.stderr)


def dataset_of_project() -> Dataset | None:
    """The data set to pre-train on of the project that the current folder is the root of, if it is sharded."""
    from fra.atlas.annotations import Dataset
    from fra.data.datasets.records import DatasetConfig
    from pipelines import params
    from pipelines.project import paths
    from pipelines.project.dataset import validation_folder

    if find_root() != Path.cwd() or not params.PARAMS.is_file():
        return None
    config = params.section("dataset", DatasetConfig)
    if not paths.manifest(config.name).is_file():
        return None
    root = None if config.root is None else Path(config.root).expanduser()
    quarantine = validation_folder(config.name) / "quarantine.csv"
    return Dataset(paths.manifest(config.name), quarantine, paths.shards(config.name), root)
