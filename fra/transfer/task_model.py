"""Task models: a backbone and a fitted head in one safetensors file, with all that predictions need.

`fit` fits one as `fra.transfer.evaluate` does for its first seed and all labels, `save` and `load` write and read it.
`fra.inference.task` predicts with it on pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fra.method.backbone import Backbone
from fra.transfer import align
from fra.transfer.config import HeadProtocol, TransferConfig, kind_of
from fra.transfer.evaluate import COSINE, FINETUNE, Fit, first_fit, label_names
from fra.transfer.features import pool
from fra.transfer.finetune import Finetuned
from fra.transfer.heads import Array, LinearHead
from fra.transfer.results import PEOPLE, unweighted
from fra.transfer.splits import read_manifest
from fra.transfer.tasks.table import Probe, task_of
from fra.weights import pretrained
from fra.weights.files import save_weights
from fra.weights.pretrained import IMAGES, PretrainedBackbone, Stored, restore, restore_backbone

PROTOCOLS = get_args(HeadProtocol)
"""Protocols whose result is a head that can be stored."""
RESERVED = ("image", "face", "box", "score")
"""Columns of predictions that are not outputs."""
ARRAYS = ("centre_D", "scale_D", "weight_FD", "bias_F", "fitted_S", "constant_O")
"""The arrays of a `LinearHead`, stored as `head.<name without its shape>`."""


class TaskModel(PretrainedBackbone):
    """A backbone with the head of a task.

    Attributes:
        head: A linear head on frozen features, or the head of a fine-tuned network.
        metadata: The metadata of the file: besides those of a backbone `task`, `protocol`, `labels`, `outputs` (their
            names in stored predictions), `columns` (their names in tables of new predictions), `crop` (whether faces
            were aligned: "eyes_and_mouth" or "none"), `framing`, `view` and `grid` (how feature maps are pooled),
            `choice` (what validation subjects chose), `metrics` (on test), `test` (its size) and `provenance`.
    """

    def __init__(self, backbone: Backbone, head: LinearHead | nn.Module, metadata: dict[str, Any]) -> None:
        super().__init__(backbone, metadata)
        self.head = head

    @property
    def framing(self) -> align.Framing | None:
        """Where a face is in the images that the model was fitted on; None if that is not known."""
        stored = self.metadata["framing"]
        return None if stored is None else align.Framing(**stored)

    @property
    def probe(self) -> Probe:
        """How the task is fitted."""
        return probe_of(self.metadata["task"])

    @torch.inference_mode()
    def scores(self, pixels_NHW3: NDArray[np.uint8]) -> Array:
        """Return the scores (N, O) of images of `image_size`, cropped as for training.

        Probabilities of classes or labels; coordinates as fractions of width and height; unit vectors of directions.
        """
        map_NCHW = self.backbone(self.normalise(pixels_NHW3))
        if isinstance(self.head, LinearHead):
            pooled = pool(map_NCHW.float(), self.metadata["view"], self.metadata["grid"])
            return self.head(pooled.cpu().numpy())
        raw_NO: Tensor = self.head(map_NCHW)
        scores: Array = self.probe.objective.scores(raw_NO.float().cpu()).numpy()
        return scores


def probe_of(task: str) -> Probe:
    """Return how a task is fitted.

    Raises:
        ValueError: The task is unknown, or nothing is fitted to it.
    """
    entry = task_of(task).probe
    if entry is None:
        raise ValueError(
            f"{task} compares the embeddings of two images and fits no head: embed both (`fra embed`, "
            "`fra.load(...).embed`) and compare them by their cosine"
        )
    return entry


def check_protocol(protocol: str) -> HeadProtocol:
    """Return a protocol that fits a head.

    Raises:
        ValueError: It is another one.
    """
    if protocol not in PROTOCOLS:
        reason = ": k-NN compares with all training images and fits no head" if protocol == "knn" else ""
        raise ValueError(f"protocol {protocol!r}{reason}; choose {' or '.join(PROTOCOLS)}")
    return cast(HeadProtocol, protocol)


def fit(
    task: str,
    protocol: str,
    config: TransferConfig,
    manifest: Path,
    shards: Path,
    backbone: str | Path,
    quarantined: Set[str],
    classes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> tuple[TaskModel, pd.DataFrame]:
    """Fit a task model on all labels; validation subjects choose, test is evaluated once.

    The split and the seed are those of the evaluation's first seed, so its predictions are the same.

    Args:
        task: Name of the task.
        protocol: "linear" or "finetune".
        config: Labels, alignment, grid, fine-tuning, validation subjects and device.
        manifest: Manifest of the labelled data set.
        shards: Folder of its shards.
        backbone: Weights file, or the name of released weights.
        quarantined: Keys of quarantined images.
        classes: Names of the classes of expression, in the order of their values; default: `<label>=<value>`.
        provenance: Stored in the file.

    Returns:
        The model, and its tidy predictions of the test images (see `fra.transfer.tasks.prediction_metrics`).

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The task or protocol has no head, or the manifest lacks data that the task needs.
    """
    entry = probe_of(task)
    head = check_protocol(protocol)
    labels = label_names(task, config)
    frame = read_manifest(manifest, quarantined)
    truth = entry.truth(frame, labels)
    column_names(task, list(truth.columns), labels, classes)  # wrong names are refused before the fit
    found = first_fit(task, head, config, frame, shards, pretrained.load(backbone))
    model = from_fit(task, found, config, classes, provenance)
    assert isinstance(model, TaskModel)
    return model, found.predictions


def from_fit(
    task: str,
    fit: Fit,
    config: TransferConfig,
    classes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> PretrainedBackbone:
    """Return the task model of a fit, on the CPU; for verification, which has no head, the backbone.

    Args:
        task: Name of the task.
        fit: A linear head, or a fine-tuned network.
        config: The settings of the fit.
        classes: See `fit`.
        provenance: Stored in the file.
    """
    entry, encoder, head = task_of(task), fit.encoder, fit.predict
    aligned = entry.aligned and config.align
    upright = entry.probe is None or entry.probe.objective.rotates
    framing = align.framing(fit.train, aligned, upright=upright)
    metrics = {name: float(value[0]) for name, value in entry.metrics(fit.predictions, unweighted).items()}
    images, persons = (
        set().union(*(fit.predictions[name] for name in names if name in fit.predictions))
        for names in (("key", "other"), PEOPLE)
    )
    metadata = {
        "contents": "backbone",
        **{name: encoder.metadata[name] for name in IMAGES},
        "task": kind_of(task),
        "protocol": COSINE,
        "crop": "eyes_and_mouth" if aligned else "none",
        "framing": None if framing is None else asdict(framing),
        "metrics": {name: value for name, value in metrics.items() if np.isfinite(value)},
        "test": {"images": len(images), "people": len(persons)},
        "provenance": dict(provenance or {}),
    }
    if head is None:
        return PretrainedBackbone(encoder.backbone, metadata).cpu().eval()
    labels = label_names(task, config)
    metadata |= {
        "contents": "task",
        "protocol": FINETUNE if isinstance(head, Finetuned) else "linear",
        "labels": list(labels),
        "outputs": fit.outputs,
        "columns": column_names(task, fit.outputs, labels, classes),
        "view": entry.view,
        "grid": config.grid,
        "choice": fit.choice,
    }
    if isinstance(head, Finetuned):
        tuned, module = head.model
        assert isinstance(tuned, Backbone)
        return TaskModel(tuned, module, metadata).cpu().eval()
    assert isinstance(head, LinearHead)
    return TaskModel(encoder.backbone, head, metadata).cpu().eval()


def column_names(
    task: str, outputs: Sequence[str], labels: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """Return the names of the columns of predictions.

    They are the labels (attributes, action units), `<label>=<value>` or the names of the classes (expression), x0, y0,
    x1 and so on (alignment), and the labels of pitch and yaw (gaze). A label of `RESERVED` gets the prefix "label.".

    Raises:
        ValueError: Classes are named for another task, or not each one once; or one is named as in `RESERVED`.
    """
    if classes and kind_of(task) != "expression":
        raise ValueError(f"{task} has no classes to name; only expression has")
    if classes and (len(classes) != len(outputs) or len(set(classes)) < len(classes)):
        raise ValueError(
            f"expression has {len(outputs)} classes ({labels[0]}: {', '.join(outputs)}): name each of them once, in "
            f"this order, not {', '.join(classes)}"
        )
    named = {
        "expression": list(classes) or [f"{labels[0]}={value}" for value in outputs] if labels else [],
        "gaze": list(labels),
    }
    if taken := [name for name in classes if name in RESERVED]:
        raise ValueError(f"a class cannot be named {taken[0]!r}: it is a column of all predictions")
    columns = named.get(kind_of(task), list(outputs))
    return [f"label.{name}" if name in RESERVED else name for name in columns]


def save(model: PretrainedBackbone, path: Path) -> None:
    """Write a task model, or the backbone of verification, as one safetensors file, atomically."""
    if not isinstance(model, TaskModel):
        save_weights(path, model.backbone.state_dict(), model.metadata)
        return
    weights = {f"backbone.{name}": value for name, value in model.backbone.state_dict().items()}
    if isinstance(model.head, LinearHead):
        arrays = {name: np.array(getattr(model.head, name), order="C") for name in ARRAYS}  # copies
        weights |= {_stored_name(name): torch.from_numpy(array) for name, array in arrays.items()}
        metadata = {**model.metadata, "activation": model.head.activation}
    else:
        weights |= {f"head.{name}": value for name, value in model.head.state_dict().items()}
        metadata = model.metadata
    save_weights(path, weights, metadata)


def load(path: str | Path) -> TaskModel:
    """Load a task model, on the CPU, in eval mode.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged, or holds no task model.
    """
    stored = pretrained.read(path)
    if stored.metadata["contents"] != "task":
        remedy = "`fra transfer fit` writes a task model"
        if stored.metadata.get("task") == "verification":
            remedy = f"verification compares embeddings: `fra embed -w {path}`"
        raise ValueError(
            f"{path}: holds a {stored.metadata['contents']} without the head of a task; {remedy}"
        )
    check_protocol(stored.metadata["protocol"])
    entry, backbone = probe_of(stored.metadata["task"]), restore_backbone(stored)
    head: LinearHead | nn.Module
    if stored.metadata["protocol"] == FINETUNE:
        outputs = len(stored.metadata["outputs"])
        head = restore(stored, lambda: entry.objective.head(backbone.feature_dim, outputs), prefix="head.")
    else:
        head = _linear_head(stored)
    return TaskModel(backbone, head, stored.metadata).eval()


def _linear_head(stored: Stored) -> LinearHead:
    try:
        arrays = {name: stored.weights[_stored_name(name)].numpy() for name in ARRAYS}
        return LinearHead(activation=stored.metadata["activation"], **arrays)
    except KeyError as error:
        raise ValueError(f"{stored.path}: not a complete task model ({error} is missing)") from None


def _stored_name(name: str) -> str:
    return f"head.{name.rpartition('_')[0]}"
