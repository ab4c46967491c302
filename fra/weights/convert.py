"""Backbones that others trained: their checkpoints become a `backbone.safetensors` like ours.

Nothing in a checkpoint is executed: safetensors hold numbers alone, and PyTorch's files are read with
`weights_only`, which refuses every object but tensors and the few harmless ones of `HARMLESS`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors.torch import load_file
from torch import Tensor

from fra.files import sha256
from fra.method import backbone as backbones
from fra.weights.files import save_weights

HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
]
"""What checkpoints hold beside tensors: the settings of a run, and its best accuracy as a numpy number."""


@dataclass(frozen=True)
class Layout:
    """Where a published checkpoint keeps its backbone, and how its images were normalised (RGB in 0…1)."""

    name: str
    prefix: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = (
    Layout("FRA, official", "online_net.backbone.", (0.5231, 0.4044, 0.3489), (0.2536, 0.2194, 0.2070)),
    # 0.228 is theirs: flr/datasets/unsupervised_dataset.py of 1adrianb/unsupervised-face-representation
    Layout("Bulat et al., flr_r50", "base_net.", (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
    Layout("torchvision", "", *IMAGENET),
)
"""Tried in this order; all names may begin with `module.` (DistributedDataParallel) as well."""


class Imported(NamedTuple):
    """What became of a checkpoint's names. `matched` and `missing` are ours, `left_over` those of the file."""

    layout: str
    matched: list[str]
    missing: list[str]
    left_over: list[str]

    def __str__(self) -> str:
        parts = Counter(".".join(name.split(".")[:2]) for name in self.left_over)
        return "\n".join(
            [
                f"layout: {self.layout}",
                f"matched: {len(self.matched)} weights of the backbone",
                f"missing: {len(self.missing)} {', '.join(self.missing[:3])}".rstrip(),
                f"left over: {len(self.left_over)} that are not the backbone's",
                *(f"  {name}: {count}" for name, count in sorted(parts.items())),
            ]
        )


def import_weights(
    file: Path, out: Path, backbone: str = "resnet50", image_size: int = 224, prefix: str | None = None
) -> Imported:
    """Writes the backbone of a checkpoint to `out`, with what evaluation has to know of its images.

    Layouts known by their names: see `LAYOUTS`; any other by its `prefix`, normalised as ImageNet is.
    `image_size` is the side to which evaluation scales images.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read without executing code, holds no such backbone, or not all of it.
    """
    tensors = read_tensors(file)
    layout = find_layout(tensors, file) if prefix is None else Layout(f"prefix {prefix!r}", prefix, *IMAGENET)
    wanted = backbones.build(backbone).state_dict()
    found = {name: tensors[layout.prefix + name] for name in wanted if layout.prefix + name in tensors}
    taken = {layout.prefix + name for name in found}
    report = Imported(
        layout.name,
        matched=list(found),
        missing=[name for name in wanted if name not in found],
        left_over=[name for name in tensors if name not in taken],
    )
    check(report, found, wanted, file, backbone)
    about = {
        "contents": "backbone",
        "backbone": backbone,
        "image_size": image_size,
        "mean": layout.mean,
        "std": layout.std,
        "provenance": {"imported": file.name, "sha256": sha256(file), "layout": layout.name},
    }
    weights = {name: found.get(name, own).to(own.dtype) for name, own in wanted.items()}
    save_weights(out, weights, about)
    return report


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its name, `module.` taken away; nothing in the file is executed.

    Weights may lie under `state_dict` or `model`, as training scripts put them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither safetensors nor a PyTorch file of tensors.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such checkpoint")
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            with torch.serialization.safe_globals(HARMLESS):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes make of the two readers
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{file}: cannot be read without executing code of unknown origin ({first}); "
            "where you trust it, save its state_dict alone as .safetensors and import that"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content.items() if isinstance(content, Mapping) else []
    return {str(name).removeprefix("module."): value for name, value in tensors if isinstance(value, Tensor)}


def find_layout(names: Mapping[str, Tensor], file: Path) -> Layout:
    """The first layout whose stem, `conv1.weight`, is among the names.

    Raises:
        ValueError: none is.
    """
    for layout in LAYOUTS:
        if f"{layout.prefix}conv1.weight" in names:
            return layout
    known = ", ".join(f"{layout.prefix}conv1.weight ({layout.name})" for layout in LAYOUTS)
    raise ValueError(
        f"{file}: none of the known first weights among its {len(names)} names: {known}. "
        f"It has, for example, {', '.join(sorted(names)[:3]) or 'no tensor at all'}; --prefix takes other ones"
    )


def check(
    report: Imported, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path, backbone: str
) -> None:
    """A baseline that is random in part would be none: all weights must be there, of the right shape.

    Only batch norm's step counters, which evaluation does not use, may be missing (old files).

    Raises:
        ValueError: a weight is missing or has another shape.
    """
    absent = [name for name in report.missing if not name.endswith("num_batches_tracked")]
    if absent:
        raise ValueError(
            f"{file}: read as {report.layout}, it lacks {len(absent)} of {len(wanted)} weights of {backbone}, "
            f"for example {absent[0]}; --backbone chooses another one"
        )
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{file}: {name} is {tuple(value.shape)}, in {backbone} it is {tuple(wanted[name].shape)}; "
                "--backbone chooses another one"
            )
