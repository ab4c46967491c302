"""`fra bench`: benchmarks against what a user would use instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import (
    AsJson,
    Backbone,
    Batch,
    Compiled,
    Device,
    Faces,
    Hidden,
    Pixels,
    Projection,
    Rounds,
)

bench = typer.Typer(help="Benchmarks against what you would use instead.", no_args_is_help=True)


@bench.command()
def loader(
    images: Faces = None,
    image_size: Pixels = 224,
    batch_size: Annotated[int, typer.Option(help="Images per batch")] = 64,
    count: Annotated[int, typer.Option(help="Number of synthetic JPEG files")] = 1024,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """Our loader compared with ImageFolder, Pillow and DataLoader: same recipe, files and cores."""
    from fra.bench.loader import compare_loaders

    report(
        compare_loaders(images, image_size=image_size, batch_size=batch_size, images=count, rounds=rounds),
        as_json,
    )


@bench.command()
def shards(
    images: Annotated[
        int, typer.Option(help="Number of synthetic JPEG files (16 kB each on disk, twice)")
    ] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Sharding compared with webdataset's own writer; also of many images, and of 1 % new ones."""
    from fra.bench.shards import compare_sharding

    report(compare_sharding(images), as_json)


@bench.command("embed")
def bench_embed(
    weights: Annotated[
        Path | None, typer.Option("--weights", "-w", help="Weights file; an untrained backbone without it")
    ] = None,
    backbone: Backbone = "resnet50",
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels")] = 224,
    images: Annotated[int, typer.Option(help="Number of synthetic JPEG files")] = 256,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass")] = 64,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """`fra embed`, from image files to a file, compared with the bare model on decoded images, on the CPU."""
    from fra.bench.embedding import compare_embedding

    report(compare_embedding(weights, backbone, image_size, images, batch_size, rounds), as_json)


@bench.command()
def probe(
    images: Annotated[int, typer.Option(min=2, help="Number of synthetic rows of features")] = 10_000,
    features: Annotated[int, typer.Option(min=1, help="Numbers per row")] = 2048,
    labels: Annotated[int, typer.Option(min=1, help="Number of binary labels; CelebA has 40")] = 40,
    as_json: AsJson = False,
) -> None:
    """The linear probe of many labels compared with scikit-learn's logistic regression, label by label."""
    from fra.bench.probe import compare_probes

    report(compare_probes(images, features, labels), as_json)


@bench.command()
def step(
    backbone: Backbone = "resnet50",
    hidden_dim: Hidden = 4096,
    projection_dim: Projection = 256,
    image_size: Pixels = 224,
    batch_size: Batch = 16,
    rounds: Rounds = 3,
    device: Device = "auto",
    compiled: Compiled = False,
    as_json: AsJson = False,
) -> None:
    """Our training step compared with a plain PyTorch step of the same method: same weights, same batch."""
    from fra.bench.step import compare_steps
    from fra.method.config import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    report(compare_steps(model, image_size, batch_size, rounds, device, compiled=compiled), as_json)


@bench.command()
def train(
    images: Faces = None,
    backbone: Backbone = "resnet50",
    hidden_dim: Hidden = 4096,
    projection_dim: Projection = 256,
    image_size: Pixels = 224,
    batch_size: Batch = 16,
    count: Annotated[int, typer.Option(help="Number of synthetic JPEG files")] = 64,
    rounds: Rounds = 2,
    device: Device = "auto",
    compiled: Compiled = False,
    as_json: AsJson = False,
) -> None:
    """Pre-training from JPEG files, end to end: our loader and step compared with the plain ones."""
    from fra.bench.training import compare_training
    from fra.method.config import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    result = compare_training(images, model, image_size, batch_size, count, rounds, device, compiled=compiled)
    report(result, as_json)


def report(result: Mapping[str, object], as_json: bool) -> None:
    """Prints a result: a line per metric, then (or with `as_json` only) one JSON object as the last line."""
    if not as_json:
        for name, value in result.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(json.dumps(dict(result)))
