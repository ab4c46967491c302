"""What is exported: one module from images to embeddings, or to the outputs of a task model, in plain PyTorch.

Preprocessing and head are part of it, so that a runtime elsewhere needs neither this package nor scikit-learn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fra.transfer.heads import Activation, LinearHead
from fra.transfer.task_model import TaskModel
from fra.weights.pretrained import PretrainedBackbone


class Network(nn.Module):
    """Images (N, 3, S, S), float32, RGB in 0…1 → embeddings (N, D); includes the normalisation."""

    def __init__(self, encoder: PretrainedBackbone) -> None:
        super().__init__()
        self.backbone = encoder.backbone
        self.register_buffer("mean", encoder.get_buffer("mean").clone())
        self.register_buffer("std", encoder.get_buffer("std").clone())

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the feature map (N, C, H, W)."""
        features: Tensor = self.backbone((images - self.get_buffer("mean")) / self.get_buffer("std"))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (N, D)."""
        return self.feature_map(images).mean((2, 3))


class TaskNetwork(Network):
    """Images (N, 3, S, S), float32, RGB in 0…1 → the outputs of a task model (N, O), see `OUTPUTS`."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__(model)
        self.head = model.head if isinstance(model.head, nn.Module) else _Linear(model.head, model)
        self.tuned = isinstance(model.head, nn.Module)
        self.objective = model.probe.objective
        self.gaze = model.metadata["task"] == "gaze"

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs (N, O)."""
        raw: Tensor = self.head(self.feature_map(images))
        if self.tuned:
            raw = self.objective.scores(raw)
        return pitch_and_yaw(raw) if self.gaze else raw


OUTPUTS = {
    "expression": "probability of each class",
    "attributes": "probability of each label",
    "action_units": "probability of each action unit",
    "alignment": "coordinates as fractions of the image's width (x) and height (y), from its upper left corner",
    "gaze": "pitch and yaw in degrees",
    "direction": "yaw and pitch of the head in degrees",
    "actions": "facial actions, as differences from the mean face at the same pose",
}
"""What the outputs of a `TaskNetwork` mean, by task; their names are `columns` of the model's metadata."""


class _Linear(nn.Module):
    """A `LinearHead` on the pooled feature map, in float32."""

    def __init__(self, head: LinearHead, model: TaskModel) -> None:
        super().__init__()
        self.activation: Activation = head.activation
        for name in ("centre_D", "scale_D", "weight_FD", "bias_F", "constant_O"):
            self.register_buffer(name, torch.as_tensor(getattr(head, name)).float())
        fitted_SO = functional.one_hot(torch.as_tensor(head.fitted_S).long(), len(head.constant_O)).float()
        self.register_buffer("fitted_SO", fitted_SO)
        size = model.image_size
        with torch.inference_mode():
            height, width = model.backbone(torch.zeros(1, 3, size, size)).shape[-2:]
        cells = 1 if model.metadata["view"] == "pooled" else model.metadata["grid"]
        self.register_buffer("rows_GH", averages(height, min(cells, height)))
        self.register_buffer("columns_GW", averages(width, min(cells, width)))

    def forward(self, map_NCHW: Tensor) -> Tensor:
        """Return scores (N, O)."""
        pooled_NCGG = self.get_buffer("rows_GH") @ map_NCHW @ self.get_buffer("columns_GW").T
        x_ND = (pooled_NCGG.flatten(1) - self.get_buffer("centre_D")) / self.get_buffer("scale_D")
        fitted_SO = self.get_buffer("fitted_SO")
        constant_O = self.get_buffer("constant_O") * (1 - fitted_SO.sum(0))
        if not len(fitted_SO):
            return constant_O + 0 * x_ND[:, :1]
        raw_NF = x_ND @ self.get_buffer("weight_FD").T + self.get_buffer("bias_F")
        return constant_O + _activate(raw_NF, self.activation) @ fitted_SO


def _activate(raw_NF: Tensor, activation: Activation) -> Tensor:
    """Like `fra.transfer.heads.activate`."""
    if activation == "none":
        return raw_NF
    if activation == "softmax" and raw_NF.shape[1] > 1:
        return raw_NF.softmax(dim=1)
    p_NF = raw_NF.sigmoid()
    return torch.cat([1 - p_NF, p_NF], dim=1) if activation == "softmax" else p_NF


def averages(length: int, cells: int) -> Tensor:
    """Return the matrix (cells, length) that averages as adaptive pooling does, in which cells may overlap."""
    matrix = torch.zeros(cells, length)
    for cell in range(cells):
        first, last = cell * length // cells, -(-(cell + 1) * length // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return matrix


def pitch_and_yaw(direction_N3: Tensor) -> Tensor:
    """Return pitch and yaw in degrees (N, 2), like `fra.inference.task.pitch_and_yaw`."""
    x_N, y_N, z_N = (direction_N3 / direction_N3.norm(dim=1, keepdim=True).clamp(min=1e-12)).unbind(dim=1)
    pitch_N, yaw_N = torch.asin((-y_N).clamp(-1, 1)), torch.atan2(-x_N, -z_N)
    return torch.rad2deg(torch.stack([pitch_N, yaw_N], dim=1))


def network_of(model: PretrainedBackbone) -> Network:
    """Return what is exported of a task model (with its head) or of another one (embeddings), in eval mode."""
    return (TaskNetwork(model) if isinstance(model, TaskModel) else Network(model)).eval()


def interface(model: PretrainedBackbone) -> dict[str, Any]:
    """Return what a user of an exported network must know: input, crop, output, metrics, provenance; plain data."""
    size, stored = model.image_size, model.metadata
    about = {
        "input": {
            "name": "images",
            "layout": f"float32 (N, 3, {size}, {size})",
            "colours": "RGB",
            "range": [0, 1],
            "image_size": size,
            "mean": list(stored["mean"]),
            "std": list(stored["std"]),
            "normalisation": "part of the network: (image - mean) / std",
        },
        "crop": {
            "faces": "one upright face per image, as in the training set",
            "aligned": stored.get("crop", "none"),
            "framing": stored.get("framing"),
        },
        "output": {"name": "embeddings", "meaning": "spatially averaged features"},
        "backbone": stored["backbone"],
        "provenance": stored.get("provenance", {}),
    }
    if isinstance(model, TaskModel):
        task = stored["task"]
        about |= {name: stored.get(name) for name in ("task", "protocol", "metrics", "test")}
        about["output"] = {"name": "outputs", "columns": stored["columns"], "meaning": OUTPUTS[task]}
    return about
