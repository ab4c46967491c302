"""Export of a backbone to torchvision, timm, ONNX and PyTorch's exported programs.

Each format has a recipe: the lines of Python that load the exported file and compute embeddings. They are what the user
is shown, and they are executed before the file is kept: their embeddings must be those of the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from fra.files import atomic, check_output
from fra.inference.encoder import load
from fra.method.backbone import RESNETS
from fra.weights.convert import shared_name
from fra.weights.files import write_weights
from fra.weights.pretrained import PretrainedBackbone

TOLERANCE = 1e-4
"""Largest deviation of an exported embedding, relative to the largest value."""
IMAGES = 4
"""Number of random images that an export is checked on."""


class Embedder(nn.Module):
    """Images (N, 3, S, S), float32, RGB in 0…1 → embeddings (N, D); includes the normalisation."""

    def __init__(self, encoder: PretrainedBackbone) -> None:
        super().__init__()
        self.backbone = encoder.backbone
        self.register_buffer("mean", encoder.get_buffer("mean").clone())
        self.register_buffer("std", encoder.get_buffer("std").clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (N, D)."""
        normalised = (images - self.get_buffer("mean")) / self.get_buffer("std")
        pooled: Tensor = self.backbone(normalised).mean((2, 3))
        return pooled


class Candidate(NamedTuple):
    """One way to export: a function that writes the file, and the recipe that uses it ("{path}" is the file)."""

    write: Callable[[Path], None]
    recipe: str


def export(weights: str | Path, form: str, out: Path) -> str:
    """Write a backbone in another format.

    Args:
        weights: Weights file, or the name of released weights.
        form: One of `FORMS`.
        out: The file to write.

    Returns:
        The recipe: Python lines that compute `embeddings` from `images` with the file.

    Raises:
        ValueError: The format is unknown, does not support the backbone, or gives other embeddings.
        FileNotFoundError: The weights are missing.
        OSError: `out` cannot be written.
    """
    if form not in FORMS:
        raise ValueError(f"unknown format {form!r}: choose one of {', '.join(FORMS)}")
    check_output(out)
    encoder = load(weights)
    size = encoder.image_size
    images = torch.randint(256, (IMAGES, 3, size, size), generator=torch.Generator()).float() / 255
    with torch.inference_mode():
        expected = Embedder(encoder)(images).numpy()
    problems = []
    with atomic(out) as partial:
        for candidate in FORMS[form](encoder, images):
            try:
                candidate.write(partial)
                found = run(candidate.recipe.format(path=partial), images)
            except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, AssertionError) as error:
                problems.append(str(error).strip().partition("\n")[0])
                continue
            deviation = relative_deviation(found, expected)
            if deviation <= TOLERANCE:
                header = f"# images: float32 (N, 3, {size}, {size}), RGB in 0…1"
                footer = f"# differs from the encoder by at most {deviation:.1e} of the largest value"
                return "\n".join([header, candidate.recipe.format(path=out), footer])
            problems.append(f"its embeddings differ by {deviation:.1e} of the largest value")
        backbone = encoder.metadata["backbone"]
        raise ValueError(
            f"{backbone!r} cannot be exported to {form}, nothing is written: {'; '.join(problems)}"
        )


def run(recipe: str, images: Tensor) -> NDArray[np.float32]:
    """Execute a recipe and return its embeddings (N, D)."""
    names: dict[str, Any] = {"images": images}
    exec(recipe, names)
    embeddings: NDArray[np.float32] = torch.as_tensor(names["embeddings"]).detach().numpy()
    return embeddings


