"""The commands `fra embed`, `predict`, `search`, `heatmaps`, `export`, `push` and `import-weights`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fra.faces.config import CropKind
from fra.gallery.curation import Rule
from fra.inference import Form
from fra.wording import counted
from pipelines.cli.options import (
    WEIGHTS,
    AsJson,
    BatchSize,
    CropOrDefault,
    Detect,
    Device,
    Images,
    Weights,
    refuse_options,
)

if TYPE_CHECKING:
    from fra.gallery.search import Result
    from fra.inference.detection import Detection
    from fra.inference.image_files import Skipped

app = typer.Typer()
Channels = tuple[float, float, float]
"""One number each for red, green and blue."""


@app.command()
def embed(
    images: Images,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The file to write: .parquet, .arrow (quick to search) or .npz"),
    ],
    weights: Weights = WEIGHTS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    detect: Detect = False,
    crop: CropOrDefault = None,
) -> None:
    """Compute embeddings of face images: one row per image with its name and its vector.

    Faces should be upright and fill most of the image. For photographs use --detect: one row per face, with its number
    in the image, its box (left, top, width, height, in pixels of the upright image) and its score; images without a
    face are reported. Files that cannot be decoded are reported and the exit code is 1; the embeddings of the others
    are written.
    """
    from fra.gallery.embed import embed as write

    detection = detection_of(detect, crop)
    skipped = write(images, weights, out, batch_size=batch_size, device=device, detection=detection)
    print(out)
    report_skipped(skipped)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A task model that `fra transfer fit` wrote")],
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .parquet file to write")],
    batch_size: BatchSize = 64,
    device: Device = "auto",
    detect: Detect = False,
    draw: Annotated[
        Path | None, typer.Option(help="A new folder for the images with their predictions drawn in")
    ] = None,
) -> None:
    """Predict with a task model: one row per image with its name and the outputs.

    Outputs are probabilities of classes or labels, coordinates of landmarks in pixels of the upright image, or pitch
    and yaw in degrees. Each image is a crop of a face like those that the model was fitted on. For photographs use
    --detect: faces are found and cropped in this way, and there is one row per face, with its number, box and score.
    Files that cannot be decoded are reported and the exit code is 1; the predictions of the others are written.
    """
    from fra.inference.predict import predict as write

    skipped = write(images, model, out, batch_size=batch_size, device=device, detect=detect, drawings=draw)
    print(out)
    report_skipped(skipped)


@app.command()
def search(
    context: typer.Context,
    gallery: Annotated[Path, typer.Option("--in", help="Embeddings that `fra embed` wrote")],
    images: Annotated[list[Path] | None, typer.Argument(help="Images of a face each")] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="The name of an image in the file, instead of an image; can be given several times"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .png or .jpg sheet of the queries and their results")
    ] = None,
    weights: Weights = WEIGHTS,
    count: Annotated[int, typer.Option("--count", "-n", help="Number of results", min=1)] = 5,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    detect: Detect = False,
    crop: CropOrDefault = None,
    as_json: AsJson = False,
) -> None:
    """List the images in a file of embeddings that are most similar to each face, with their cosine similarity.

    With --detect, they are listed for each face in the images, the largest first, cropped as the faces in the file.
    With --like, the embedding in the file is used: this needs no weights and takes the least time.
    """
    from fra.files import check_output
    from fra.gallery.search import search_entries, search_images

    detection_of(detect, crop)
    if bool(images) == bool(like):
        raise typer.BadParameter("give either images or --like")
    if like:
        refuse_options(context, ["weights", "batch_size", "device", "detect"], "--like uses no network")
    if out is not None:
        check_output(out, (".png", ".jpg"))
    if like:
        found = search_entries(like, gallery, count)
    else:
        found = search_images(
            images or [], gallery, weights, count, detect, crop, batch_size=batch_size, device=device
        )
    if as_json:
        print(json.dumps([result.as_json() for result in found]))
    else:
        print_results(found, several=len(images or like or []) > 1)
    if out is not None:
        from fra.gallery.sheet import draw_sheet

        draw_sheet(found, out)
        print(out, file=sys.stderr if as_json else None)


@app.command()
def index(
    gallery: Annotated[Path, typer.Argument(help="Embeddings that `fra embed` wrote")],
) -> None:
    """Write an index of a file of embeddings next to it: `fra search` then compares a query with a part of them only.

    It pays for many queries in more than 100,000 embeddings. It contains the hash of the file: an index of another
    content is not used.
    """
    from fra.gallery.neighbours import index_path, write_index

    recall = write_index(gallery)
    print(f"{index_path(gallery)}: finds {recall:.1%} of the ten nearest, by some of its own images")


@app.command()
def curate(
    gallery: Annotated[Path, typer.Argument(help="Embeddings that `fra embed` wrote")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The list to write: one key per line")],
    rule: Annotated[
        Rule,
        typer.Option(
            help="duplicates, outliers, labels (likely errors), clusters (too common), balanced (a subset to keep)"
        ),
    ],
    threshold: Annotated[
        float | None,
        typer.Option(
            help="duplicates: least similarity (0.98); outliers: robust standard deviations (6); labels: margin of "
            "probability (0); clusters: size divided by the median (3)"
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="balanced: number of images", min=1)
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="labels: a CSV file with a column image (or key) and the labels")
    ] = None,
    label: Annotated[str, typer.Option(help="labels: the column of the labels")] = "label",
    root: Annotated[
        Path | None, typer.Option(help="Folder that keys are relative to; else the one with all images")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Also write scores and reasons as .parquet")] = None,
    pixels: Annotated[
        bool,
        typer.Option(
            help="duplicates: compare pixels, too; outliers: look for faces; without: faster, finds less"
        ),
    ] = True,
) -> None:
    """Suggest images to leave out of a data set, or a balanced subset to keep, from their embeddings.

    The list is for dataset.exclude, or dataset.only. Look at the suggestions before you use them.
    """
    from fra.files import check_output, write_parquet
    from fra.gallery.curation.suggest import curate as suggest

    check_output(out)
    if table is not None:
        check_output(table, (".parquet",))
    found = suggest(gallery, rule, threshold, count, labels, label, root, pixels)
    found.write(out)
    if table is not None:
        write_parquet(found.table, table)
    print(f"{int(found.table['suggested'].sum())} of {counted(len(found.table), 'image')}", file=sys.stderr)
    print(out)


@app.command()
def heatmaps(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG file to write")],
    weights: Weights = WEIGHTS,
    limit: Annotated[int, typer.Option(help="Largest number of faces", min=1)] = 24,
    detect: Detect = False,
    crop: CropOrDefault = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
) -> None:
    """Draw the regions that a model finds in faces, one colour per mask, and print each mask's share of all pixels."""
    from fra.inference.heatmaps import draw

    detection = detection_of(detect, crop)
    shares, skipped = draw(
        weights, images, out, limit=limit, batch_size=batch_size, device=device, detection=detection
    )
    for mask, share in enumerate(shares):
        print(f"mask {mask}: {100 * share:.1f} %")
    print(out)
    report_skipped(skipped)


