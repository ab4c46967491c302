"""The command `fra faces`: its options are the fields of `FacesConfig`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from fra.faces.config import DetectorName, FacesConfig, Keep
from fra.wording import counted
from pipelines.cli.inference import report_skipped
from pipelines.cli.options import Crop, Images

app = typer.Typer()
DEFAULTS = FacesConfig()
DESCRIPTION = TypeAdapter(FacesConfig).json_schema()


def option(name: str) -> Any:
    """The command line option of a field of `FacesConfig`, with its description and range."""
    field = DESCRIPTION["properties"][name]
    above = field.get("exclusiveMinimum")  # of whole numbers
    least = field.get("minimum") if above is None else above + 1
    return typer.Option(help=f"{field['description']} (faces.{name})", min=least, max=field.get("maximum"))


@app.command()
def faces(
    images: Images,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for the crops and faces.parquet: new, or of an earlier run to update"
        ),
    ],
    crop: Crop = "box",
    size: Annotated[int, option("size")] = DEFAULTS.size,
    margin: Annotated[float, option("margin")] = DEFAULTS.margin,
    score: Annotated[float, option("score")] = DEFAULTS.score,
    min_side: Annotated[int, option("min_side")] = DEFAULTS.min_side,
    min_sharpness: Annotated[float, option("min_sharpness")] = DEFAULTS.min_sharpness,
    keep: Annotated[Keep, option("keep")] = DEFAULTS.keep,
    detector: Annotated[DetectorName, option("detector")] = DEFAULTS.detector,
    draw: Annotated[
        Path | None,
        typer.Option(help="Folder, like --out, for the photographs with boxes, points and scores"),
    ] = None,
) -> None:
    """Find the faces in photographs and write each as a square crop, with a table of where it comes from.

    Boxes and points in the table refer to the upright photograph, after its Exif rotation. Photographs without a face
    are listed. Files that cannot be decoded are listed and the exit code is 1; the faces of the others are written.
    With the folder of an earlier run, only new and changed photographs are processed.
    """
    from fra.inference.detection import Detection
    from fra.inference.faces import extract

    config = FacesConfig(detector, score, min_side, min_sharpness, keep, size, margin)
    summary = extract(images, out, Detection(crop, config), draw)
    print(out / "faces.parquet")
    skipped = summary.skipped
    counts = (
        f"{counted(summary.faces, 'face')} in {counted(summary.photos, 'photograph')}; "
        f"{len(skipped.no_face)} without a face, "
        f"{len(skipped.unreadable)} cannot be decoded"
    )
    if summary.taken_over or summary.removed:
        counts += (
            f"; {summary.taken_over} unchanged since the run before, "
            f"the crops of {summary.removed} that are gone are removed"
        )
    print(counts, file=sys.stderr)
    report_skipped(skipped)
