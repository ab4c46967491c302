"""Start of pre-training from existing weights (`train.init`)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fra.files import sha256
from fra.method.config import ModelConfig
from fra.method.networks import FRA
from fra.weights import released
from fra.weights.convert import Options, is_ours, read_backbone, read_tensors
from fra.weights.official import is_official, load_official
from fra.weights.pretrained import BACKBONE_PREFIX, PREDICTORS, read

SIZES = ("num_masks", "projection_dim", "hidden_dim")
"""Parameters of the section `model` on which the shapes of the heads depend."""


PARAMETERS = Options(
    "model.backbone", "`fra import-weights --prefix` (and train.init to the file that it writes)"
)
"""What messages about foreign files advise to set."""


class InitReport(NamedTuple):
    """What a training starts from.

    Attributes:
        source: The value of `train.init`.
        sha256: SHA-256 of the file.
        layout: Whose names the file has.
        matched: Number of tensors that were loaded.
        new: Parts that the file lacks, which start with random weights: "heads", "predictors" or nothing.
        reason: Why they are new.
    """

    source: str
    sha256: str
    layout: str
    matched: int
    new: str
    reason: str

    def __str__(self) -> str:
        missing = f"; new {self.new}: {self.reason}" if self.new else ""
        return f"train.init {self.source} ({self.layout}): {self.matched} tensors{missing}"


def initialise(model: FRA, config: ModelConfig, source: str) -> InitReport:
    """Loads existing weights into the online network, and the target network as its copy.

    Args:
        model: The networks of `config`, with random weights.
        config: Their sizes.
        source: A `model.safetensors` or `backbone.safetensors` of this project, the name of released weights ("demo"),
            a checkpoint of the official FRA code, or one that `fra import-weights` reads.

    Returns:
        What was loaded. Heads (projectors, region branch) and predictors that the file lacks keep their random weights.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read without executing code, or its backbone is another one; the message names
            both shapes.
    """
    file = released.find(source)
    if not file.is_file():
        raise FileNotFoundError(
            f"train.init: {source}: no such weights file (released weights: {', '.join(released.names())})"
        )
    digest = sha256(file)
    if is_ours(file):
        loaded, reason = _own(model, config, file)
        layout = "FRA, this project"
    elif is_official(tensors := read_tensors(file)):
        report = load_official(model, tensors)
        new = "predictors" if any(name.startswith(PREDICTORS) for name in report.missing) else ""
        return InitReport(source, digest, "FRA, official", len(report.matched), new, "the file has none")
    else:
        imported = read_backbone(file, config.backbone, options=PARAMETERS)
        loaded = {f"backbone.{name}": value for name, value in imported.weights.items()}
        layout, reason = imported.layout.name, "the file holds a backbone only"
    online = {name: value for name, value in loaded.items() if not name.startswith(PREDICTORS)}
    model.online.load_state_dict(online, strict=False)
    model.target.load_state_dict(model.online.state_dict())
    predictors = {name: value for name, value in loaded.items() if name.startswith(PREDICTORS)}
    model.load_state_dict(predictors, strict=False)
    own = set(model.online.state_dict()) - set(online)
    new = "heads" if own else "" if predictors else "predictors"
    return InitReport(source, digest, layout, len(loaded), new, reason if new else "")


def _own(model: FRA, config: ModelConfig, file: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of our own file that fit, with "backbone." before the names of a backbone, and why heads are left.

    Raises:
        ValueError: The backbone is another one.
    """
    stored = read(file)
    if stored.metadata["backbone"] != config.backbone:
        raise ValueError(
            f"train.init: {file} holds the backbone {stored.metadata['backbone']}, model.backbone is "
            f"{config.backbone}: set model.backbone={stored.metadata['backbone']}"
        )
    if stored.metadata["contents"] != "model":
        prefix = BACKBONE_PREFIX[stored.metadata["contents"]]
        backbone = {
            f"backbone.{name.removeprefix(prefix)}": value
            for name, value in stored.weights.items()
            if name.startswith(prefix)
        }
        return backbone, "the file has none"
    sizes = {name: (stored.metadata[name], getattr(config, name)) for name in SIZES}
    if model.online.region_neck is None:
        sizes["num_masks"] = (1, 1)  # the region branch of the file is not needed
    differing = [
        f"model.{name} is {own}, in the file {theirs}"
        for name, (theirs, own) in sizes.items()
        if own != theirs
    ]
    if differing:
        backbone = {name: value for name, value in stored.weights.items() if name.startswith("backbone.")}
        return backbone, "; ".join(differing)
    wanted = {**model.online.state_dict(), **model.state_dict()}
    return {name: value for name, value in stored.weights.items() if name in wanted}, "the file has none"
