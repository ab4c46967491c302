"""`fra embed`, `search`, `heatmaps`, `export`, `import-weights`: what people do with weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import WEIGHTS, Device, Images, Weights

app = typer.Typer()


@app.command()
def embed(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: .parquet or .npz")],
    weights: Weights = WEIGHTS,
    batch_size: Annotated[int, typer.Option(help="Images at once", min=1)] = 64,
    device: Device = "auto",
) -> None:
    """Turns images of faces into embeddings: one row an image, its name and its vector.

    Faces should fill most of the image, upright. Files that are no images are named, and the exit code is 1; the
    others are written all the same.
    """
    from fra.inference.embed import embed as write

    unread = write(images, weights, out, batch_size=batch_size, device=device)
    print(out)
    tell_unread(unread.reasons)


@app.command()
def search(
    image: Annotated[Path, typer.Argument(help="A face")],
    gallery: Annotated[Path, typer.Option("--in", help="What `fra embed` wrote")],
    weights: Weights = WEIGHTS,
    count: Annotated[int, typer.Option("--count", "-n", help="How many", min=1)] = 5,
) -> None:
    """The faces in a file of embeddings that look most like this one, with cosines (1: the same direction)."""
    from fra.inference.embed import search as nearest

    for near in nearest(image, gallery, weights, count):
        print(f"{near.cosine:6.3f}  {near.name}")


@app.command()
def heatmaps(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: .png")],
    weights: Weights = WEIGHTS,
    limit: Annotated[int, typer.Option(help="Faces at most", min=1)] = 24,
) -> None:
    """Draws the regions that a model finds in faces: one colour a mask, and each mask's share of all pixels."""
    from fra.inference.encoder import load
    from fra.inference.heatmaps import picture

    shares, unread = picture(load(weights), images, out, limit=limit)
    for mask, share in enumerate(shares):
        print(f"mask {mask}: {100 * share:.1f} %")
    print(out)
    tell_unread(unread.reasons)


@app.command()
def export(
    form: Annotated[
        str, typer.Argument(help="torchvision, timm, onnx, program (torch.export) or safetensors")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write")],
    weights: Weights = WEIGHTS,
) -> None:
    """Writes a backbone for other programs, reads it back with the library it is for, and compares embeddings."""
    from fra.inference.encoder import load
    from fra.inference.export import export as write

    print(write(load(weights), form, out))
    print(out)


@app.command()
def import_weights(
    file: Annotated[
        Path, typer.Argument(help="A checkpoint of the official code, of Bulat et al., of torchvision")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The backbone.safetensors to write")],
    backbone: Annotated[str, typer.Option(help="Its architecture, as model.backbone")] = "resnet50",
    image_size: Annotated[int, typer.Option(help="Pixels a side of the images that it is to see")] = 224,
    prefix: Annotated[
        str | None, typer.Option(help="What its names begin with, where the layout is not known")
    ] = None,
) -> None:
    """Makes a backbone of somebody else's checkpoint, without executing anything in it, and says which names matched.

    Named in transfer.baselines, it is judged beside our own by the same code.
    """
    from fra.weights.convert import import_weights as convert

    print(convert(file, out, backbone, image_size, prefix))
    print(out)


def tell_unread(reasons: dict[str, str]) -> None:
    """Names files that are no images; exit code 1 if there are any."""
    for name, reason in reasons.items():
        print(f"not an image: {name}: {reason}", file=sys.stderr)
    if reasons:
        raise typer.Exit(1)
