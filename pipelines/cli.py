"""The command `fra`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines import paths
from pipelines.errors import describe

app = typer.Typer(
    help="FRA: from a folder of faces to a backbone, with evidence for every number.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
lineage = typer.Typer(
    help="What was made from what: show it, check it, follow one person.", no_args_is_help=True
)
data = typer.Typer(help="Who approved the data, and who left them.", no_args_is_help=True)
transfer = typer.Typer(help="What a backbone is worth on tasks.", no_args_is_help=True)
bench = typer.Typer(help="How fast we are, beside what you would use instead.", no_args_is_help=True)
app.add_typer(lineage, name="lineage")
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
app.add_typer(transfer, name="transfer")


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
    from fra.use.embed import embed as write

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
    from fra.use.embed import search as nearest

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
    from fra.inference import load
    from fra.use.regions import picture

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
    from fra.inference import load
    from fra.use.export import export as write

    print(write(load(weights), form, out))
    print(out)


def tell_unread(reasons: dict[str, str]) -> None:
    """Names files that are no images; exit code 1 if there are any."""
    for name, reason in reasons.items():
        print(f"not an image: {name}: {reason}", file=sys.stderr)
    if reasons:
        raise typer.Exit(1)


@app.command()
def compare(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Names, as in `dvc exp show`; all where none is given")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page")] = Path("artifacts/compare.html"),
) -> None:
    """Sets the workspace and experiments side by side: results, parameters that differ, losses; as one page."""
    from pipelines.compare import write

    if left_out := write(out, experiments or []):
        print(f"left out, as not run to their end: {', '.join(left_out)}", file=sys.stderr)
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
    from fra.transfer.foreign import import_weights as convert

    print(convert(file, out, backbone, image_size, prefix))
    print(out)


@lineage.command()
def show(
    artifact: Annotated[
        str,
        typer.Argument(
            help="A path, a metric (…/metrics.json#pretrained.nme), a report section (…/index.html#alignment)"
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
    page: Annotated[Path | None, typer.Option(help="Write it as a page with a graph")] = None,
) -> None:
    """From an artifact back to code, parameters, environment, verdict, shards and images.

    A copy of weights on another disk is found by its bytes, in this run or in an experiment.
    """
    from rich.console import Console

    from fra.data.files import write_text
    from pipelines.lineage import show as lineage_show

    origin = lineage_show.trace(artifact)
    if page is not None:
        write_text(lineage_show.page(origin), page)
    if as_json:
        print(json.dumps(origin, indent=2))
    elif page is None:
        Console().print(lineage_show.tree(origin))


@lineage.command()
def verify(
    artifact: Annotated[str | None, typer.Argument(help="Only what this artifact was made from")] = None,
    remote: Annotated[
        Path | None, typer.Option(help="A folder that DVC pushes to: check its objects too")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The statement about the backbone must be signed by this key (PEM)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
) -> None:
    """Computes every hash anew and compares every record with the others. Exit code 1 if anything is off."""
    from pipelines.lineage.verify import report
    from pipelines.lineage.verify import verify as find

    problems = find(artifact=artifact, remote=remote, public_key=public_key)
    if as_json:
        print(
            json.dumps(
                [{"subject": problem.subject, "message": problem.message} for problem in problems], indent=2
            )
        )
    else:
        print(report(problems))
    if problems:
        raise typer.Exit(1)


@lineage.command()
def who(
    image: Annotated[str | None, typer.Option(help="The key of an image, as in the manifest")] = None,
    subject: Annotated[str | None, typer.Option(help="A person, as in the manifest")] = None,
) -> None:
    """Everything that was made from an image or a person: shards, stages, artifacts, experiments; as JSON."""
    from pipelines.lineage.who import made_from

    if (image is None) == (subject is None):
        raise typer.BadParameter("give --image KEY or --subject PERSON")
    found = made_from("key", image) if image is not None else made_from("person", str(subject))
    print(json.dumps(found, indent=2))


@lineage.command()
def attest(
    backbone: Annotated[Path, typer.Argument(help="The weights")] = paths.BACKBONE,
    out: Annotated[Path, typer.Option(help="The statement")] = paths.STATEMENT,
    key: Annotated[
        Path | None, typer.Option(help="Ed25519 private key (PEM); else FRA_SIGNING_KEY; else unsigned")
    ] = None,
) -> None:
    """Writes an in-toto statement (SLSA provenance) about a backbone, signed where there is a key."""
    from pipelines.lineage import attest as statements

    print(f"{out}: {'signed' if statements.write(backbone, out, key) else 'not signed'}")


@lineage.command()
def check(
    backbone: Annotated[Path, typer.Argument(help="The weights")] = paths.BACKBONE,
    statement: Annotated[Path, typer.Option(help="The statement about them")] = paths.STATEMENT,
    public_key: Annotated[
        Path | None, typer.Option(help="The statement must be signed by this key (PEM)")
    ] = None,
    alone: Annotated[
        bool, typer.Option(help="Compare the two files only, not this project's dvc.lock")
    ] = False,
) -> None:
    """Checks a backbone against the statement about it. Exit code 1 if anything is off."""
    from pipelines.lineage import attest as statements

    problems = statements.check(statement, backbone, public_key, None if alone else Path())
    print("\n".join(problems) or "pass: the statement is about these weights")
    if problems:
        raise typer.Exit(1)


@lineage.command()
def card(out: Annotated[Path, typer.Option(help="The model card")] = Path("artifacts/MODEL_CARD.md")) -> None:
    """Writes a model card (Hugging Face format) from the run's own records."""
    from pipelines.lineage.card import write

    write(out)
    print(out)


