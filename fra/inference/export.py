"""A backbone for other programs: torchvision's and timm's weights, ONNX, PyTorch's own exported program.

Every export is read back by the library that it is for and compared with the encoder before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fra.files import atomic
from fra.inference.encoder import FaceEncoder, load
from fra.method.backbone import RESNETS
from fra.weights.files import write_weights

TOLERANCE = 1e-4
"""How far an exported embedding may be off, as a part of the largest value."""
FACES = 4
"""Images that an export is compared on."""


class Embedder(nn.Module):
    """Images (N, 3, S, S), float32, RGB in 0…1 → embeddings (N, D): normalisation is inside."""

    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__()
        self.backbone = encoder.backbone
        self.register_buffer("mean", encoder.get_buffer("mean").clone())
        self.register_buffer("std", encoder.get_buffer("std").clone())

    def forward(self, images: Tensor) -> Tensor:
        normalised = (images - self.get_buffer("mean")) / self.get_buffer("std")
        pooled: Tensor = self.backbone(normalised).mean((2, 3))
        return pooled


def export(encoder: FaceEncoder, form: str, out: Path) -> str:
    """Writes the backbone in a form of `FORMS` to `out`; returns what a reader must know to use it.

    Raises:
        ValueError: the form is unknown, does not fit the backbone, or what was written differs from the encoder.
    """
    if form not in FORMS:
        raise ValueError(f"{form!r} is no form to export to: choose one of {', '.join(FORMS)}")
    images = torch.rand(FACES, 3, encoder.image_size, encoder.image_size, generator=torch.Generator())
    embedder = Embedder(encoder.cpu()).eval()
    with torch.inference_mode():
        expected = embedder(images).numpy()
    with atomic(out) as partial:
        found, says = FORMS[form](encoder, embedder, images, partial)
        error = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
        if error > TOLERANCE:
            raise ValueError(f"{out}: as {form} the embeddings differ by {error:.1e}; nothing was kept")
    return f"{says}; differs from the encoder by at most {error:.1e} of the largest value"


Written = tuple[NDArray[np.float32], str]
"""Embeddings that the exported file gave, and how to use it."""


def normalised(encoder: FaceEncoder) -> str:
    mean, std = encoder.metadata["mean"], encoder.metadata["std"]
    return f"images {encoder.image_size}×{encoder.image_size}, RGB in 0…1, less {mean}, over {std}"


def pooled(features: Callable[[Tensor], Tensor], embedder: Embedder, images: Tensor) -> NDArray[np.float32]:
    """Mean over positions of another library's feature map."""
    with torch.inference_mode():
        inputs = (images - embedder.get_buffer("mean")) / embedder.get_buffer("std")
        found: NDArray[np.float32] = features(inputs).mean((2, 3)).numpy()
    return found


def torchvision_weights(encoder: FaceEncoder, embedder: Embedder, images: Tensor, path: Path) -> Written:
    """A state dict under torchvision's names, without the classifier."""
    import torchvision

    name = encoder.metadata["backbone"]
    if name not in RESNETS:
        raise ValueError(f"torchvision has no {name!r}: export to onnx, program or safetensors")
    torch.save({key: value.contiguous() for key, value in encoder.backbone.state_dict().items()}, path)
    theirs = torchvision.models.get_model(name, weights=None)
    theirs.fc = nn.Identity()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    with torch.inference_mode():
        inputs = (images - embedder.get_buffer("mean")) / embedder.get_buffer("std")
        found: NDArray[np.float32] = theirs.eval()(inputs).numpy()
    return found, f"torchvision.models.{name}: load_state_dict(…, strict=False); {normalised(encoder)}"


def timm_weights(encoder: FaceEncoder, embedder: Embedder, images: Tensor, path: Path) -> Written:
    """A state dict (safetensors) under timm's names, without the classifier."""
    import timm

    name = encoder.metadata["backbone"]
    if name not in RESNETS and not name.startswith("timm:"):
        raise ValueError(f"timm has no {name!r}: export to onnx, program or safetensors")
    model = name.removeprefix("timm:")
    options: dict[str, Any] = {"dynamic_img_size": True} if "vit" in model else {}
    theirs = timm.create_model(model, num_classes=0, **options)
    ours = {plain(key): value for key, value in encoder.backbone.state_dict().items()}
    renamed = {key: ours[plain(key)].contiguous() for key in theirs.state_dict() if plain(key) in ours}
    save_file(renamed, path)
    missing = theirs.load_state_dict(load_file(path), strict=False).missing_keys
    if found := [key for key in missing if not key.startswith(("norm.", "head.", "fc_norm."))]:
        raise ValueError(f"timm's {model} has weights that the backbone lacks: {', '.join(found)}")
    says = f'timm.create_model("{model}", num_classes=0): load_state_dict(…, strict=False); {normalised(encoder)}'
    return pooled(feature_map(theirs.eval()), embedder, images), says


def plain(key: str) -> str:
    """A weight's name as a model and timm's cut-outs of it share it."""
    return key.removeprefix("trunk.").removeprefix("model.").replace("_", ".")


def feature_map(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The last feature map (N, D, H, W) of a timm model."""

    def features(images: Tensor) -> Tensor:
        return model.forward_intermediates(images, indices=1, norm=False, intermediates_only=True)[-1]  # type: ignore[no-any-return,operator]

    return features


def onnx(encoder: FaceEncoder, embedder: Embedder, images: Tensor, path: Path) -> Written:
    """A graph for any ONNX runtime; any number of images at once."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ValueError(f"the package {error.name} is not installed: pip install 'fra[export]'") from None
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        embedder,
        (images,),
        str(path),
        input_names=["images"],
        output_names=["embeddings"],
        dynamic_shapes={"images": {0: batch}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["embeddings"], {"images": images.numpy()})[0]
    says = f"images (N, 3, {encoder.image_size}, {encoder.image_size}), float32, RGB in 0…1 → embeddings"
    return found, says


def program(encoder: FaceEncoder, embedder: Embedder, images: Tensor, path: Path) -> Written:
    """PyTorch's exported program: runs without this package's code."""
    batch = torch.export.Dim("batch", min=1)
    made = torch.export.export(embedder, (images,), dynamic_shapes={"images": {0: batch}})
    content = BytesIO()  # first: on a full disk torch would end the process
    torch.export.save(made, content)
    path.write_bytes(content.getvalue())
    with path.open("rb") as stream, torch.inference_mode():
        found: NDArray[np.float32] = torch.export.load(stream).module()(images).numpy()
    return found, "torch.export.load(…).module()(images): images in 0…1, float32 → embeddings"


def safetensors(encoder: FaceEncoder, embedder: Embedder, images: Tensor, path: Path) -> Written:
    """The backbone alone, as `fra.load` reads it, with its provenance."""
    write_weights(path, encoder.backbone.state_dict(), encoder.metadata | {"contents": "backbone"})
    with torch.inference_mode():
        found: NDArray[np.float32] = Embedder(load(path)).eval()(images).numpy()
    return found, "fra.load(…): embeddings, no heatmaps"


FORMS: dict[str, Callable[[FaceEncoder, Embedder, Tensor, Path], Written]] = {
    "torchvision": torchvision_weights,
    "timm": timm_weights,
    "onnx": onnx,
    "program": program,
    "safetensors": safetensors,
}
