"""FRA: Facial Region Awareness, self-supervised pre-training for face analysis (CVPR 2024).

`fra.load(path)` returns a trained encoder, `fra.load_task(path)` a task model that predicts; both are imported at first
use, so that `import fra` stays fast.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fra.inference.encoder import load
    from fra.inference.task import load_task

# Faces are personal data: ONNX Runtime and huggingface_hub send telemetry unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Threads that wait for others soon sleep; by default they keep their cores busy, which other work on the machine lacks.
# They do not sleep at once, since a short wait would then cost the time of waking up.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

__all__ = ["load", "load_task"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from fra.inference.encoder import load

        return load
    if name == "load_task":
        from fra.inference.task import load_task

        return load_task
    raise AttributeError(f"module 'fra' has no attribute {name!r}")
