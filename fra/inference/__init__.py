"""Use of trained weights: embeddings, search, region heatmaps, export."""

from typing import Literal

Form = Literal["torchvision", "timm", "onnx", "program", "safetensors", "huggingface"]
"""A format of `fra export`: a file, see `fra.inference.export`, or a folder, see `fra.inference.huggingface`."""
