"""Export of backbones and task models to torchvision, timm, ONNX and PyTorch's exported programs.

Each format has a recipe: the lines of Python that load the exported file and compute embeddings, or the outputs of a
task model. They are what the user is shown, and they are executed before the file is kept: the result must be ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from fra.files import atomic, check_output
from fra.inference import encoder
from fra.inference.encoder import FaceEncoder
from fra.inference.network import OUTPUTS, interface, network_of
from fra.inference.task import pitch_and_yaw
from fra.method.backbone import RESNETS
from fra.transfer import task_model
from fra.transfer.task_model import TaskModel
from fra.weights import pretrained
from fra.weights.convert import shared_name
from fra.weights.files import write_weights
from fra.weights.pretrained import PretrainedBackbone

TOLERANCE = 1e-4
"""Largest deviation of an exported output, relative to the largest value (to 1 where that is smaller)."""
BATCHES = (1, 7)
"""Sizes of the batches of random images that an export is checked on."""
WITH_HEAD = ("onnx", "program")
"""Formats that include the head of a task model; the others export its backbone."""


class Candidate(NamedTuple):
    """One way to export: a function that writes the file, and the recipe that uses it (`{path!r}` is the file)."""

    write: Callable[[Path], None]
    recipe: str


def export(weights: str | Path, form: str, out: Path) -> str:
    """Write a backbone, or in the formats `WITH_HEAD` a task model, in another format.

    Args:
        weights: Weights file, or the name of released weights.
        form: One of `FORMS`.
        out: The file to write.

    Returns:
        The recipe: Python lines that compute `embeddings` (of a task model `outputs`) from `images` with the file.

    Raises:
        ValueError: The format is unknown, does not support the backbone, or gives other numbers.
        FileNotFoundError: The weights are missing.
        OSError: `out` cannot be written.
    """
    if form not in FORMS:
        raise ValueError(f"unknown format {form!r}: choose one of {', '.join((*FORMS, 'huggingface'))}")
    check_output(out)
    model = load_model(weights, with_head=form in WITH_HEAD)
    size, backbone = model.image_size, model.metadata["backbone"]
    cases = [(images, reference(model, images)) for images in random_images(size)]
    problems = []
    with atomic(out) as partial:
        for candidate in FORMS[form](model, cases[0][0].float() / 255):
            try:
                candidate.write(partial)
                recipe = candidate.recipe.format(path=str(partial))
                deviation = max(
                    relative_deviation(run(recipe, images.float() / 255), wanted) for images, wanted in cases
                )
            except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, AssertionError) as error:
                problems.append(str(error).strip().partition("\n")[0])
                continue
            if deviation <= TOLERANCE:
                header = f"# images: float32 (N, 3, {size}, {size}), RGB in 0…1"
                footer = f"# differs from the encoder by at most {deviation:.1e} of the largest value"
                if isinstance(model, TaskModel):
                    meaning = OUTPUTS[model.metadata["task"]]
                    columns = " ".join(", ".join(model.metadata["columns"]).split())  # one line of a comment
                    header += f"\n# outputs: {columns}: {meaning}"
                    footer = f"# differs from fra predict by at most {deviation:.1e}"
                return "\n".join([header, candidate.recipe.format(path=str(out)), footer])
            problems.append(f"its {output_of(model)} differ by {deviation:.1e} of the largest value")
        raise ValueError(
            f"{backbone!r} cannot be exported to {form}, nothing is written: {'; '.join(problems)}"
        )


def load_model(weights: str | Path, with_head: bool = True) -> FaceEncoder | TaskModel:
    """Load a task model, or the encoder of any weights file; see `fra.load` and `fra.load_task`."""
    if with_head and pretrained.read(weights).metadata["contents"] == "task":
        return task_model.load(weights)
    return encoder.load(weights)


def output_of(model: PretrainedBackbone) -> str:
    """Return the name of what an exported model computes."""
    return "outputs" if isinstance(model, TaskModel) else "embeddings"


def random_images(size: int) -> list[Tensor]:
    """Return the images on which an export is checked: uint8 (N, 3, size, size) for each N of `BATCHES`."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (n, 3, size, size), generator=generator, dtype=torch.uint8) for n in BATCHES]


def reference(model: FaceEncoder | TaskModel, images: Tensor) -> NDArray[np.float32]:
    """Return what this project computes for images (N, 3, S, S), uint8: embeddings, or the outputs of a task model.

    Outputs are as in `fra.inference.network.OUTPUTS`.
    """
    if isinstance(model, FaceEncoder):
        return np.asarray(model.embed(images).cpu().numpy(), np.float32)
    scores = model.scores(images.permute(0, 2, 3, 1).numpy())
    return np.asarray(pitch_and_yaw(scores) if model.metadata["task"] == "gaze" else scores, np.float32)


def run(recipe: str, images: Tensor) -> NDArray[np.float32]:
    """Execute a recipe and return its embeddings (N, D) or outputs (N, O)."""
    names: dict[str, Any] = {"images": images}
    exec(recipe, names)
    result = names["outputs"] if "outputs" in names else names["embeddings"]
    found: NDArray[np.float32] = torch.as_tensor(result).detach().numpy()
    return found


