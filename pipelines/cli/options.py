"""Options that several commands share, with one meaning each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.project import paths

WEIGHTS = paths.PRETRAIN / "model.safetensors"
Images = Annotated[
    list[str],
    typer.Argument(help='Files, folders (at any depth), patterns ("faces/**/*.jpg") or tar shards'),
]
Weights = Annotated[Path, typer.Option("--weights", "-w", help="model.safetensors or backbone.safetensors")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one")]
# Of benchmarks.
Backbone = Annotated[str, typer.Option(help="As model.backbone")]
Faces = Annotated[Path | None, typer.Argument(help="A folder of folders of images; made-up JPEGs where none")]
Pixels = Annotated[int, typer.Option(help="Pixels a side of a view")]
Batch = Annotated[int, typer.Option(help="Images a step")]
Compiled = Annotated[bool, typer.Option("--compile", help="Ours with torch.compile, as train.compile")]
Hidden = Annotated[int, typer.Option(help="As model.hidden_dim")]
Projection = Annotated[int, typer.Option(help="As model.projection_dim")]
Rounds = Annotated[int, typer.Option(help="Alternating rounds; the median of each side counts")]
AsJson = Annotated[bool, typer.Option("--json", help="Only the result, as one JSON object")]
