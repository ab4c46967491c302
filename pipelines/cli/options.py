"""Command line options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fra.faces.config import CropKind
from pipelines.project import paths
from pipelines.project.root import find_root

WEIGHTS = Path(os.path.relpath(find_root() or ".")) / paths.PRETRAIN / "model.safetensors"
"""The trained model of the project that the current folder is in."""
Images = Annotated[
    list[str],
    typer.Argument(help='Files, folders (at any depth), patterns ("faces/**/*.jpg") or tar shards'),
]
Weights = Annotated[
    Path,
    typer.Option(
        "--weights",
        "-w",
        help="model.safetensors, backbone.safetensors, or the name of released weights (demo)",
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:<number>, or auto: a GPU if one is available")
]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Images per batch of the network", min=1)]
Crop = Annotated[
    CropKind,
    typer.Option("--crop", help="The square around a face (box), or aligned by eyes, nose and mouth"),
]
Detect = Annotated[
    bool, typer.Option("--detect", help="Find the faces in each image: several faces are several rows")
]
CropOrDefault = Annotated[
    CropKind | None,
    typer.Option(
        "--crop",
        help="With --detect: the square around a face (box, the default), or aligned by eyes, nose and mouth",
    ),
]
# Options of benchmarks.
Backbone = Annotated[str, typer.Option(help="Like the parameter model.backbone")]
Faces = Annotated[Path | None, typer.Argument(help="A folder of folders of images; default: synthetic JPEGs")]
Pixels = Annotated[int, typer.Option(min=1, help="Width and height of the images in pixels")]
Batch = Annotated[int, typer.Option(min=2, help="Images per batch")]
Count = Annotated[int, typer.Option(min=1, help="Number of synthetic JPEG files")]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Use torch.compile for our side, like train.compile")
]
Hidden = Annotated[int, typer.Option(help="Like the parameter model.hidden_dim")]
Projection = Annotated[int, typer.Option(help="Like the parameter model.projection_dim")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of both sides in turn; the median of each is used")]
PEER_HELP = "Compare with this package instead; it is installed into .work/peers on the first use"
AsJson = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON")]


def refuse_options(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Refuses options that would have no effect.

    Args:
        context: The command.
        names: The names of their parameters.
        reason: Why they have no effect.

    Raises:
        typer.BadParameter: One of them is on the command line.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name.replace('_', '-')} has no effect: {reason}")