@app.command()
def export(
    form: Annotated[
        Form,
        typer.Argument(
            help="Format: program is one of torch.export; huggingface is a folder, the others are files"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; for huggingface a new folder")],
    weights: Annotated[
        Path, typer.Option("--weights", "-w", help="model.safetensors, backbone.safetensors or a task model")
    ] = WEIGHTS,
    license: Annotated[
        str | None,
        typer.Option(help="huggingface: the licence for the card, such as apache-2.0 or cc-by-nc-4.0"),
    ] = None,
) -> None:
    """Write a backbone or a task model in another format, and print the Python lines that use it.

    The lines are executed before the file is kept: they must give the numbers of `fra embed` or `fra predict`. Formats
    onnx, program and huggingface include the head of a task model; the others hold its backbone.
    """
    from fra.inference.export import export as write

    if form != "huggingface":
        if license is not None:
            raise typer.BadParameter("--license is used with huggingface only")
        print(write(weights, form, out))
        return
    from fra.inference.huggingface import export_folder

    print(export_folder(weights, out, license))
    if license is None:
        print("# the card states no licence: add it before `fra push`", file=sys.stderr)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A folder that `fra export huggingface` wrote")],
    repo: Annotated[str, typer.Option(help="The model repository on the hub: OWNER/NAME")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; else private")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking")] = False,
) -> None:
    """Upload a model to Hugging Face: list the files first, and send them only after confirmation or with --yes.

    Refuses a folder with other files, and a card without a licence. Log in with `hf auth login` or set HF_TOKEN.
    """
    from fra.inference.huggingface import prepare_upload
    from fra.inference.huggingface import push as upload

    prepared = prepare_upload(folder, repo, public)
    print(prepared)
    if not yes and not (sys.stdin.isatty() and typer.confirm("Upload these files?")):
        print("nothing was uploaded; --yes uploads", file=sys.stderr)
        raise typer.Exit(1)
    print(upload(prepared))


