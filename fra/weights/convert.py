"""Import of published checkpoints: their backbones become a `backbone.safetensors` of this project.

Nothing in a checkpoint is executed: safetensors files hold numbers only, and PyTorch files are read with
`weights_only`, which refuses every object except tensors and the types of `HARMLESS`.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from fra.files import check_output, sha256
from fra.method import backbone as backbones
from fra.weights import layouts, to_timm
from fra.weights.files import METADATA_KEY, first_not_finite, save_weights

HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
]
"""Types that checkpoints hold besides tensors: the settings of a run, and its best accuracy as a NumPy number."""
PARALLEL = "module."
"""Prefix that DistributedDataParallel adds to names."""


@dataclass(frozen=True)
class Layout:
    """Name prefix of the backbone in a published checkpoint, and the normalisation of its images (RGB in 0…1)."""

    name: str
    prefix: str
    mean: layouts.Channels
    std: layouts.Channels


LAYOUTS = (
    Layout("FRA, official", "online_net.backbone.", (0.5231, 0.4044, 0.3489), (0.2536, 0.2194, 0.2070)),
    # 0.228 is their value: flr/datasets/unsupervised_dataset.py of 1adrianb/unsupervised-face-representation
    Layout("Bulat et al., flr_r50", "base_net.", (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
    Layout("torchvision", "", *layouts.IMAGENET),
)
"""Known layouts of ResNets, tried in this order; names may also begin with `module.`. For timm models: `layouts`."""
STEM = "conv1.weight"
"""Name of the first weight of every backbone in `LAYOUTS`."""


class Options(NamedTuple):
    """Names of the settings that messages advise to change: options of `fra import-weights`, or parameters."""

    backbone: str = "--backbone"
    prefix: str = "--prefix"


COMMAND = Options()


class Imported(NamedTuple):
    """Result of an import.

    Attributes:
        layout: Whose names the file has.
        matched: Names of our backbone that the file has.
        missing: Names of our backbone that it lacks.
        left_over: Names of the file that are not part of the backbone.
        notes: What the user has to know, for example that position embeddings were resized.
    """

    layout: str
    matched: list[str]
    missing: list[str]
    left_over: list[str]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = Counter(".".join(name.removeprefix(PARALLEL).split(".")[:2]) for name in self.left_over)
        return "\n".join(
            [
                f"layout: {self.layout}",
                f"matched: {len(self.matched)} weights of the backbone",
                f"missing: {len(self.missing)} {', '.join(self.missing[:3])}".rstrip(),
                f"left over: {len(self.left_over)} that are not part of the backbone",
                *(f"  {name}: {count}" for name, count in sorted(parts.items())),
                *(f"note: {note}" for note in self.notes),
            ]
        )


def import_weights(
    file: Path,
    out: Path,
    backbone: str = "resnet50",
    image_size: int = 224,
    prefix: str | None = None,
    normalisation: layouts.Normalisation | None = None,
) -> Imported:
    """Write the backbone of a checkpoint to `out`, with the metadata that evaluation needs.

    Args:
        file: A checkpoint (safetensors or PyTorch).
        out: The weights file to write.
        backbone: Architecture, a name of `fra.method.backbone.build`.
        image_size: Side in pixels to which evaluation resizes images.
        prefix: Prefix of the backbone's names in the file. None recognises the layouts in `LAYOUTS`; for a timm model,
            those in `fra.weights.layouts` are recognised with a prefix too.
        normalisation: Mean and standard deviation of the images (RGB in 0…1) in its training. None: those of the
            layout, or ImageNet's.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file cannot be read without executing code, lacks a weight of the backbone, or has one of
            another shape or with NaN; the backbone does not accept images of this size; or `out` has another suffix
            than `.safetensors`.
        OSError: `out` cannot be written.
    """
    check_output(out, [".safetensors"])
    found = read_backbone(file, backbone, prefix)
    if backbone.startswith("timm:"):
        to_timm.check_image_size(backbone, image_size)
    mean, std = normalisation or (found.layout.mean, found.layout.std)
    metadata = {
        "contents": "backbone",
        "backbone": backbone,
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "provenance": {"imported": file.name, "sha256": sha256(file), "layout": found.layout.name},
    }
    save_weights(out, found.weights, metadata)
    return found.report


class BackboneWeights(NamedTuple):
    """The backbone in a checkpoint: our names and its values, the layout of the file, and what matched."""

    weights: dict[str, Tensor]
    layout: Layout
    report: Imported


def read_backbone(
    file: Path, backbone: str, prefix: str | None = None, options: Options = COMMAND
) -> BackboneWeights:
    """Read the backbone of somebody else's checkpoint; arguments and errors are those of `import_weights`."""
    tensors = read_tensors(file)
    wanted = backbones.build(backbone).state_dict()
    if backbone.startswith("timm:"):
        return _read_timm(file, tensors, wanted, backbone, prefix, options)
    if prefix is not None:
        layout = Layout(
            f"prefix {prefix!r}",
            find_prefix(tensors, prefix, next(iter(wanted)), file, options),
            *layouts.IMAGENET,
        )
    else:
        layout = find_layout(tensors, file, options)
    sources = {name: layout.prefix + name for name in wanted}
    found = {name: tensors[source] for name, source in sources.items() if source in tensors}
    used = {sources[name] for name in found}
    report = Imported(
        layout.name,
        matched=list(found),
        missing=[name for name in wanted if name not in found],
        left_over=[name for name in tensors if name not in used],
    )
    check(report, found, wanted, file, backbone, lambda: f"set {options.backbone} to its architecture")
    weights = {name: found.get(name, own).to(own.dtype) for name, own in wanted.items()}
    return BackboneWeights(weights, layout, report)