def relative_deviation(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference relative to the largest value; infinity where shapes differ or values are NaN."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def normalisation(model: PretrainedBackbone) -> str:
    """Return the lines of a recipe that define `mean` and `std`."""
    mean, std = (list(model.metadata[name]) for name in ("mean", "std"))
    return f"mean, std = torch.tensor({mean}).view(3, 1, 1), torch.tensor({std}).view(3, 1, 1)"


def torchvision_weights(model: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """A state dict with torchvision's names, without the classifier."""
    name = model.metadata["backbone"]
    if name not in RESNETS:
        raise ValueError(f"torchvision has no {name!r}: export to onnx, program or safetensors")

    def write(path: Path) -> None:
        torch.save({key: value.contiguous() for key, value in model.backbone.state_dict().items()}, path)

    yield Candidate(
        write,
        "import torch, torchvision\n"
        f"model = torchvision.models.{name}()\n"
        "model.fc = torch.nn.Identity()\n"
        "model.load_state_dict(torch.load({path!r}, weights_only=True))\n"
        f"{normalisation(model)}\n"
        "embeddings = model.eval()((images - mean) / std)",
    )


def timm_weights(model: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """A state dict (safetensors) of timm's plain model where that gives our features, else of its feature extractor.

    Our features are those of the last stage without the norm that some models (ConvNeXt, ViT) apply before their head.
    """
    import timm

    backbone = model.metadata["backbone"]
    if backbone not in RESNETS and not backbone.startswith("timm:"):
        raise ValueError(f"timm has no {backbone!r}: export to onnx, program or safetensors")
    name = backbone.removeprefix("timm:")
    ours = {key.removeprefix("trunk."): value for key, value in model.backbone.state_dict().items()}
    dynamic = accepts_any_size(timm, name)

    def recipe(options: str, load: str, features: str) -> str:
        return (
            "import timm, torch\n"
            "from safetensors.torch import load_file\n"
            f"model = timm.create_model({name!r}, {options}{dynamic})\n"
            f"model.load_state_dict(load_file({{path!r}}){load})\n"
            f"{normalisation(model)}\n"
            f"features = model.eval(){features}\n"
            "embeddings = features.mean((2, 3))"
        )

    def write_plain(path: Path) -> None:
        options: dict[str, Any] = {"dynamic_img_size": True} if dynamic else {}
        plain = timm.create_model(name, num_classes=0, **options).state_dict()
        by_name = {shared_name(key): value for key, value in ours.items()}
        save_file(
            {key: by_name[shared_name(key)].contiguous() for key in plain if shared_name(key) in by_name},
            path,
        )

    def write_extractor(path: Path) -> None:
        save_file({key: value.contiguous() for key, value in ours.items()}, path)

    yield Candidate(
        write_plain,
        recipe(
            "num_classes=0",
            ", strict=False",
            ".forward_intermediates((images - mean) / std, indices=1, norm=False, intermediates_only=True)[-1]",
        ),
    )
    last = "((images - mean) / std)[-1]"
    channels_last = getattr(model.backbone, "channels_come_last", False)
    yield Candidate(
        write_extractor,
        recipe(
            "features_only=True, out_indices=(-1,)",
            "",
            last + (".permute(0, 3, 1, 2)" if channels_last else ""),
        ),
    )


def accepts_any_size(timm: Any, name: str) -> str:
    """Return the argument that lets a timm model with learned positions take any image size, or nothing."""
    try:
        timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return ""
    return ", dynamic_img_size=True"


def onnx(model: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """A graph for any ONNX runtime, for batches of any size; its metadata state input, crop and output."""
    try:
        import onnxruntime  # noqa: F401  the recipe needs it
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ValueError(f"the package {error.name} is not installed: pip install onnx onnxscript") from None
    output = output_of(model)

    def write(path: Path) -> None:
        program = torch.onnx.export(
            network_of(model),
            (images.repeat(2, 1, 1, 1),),  # an example batch of one image would be taken for a constant
            input_names=["images"],
            output_names=[output],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for name, value in interface(model).items():
            program.model.metadata_props[f"fra.{name}"] = (
                value if isinstance(value, str) else json.dumps(value)
            )
        program.save(path, external_data=False)

    yield Candidate(
        write,
        "import os\n"
        'os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it sends telemetry otherwise\n'
        "import onnxruntime\n"
        'session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])\n'
        f'{output} = session.run(["{output}"], dict(images=images.numpy()))[0]',
    )


def program(model: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """PyTorch's exported program, which runs without the code of this package; states its interface in `fra.json`."""

    def write(path: Path) -> None:
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        example = images.repeat(2, 1, 1, 1)
        exported = torch.export.export(network_of(model), (example,), dynamic_shapes=shapes)
        content = BytesIO()  # in memory first: on a full disk torch would abort the process
        torch.export.save(exported, content, extra_files={"fra.json": json.dumps(interface(model))})
        path.write_bytes(content.getvalue())

    yield Candidate(
        write,
        "import torch\n"
        'with open({path!r}, "rb") as file:\n'
        "    model = torch.export.load(file).module()\n"
        f"{output_of(model)} = model(images)",
    )


def safetensors(model: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """The backbone alone, as `fra.load` reads it, with its provenance."""

    def write(path: Path) -> None:
        write_weights(path, model.backbone.state_dict(), model.metadata | {"contents": "backbone"})

    yield Candidate(write, "import fra\nembeddings = fra.load({path!r}).embed((images * 255).round().byte())")


FORMS: dict[str, Callable[[PretrainedBackbone, Tensor], Iterator[Candidate]]] = {
    "torchvision": torchvision_weights,
    "timm": timm_weights,
    "onnx": onnx,
    "program": program,
    "safetensors": safetensors,
}
