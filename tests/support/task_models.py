"""Task models of small networks with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fra.inference.task import TaskPredictor
from fra.method.backbone import build
from fra.transfer import align, task_model
from fra.transfer.heads import LinearHead
from fra.transfer.task_model import TaskModel


def predictor(
    task: str,
    columns: list[str],
    framing: dict[str, Any] | None = None,
    crop: str = "none",
    protocol: str = "linear",
) -> TaskPredictor:
    """Return a small network with random weights; its landmarks are spread over the image and depend on it."""
    torch.manual_seed(0)
    backbone, view, outputs = (
        build("mini"),
        "grid" if task in ("alignment", "gaze") else "pooled",
        len(columns),
    )
    features = backbone.feature_dim * (4 if view == "grid" else 1)
    generator = np.random.default_rng(1)
    raw_outputs = 3 if task == "gaze" else outputs
    head: LinearHead | nn.Module = LinearHead(
        activation={"expression": "softmax", "attributes": "sigmoid"}.get(task, "none"),
        centre_D=np.zeros(features, np.float32),
        scale_D=np.ones(features, np.float32),
        weight_FD=generator.normal(0, 0.2, (raw_outputs, features)).astype(np.float32),
        bias_F=generator.uniform(0.2, 0.8, raw_outputs),
        fitted_S=np.arange(raw_outputs),
        constant_O=np.zeros(raw_outputs),
    )
    if protocol == "finetune":
        head = task_model.probe_of(task).objective.head(backbone.feature_dim, raw_outputs)
    metadata = {
        "contents": "task", "backbone": "mini", "image_size": 64, "mean": [0.5] * 3, "std": [0.25] * 3, "task": task,
        "protocol": protocol, "outputs": ["x", "y", "z"] if task == "gaze" else columns, "columns": columns,
        "crop": crop, "view": view, "framing": framing, "grid": 2,
    }  # fmt: skip
    return TaskPredictor(TaskModel(backbone, head, metadata).eval())


ALIGNED = {"places": align.TEMPLATE.tolist(), "aspect": 1.0, "upright": True}
LANDMARKS = [f"{axis}{point}" for point in range(6) for axis in "xy"]


def saved(model: TaskPredictor, folder: Path) -> Path:
    """Write a task model to a file."""
    file = folder / "model.safetensors"
    task_model.save(model.model, file)
    return file