def _read_timm(
    file: Path,
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    backbone: str,
    prefix: str | None,
    options: Options,
) -> BackboneWeights:
    """The backbone of a timm model, from any layout of `fra.weights.layouts`."""
    whole = {name.removeprefix(PARALLEL): value for name, value in tensors.items()}
    start = (prefix or "").removeprefix(PARALLEL)
    bare = {name.removeprefix(start): value for name, value in whole.items() if name.startswith(start)}
    if not bare:
        raise ValueError(
            f"{file}: no name begins with {prefix!r}; they are for example {', '.join(sorted(tensors)[:3])}"
        )
    model_name = backbone.removeprefix("timm:")

    def remedy() -> str:
        fitting = [f"timm:{name}" for name in to_timm.fitting_models(bare, model_name)]
        if fitting:
            return f"set {options.backbone} to one that fits: {', '.join(fitting[:6])}"
        side = to_timm.skeleton(model_name).pretrained_cfg["input_size"][-1]
        return f"set {options.backbone} to its architecture ({backbone} is made for images of {side}×{side} pixels)"

    try:
        converted = to_timm.convert(bare, model_name)
    except ValueError as error:
        raise ValueError(f"{file}: read as {layouts.recognise(bare).name}, {error}; {remedy()}") from error
    theirs = {shared_name(name): name for name in converted.tensors}
    sources = {name: theirs.get(shared_name(name.removeprefix("trunk.")), name) for name in wanted}
    found = {
        name: converted.tensors[source] for name, source in sources.items() if source in converted.tensors
    }
    used = {sources[name] for name in found}
    left_over = converted.left_over
    if left_over is None:
        left_over = [name for name in bare if name not in used]
    naming = converted.naming
    report = Imported(
        naming.name if prefix is None else f"{naming.name}, prefix {prefix!r}",
        matched=list(found),
        missing=[name for name in wanted if name not in found],
        left_over=[*(name for name in whole if not name.startswith(start)), *left_over],
        notes=tuple(converted.notes),
    )
    check(report, found, wanted, file, backbone, remedy)
    weights = {name: found.get(name, own).to(own.dtype) for name, own in wanted.items()}
    return BackboneWeights(weights, Layout(report.layout, start, *naming.normalisation), report)


def shared_name(name: str) -> str:
    """Return a weight's name in the form that a timm model and its feature extractor have in common."""
    return name.removeprefix("model.").replace("_", ".")


def is_ours(file: Path) -> bool:
    """Whether a file is a weights file of this project."""
    if file.suffix != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as content:
            return METADATA_KEY in (content.metadata() or {})
    except SafetensorError:
        return False


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint by name, without executing anything in the file.

    Weights may be stored under `state_dict` or `model`, as training scripts do; names of other nested dictionaries are
    joined by dots ("teacher.conv1.weight").

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is neither a safetensors file nor a PyTorch file of tensors.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such checkpoint")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pytorch(file)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = dict(_named_tensors(content))
    if not tensors:
        keys = ", ".join(map(repr, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"{file}: holds no tensor (found: {keys[:200] or 'nothing'})")
    return tensors


def _read_safetensors(file: Path) -> Any:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"{file}: not a complete safetensors file ({error}); it is truncated, damaged or of another format"
        ) from error