@data.command()
def approve(by: Annotated[str, typer.Option(help="Who signs the gate's verdict off")]) -> None:
    """Puts a person's name under the verdict on the data that are here; `fra lineage show` tells it."""
    from pipelines.lineage.approval import approve as write

    for file in write(by):
        record = json.loads(file.read_text(encoding="utf-8"))
        print(
            f"{record['dataset']}: {record['rows'] - record['quarantined']} images approved by {by}: {file} "
            "(commit it)"
        )


@data.command()
def withdraw(
    subject: Annotated[str, typer.Option(help="The person, as in the manifest")],
    by: Annotated[str, typer.Option(help="Who signs the withdrawal off")],
    run: Annotated[bool, typer.Option(help="Shard and judge the data again at once")] = True,
) -> None:
    """Takes a person out of the data, and says what was made from their pictures."""
    from pipelines.withdraw import reshard
    from pipelines.withdraw import withdraw as write

    for file in write(subject, by):
        record = json.loads(file.read_text(encoding="utf-8"))
        print(
            f"{record['dataset']}: {record['images']} images of {subject} withdrawn, signed off by {by}: {file}"
        )
        for path, digest in record["stale"].items():
            print(f"  stale: {path}  {digest}")
        for name in record["stale_experiments"]:
            print(f"  stale: experiment {name}")
        if run and reshard(record):
            raise typer.Exit(1)
    print("Next: `dvc repro` trains without them. Their bytes stay in DVC's cache, and in remotes, until")
    print(
        "`dvc gc --workspace` (with --cloud for the remote) removes what no stage uses; your own raw folder is yours."
    )


@transfer.command()
def baseline(
    experiment: Annotated[
        str, typer.Argument(help="A DVC experiment or a git branch, as `dvc exp show` names it")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Else data/baselines/<experiment>.safetensors")
    ] = None,
) -> None:
    """Takes the backbone that an experiment trained out of DVC's cache, to judge others beside it."""
    from fra.data.files import atomic
    from pipelines import paths
    from pipelines.compare import content
    from pipelines.lineage import history
    from pipelines.lineage.locks import LineageError

    known = {run.name: run for run in history.runs()}
    if experiment not in known:
        raise LineageError(f"no experiment {experiment!r}; there are: {', '.join(sorted(known)) or 'none'}")
    target = out or paths.BASELINES / f"{experiment}.safetensors"
    weights = content(known[experiment].stages(), paths.PRETRAIN / "backbone.safetensors", Path())
    with atomic(target) as partial:
        partial.write_bytes(weights)
    print(target)


SHOWN = 20
"""Differences of a task that are named; more would hide the other tasks'."""


@transfer.command()
def recompute(
    task: Annotated[
        str | None, typer.Argument(help="One task; all that were evaluated where none is named")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the tasks' folders are")] = Path("artifacts/transfer"),
) -> None:
    """Computes every stored figure anew from the stored predictions. Exit code 1 if any is not what they give."""
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
def pool_runs(
    runs: Annotated[list[Path], typer.Argument(help="The artifacts/transfer of each pre-training")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the figures of all together")] = Path(
        "pooled"
    ),
) -> None:
    """Figures as means over several pre-trainings (their seeds), with intervals. Alike but for their seed, that is."""
    from rich.console import Console

    from fra.transfer.pool import pool
    from pipelines.summary import differences

    Console().print(differences(pool(runs, out)))
    print(out)


@transfer.command("regions")
def judge_regions(
    model: Annotated[Path, typer.Option(help="The model, with its region branch")] = Path(
        "artifacts/pretrain/model.safetensors"
    ),
    dataset: Annotated[str, typer.Option(help="A data set with 68 or 98 landmarks, by name")] = "orl",
    beside: Annotated[
        list[Path] | None, typer.Option(help="Further weights, whose features are clustered")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The figures (JSON)")] = Path("regions.json"),
) -> None:
    """How well a model's heatmaps find facial parts without labels, beside clusters, untrained networks and place."""
    from pipelines import paths
    from pipelines.report import judge_regions as judge

    for row, figures in judge(
        model, paths.manifest(dataset), paths.shards(dataset), out, beside or []
    ).items():
        print(
            f"{row}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if name != "iou")
        )
    print(out)


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
    from fra.data.bench import loader as measure

    tell(measure(images, image_size=image_size, batch_size=batch_size, images=count, rounds=rounds), as_json)


@bench.command()
def shards(
    images: Annotated[
        int, typer.Option(help="How many JPEGs to make up (16 kB each on disk, twice)")
    ] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Sharding of 10,000 and of many images, and of 1 % new ones, beside webdataset's own writer; one run."""
    from fra.data.bench_shards import sharding

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
    from fra.use.bench import embedding

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
    from fra.transfer.bench import probing

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
    from fra.method.networks import ModelConfig
    from fra.train.bench import step as measure

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
    from fra.method.networks import ModelConfig
    from fra.train.bench_run import training

    model = ModelConfig(backbone, hidden_dim=hidden_dim, projection_dim=projection_dim)
    found = training(images, model, image_size, batch_size, count, rounds, device, compiled=compiled)
    tell(found, as_json)


def tell(result: dict[str, object], as_json: bool) -> None:
    """A benchmark's result: a line a figure, then (or only) one JSON object."""
    if not as_json:
        for name, value in result.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    print(json.dumps(result))


def main() -> None:
    """Runs the command; an error that we raise on purpose is one line and exit code 1."""
    import pipelines  # noqa: F401  switches off telemetry before anything is imported

    try:
        app()
    except Exception as error:
        if os.environ.get("FRA_DEBUG"):
            raise
        sys.exit(f"error: {describe(error)}")


if __name__ == "__main__":
    main()