@app.command()
def import_weights(
    file: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint: of the official code, Bulat et al., torchvision, timm, Hugging Face transformers (ViT, "
            "MAE, DINOv2, DINOv3, CLIP, ConvNeXt), the originals of these, or any other with --prefix"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The backbone.safetensors to write")],
    backbone: Annotated[str, typer.Option(help="Its architecture, a value of model.backbone")] = "resnet50",
    image_size: Annotated[
        int, typer.Option(help="Side in pixels of the images that it was trained on")
    ] = 224,
    prefix: Annotated[
        str | None,
        typer.Option(help="Prefix of the backbone's names in the file, if the layout is not recognised"),
    ] = None,
    mean: Annotated[
        Channels | None,
        typer.Option(
            help="Mean of the images (RGB in 0…1) in its training, if not the layout's or ImageNet's"
        ),
    ] = None,
    std: Annotated[Channels | None, typer.Option(help="Their standard deviation; with --mean")] = None,
) -> None:
    """Convert a published checkpoint to a weights file of this project, without executing anything in it.

    Prints which names matched. Listed in transfer.baselines, it is evaluated like our own backbone.
    """
    from fra.weights.convert import import_weights as convert

    if (mean is None) != (std is None):
        raise typer.BadParameter("--mean and --std are used together")
    normalisation = None if mean is None or std is None else (mean, std)
    print(convert(file, out, backbone, image_size, prefix, normalisation))
    print(out)


def print_results(results: Sequence[Result], several: bool) -> None:
    """Print one line per match, below the query where there are several, and below the face where faces are found."""
    last, number = None, 0
    for result in results:
        number = number + 1 if result.image == last else 0
        if several and number == 0:
            print(result.image)
        last = result.image
        if result.face is not None:
            left, top, width, height = (round(value) for value in result.face.box)
            print(f"face {number}: box {left},{top},{width},{height}, score {result.face.score:.2f}")
        elif result.box is not None:
            print(f"face {number}: box {','.join(f'{value:.0f}' for value in result.box)}")
        for match in result.matches:
            face = "" if match.face is None else f"  face {match.face}"
            print(f"{match.cosine:6.3f}  {match.name}{face}")


def detection_of(detect: bool, crop: CropKind | None) -> Detection | None:
    """How faces are found, or None; refuses `--crop` without `--detect`."""
    if not detect:
        if crop is not None:
            raise typer.BadParameter("--crop is used with --detect only")
        return None
    from fra.inference.detection import Detection

    return Detection(crop or "box")


def report_skipped(skipped: Skipped) -> None:
    """Print the files that gave no image; exit with code 1 if there are any that cannot be decoded."""
    for name, reason in skipped.no_face.items():
        print(f"{name}: {reason}", file=sys.stderr)
    for name, reason in skipped.unreadable.items():
        print(f"not an image: {name}: {reason}", file=sys.stderr)
    if skipped.unreadable:
        raise typer.Exit(1)