def _read_pytorch(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)|operand \d+", str(error))
        detail = f" ({found[1] or found[0]})" if found else ""
        raise ValueError(
            f"{file}: cannot be read without executing code of unknown origin{detail}; if you trust the file, save its "
            "state_dict as .safetensors in a separate program and import that"
        ) from None
    except Exception as error:  # PyTorch's reader raises many types for damaged files
        detail = str(error).strip().partition(". ")[0].partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{file}: cannot be read as a PyTorch checkpoint ({detail}); it is truncated, damaged or of another format"
        ) from error


def _named_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named_tensors(inner, f"{prefix}.{key}" if prefix else str(key))


def find_layout(tensors: Mapping[str, Tensor], file: Path, options: Options = COMMAND) -> Layout:
    """Return the first layout whose first weight is in the file, with the prefix as the file has it.

    Raises:
        ValueError: The layout is not known.
    """
    for layout in LAYOUTS:
        for prefix in (layout.prefix, PARALLEL + layout.prefix):
            if prefix + STEM in tensors:
                return Layout(layout.name, prefix, layout.mean, layout.std)
    bare = {name.removeprefix(PARALLEL): value for name, value in tensors.items()}
    if (naming := layouts.recognise(bare)) is not layouts.TIMM:
        fitting = ", ".join(f"timm:{name}" for name in to_timm.fitting_models(bare, "")[:6]) or "timm:<model>"
        raise ValueError(
            f"{file}: its names are those of {naming.name}; set {options.backbone} to one that fits: {fitting}"
        )
    known = ", ".join(f"{layout.prefix}{STEM} ({layout.name})" for layout in LAYOUTS)
    raise ValueError(
        f"{file}: no known layout; looked for {known} among {len(tensors)} names. {_offer(tensors, STEM, options)}"
    )


def find_prefix(
    tensors: Mapping[str, Tensor], prefix: str, stem: str, file: Path, options: Options = COMMAND
) -> str:
    """Return a prefix as the file has it: as given, or after `module.`.

    Raises:
        ValueError: The first weight of the backbone, `stem`, is not in the file under this prefix.
    """
    for candidate in (prefix, PARALLEL + prefix):
        if candidate + stem in tensors:
            return candidate
    raise ValueError(
        f"{file}: no weight {prefix + stem!r}, the first one of the backbone. {_offer(tensors, stem, options)}"
    )


def _offer(tensors: Mapping[str, Tensor], stem: str, options: Options) -> str:
    """The prefixes that would work, or some names of the file."""
    found = [name.removesuffix(stem) for name in tensors if name == stem or name.endswith(f".{stem}")]
    # Weights of inner blocks have the same ending, below the prefix of the whole backbone.
    prefixes = [one for one in found if not any(one != other and one.startswith(other) for other in found)]
    if prefixes:
        return f"Set {options.prefix} to one of: {', '.join(map(repr, prefixes[:5]))}"
    return f"Its names are for example {', '.join(sorted(tensors)[:3])}; set {options.backbone} or {options.prefix}"


def check(
    report: Imported,
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    file: Path,
    backbone: str,
    remedy: Callable[[], str],
) -> None:
    """Check that no weight would be left at its random initial value, and that all are finite.

    Only the step counters of batch norm, which evaluation does not use, may be missing (old files).

    Raises:
        ValueError: A weight is missing, has another shape, or is not finite.
    """
    missing = [name for name in report.missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(
            f"{file}: read as {report.layout}, it lacks {len(missing)} of {len(wanted)} weights of {backbone}, "
            f"for example {missing[0]}; {remedy()}"
        )
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{file}: {name} is {tuple(value.shape)}, in {backbone} it is {tuple(wanted[name].shape)}; "
                f"{remedy()}"
            )
    if (broken := first_not_finite(found)) is not None:
        raise ValueError(
            f"{file}: its weight {broken!r} has values that are not finite (NaN or infinity): training diverged or the "
            "file is damaged; import another checkpoint"
        )
