"""`fra bench`: benchmarks against what a user would use instead."""

from __future__ import annotations

import json
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

bench = typer.Typer(help="How fast we are, beside what you would use instead.", no_args_is_help=True)


@bench.command()
def loader(
    images: Faces = None,
    image_size: Pixels = 224,
    batch_size: Annotated[int, typer.Option(help="Images a batch")] = 64,
    count: Annotated[int, typer.Option(help="How many JPEGs to make up")] = 1024,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """Our loader beside ImageFolder, Pillow and DataLoader with the same recipe: same files and cores, one run."""
    from fra.bench.loader import loader as measure

    tell(measure(images, image_size=image_size, batch_size=batch_size, images=count, rounds=rounds), as_json)


@bench.command()
def shards(
    images: Annotated[
        int, typer.Option(help="How many JPEGs to make up (16 kB each on disk, twice)")
    ] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Sharding of 10,000 and of many images, and of 1 % new ones, beside webdataset's own writer; one run."""
    from fra.bench.shards import sharding

    tell(sharding(images), as_json)


@bench.command("embed")
def bench_embed(
    weights: Annotated[
        Path | None, typer.Option("--weights", "-w", help="Weights to take; else an untrained backbone")
    ] = None,
    backbone: Backbone = "resnet50",
    image_size: Annotated[int, typer.Option(help="Pixels a side")] = 224,
    images: Annotated[int, typer.Option(help="How many JPEGs to make up")] = 256,
    batch_size: Annotated[int, typer.Option(help="Images at once")] = 64,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """`fra embed`, from files to a file, beside the bare model on pixels that lie ready; on the CPU, one run."""
    from fra.bench.embedding import embedding

    tell(embedding(weights, backbone, image_size, images, batch_size, rounds), as_json)


@bench.command()
def probe(
    images: Annotated[int, typer.Option(min=2, help="How many rows of features to make up")] = 10_000,
    features: Annotated[int, typer.Option(min=1, help="Numbers a row")] = 2048,
    labels: Annotated[
        int, typer.Option(min=1, help="How many labels, yes or no, to learn; CelebA has 40")
    ] = 40,
    as_json: AsJson = False,
) -> None:
    """The linear probe of many labels beside scikit-learn's logistic regression, label by label; one run."""
    from fra.bench.probe import probing

    tell(probing(images, features, labels), as_json)


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
    """Our training step beside a plain PyTorch step of the same method: same weights, same batch, one run."""
    from fra.bench.step import step as measure
    from fra.method.networks import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    tell(measure(model, image_size, batch_size, rounds, device, compiled=compiled), as_json)


@bench.command()
def train(
    images: Faces = None,
    backbone: Backbone = "resnet50",
    hidden_dim: Hidden = 4096,
    projection_dim: Projection = 256,
    image_size: Pixels = 224,
    batch_size: Batch = 16,
    count: Annotated[int, typer.Option(help="How many JPEGs to make up")] = 64,
    rounds: Rounds = 2,
    device: Device = "auto",
    compiled: Compiled = False,
    as_json: AsJson = False,
) -> None:
    """Pre-training from JPEG files, end to end: our loader and step beside the plain ones; same files, one run."""
    from fra.bench.training import training
    from fra.method.networks import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    found = training(images, model, image_size, batch_size, count, rounds, device, compiled=compiled)
    tell(found, as_json)


def tell(result: dict[str, object], as_json: bool) -> None:
    """A benchmark's result: a line a figure, then (or only) one JSON object."""
    if not as_json:
        for name, value in result.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(json.dumps(result))