def relative_deviation(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference relative to the largest value; infinity where shapes differ or values are NaN."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def normalisation(encoder: PretrainedBackbone) -> str:
    """Return the lines of a recipe that define `mean` and `std`."""
    mean, std = (list(encoder.metadata[name]) for name in ("mean", "std"))
    return f"mean, std = torch.tensor({mean}).view(3, 1, 1), torch.tensor({std}).view(3, 1, 1)"


def torchvision_weights(encoder: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """A state dict with torchvision's names, without the classifier."""
    name = encoder.metadata["backbone"]
    if name not in RESNETS:
        raise ValueError(f"torchvision has no {name!r}: export to onnx, program or safetensors")

    def write(path: Path) -> None:
        torch.save({key: value.contiguous() for key, value in encoder.backbone.state_dict().items()}, path)

    yield Candidate(
        write,
        "import torch, torchvision\n"
        f"model = torchvision.models.{name}()\n"
        "model.fc = torch.nn.Identity()\n"
        'model.load_state_dict(torch.load("{path}", weights_only=True))\n'
        f"{normalisation(encoder)}\n"
        "embeddings = model.eval()((images - mean) / std)",
    )


def timm_weights(encoder: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """A state dict (safetensors) of timm's plain model where that gives our features, else of its feature extractor.

    Our features are those of the last stage without the norm that some models (ConvNeXt, ViT) apply before their head.
    """
    import timm

    backbone = encoder.metadata["backbone"]
    if backbone not in RESNETS and not backbone.startswith("timm:"):
        raise ValueError(f"timm has no {backbone!r}: export to onnx, program or safetensors")
    name = backbone.removeprefix("timm:")
    ours = {key.removeprefix("trunk."): value for key, value in encoder.backbone.state_dict().items()}
    dynamic = accepts_any_size(timm, name)

    def recipe(options: str, load: str, features: str) -> str:
        return (
            "import timm, torch\n"
            "from safetensors.torch import load_file\n"
            f'model = timm.create_model("{name}", {options}{dynamic})\n'
            f'model.load_state_dict(load_file("{{path}}"){load})\n'
            f"{normalisation(encoder)}\n"
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
    channels_last = getattr(encoder.backbone, "channels_come_last", False)
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


def onnx(encoder: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """A graph for any ONNX runtime, for batches of any size."""
    try:
        import onnxruntime  # noqa: F401  the recipe needs it
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ValueError(f"the package {error.name} is not installed: pip install 'fra[export]'") from None

    def write(path: Path) -> None:
        torch.onnx.export(
            Embedder(encoder).eval(),
            (images,),
            str(path),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )

    yield Candidate(
        write,
        "import os\n"
        'os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it sends telemetry otherwise\n'
        "import onnxruntime\n"
        'session = onnxruntime.InferenceSession("{path}", providers=["CPUExecutionProvider"])\n'
        'embeddings = session.run(["embeddings"], dict(images=images.numpy()))[0]',
    )


def program(encoder: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """PyTorch's exported program, which runs without the code of this package."""

    def write(path: Path) -> None:
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        exported = torch.export.export(Embedder(encoder).eval(), (images,), dynamic_shapes=shapes)
        content = BytesIO()  # in memory first: on a full disk torch would abort the process
        torch.export.save(exported, content)
        path.write_bytes(content.getvalue())

    yield Candidate(
        write,
        "import torch\n"
        'with open("{path}", "rb") as file:\n'
        "    model = torch.export.load(file).module()\n"
        "embeddings = model(images)",
    )


def safetensors(encoder: PretrainedBackbone, images: Tensor) -> Iterator[Candidate]:
    """The backbone alone, as `fra.load` reads it, with its provenance."""

    def write(path: Path) -> None:
        write_weights(path, encoder.backbone.state_dict(), encoder.metadata | {"contents": "backbone"})

    yield Candidate(write, 'import fra\nembeddings = fra.load("{path}").embed((images * 255).round().byte())')


FORMS: dict[str, Callable[[PretrainedBackbone, Tensor], Iterator[Candidate]]] = {
    "torchvision": torchvision_weights,
    "timm": timm_weights,
    "onnx": onnx,
    "program": program,
    "safetensors": safetensors,
}
