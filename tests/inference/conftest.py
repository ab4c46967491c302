from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fra.method.backbone import build
from fra.method.networks import Encoder
from fra.weights.files import save_weights

METADATA = {"image_size": 64, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.2]}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights of the whole online network, as pre-training writes them."""
    torch.manual_seed(0)
    network = Encoder(
        build("small"), feature_dim=256, num_masks=4, hidden_dim=32, projection_dim=16, dropout=0.0
    )
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    shape = {"backbone": "small", "num_masks": 4, "hidden_dim": 32, "projection_dim": 16}
    save_weights(path, network.state_dict(), {"contents": "model", **shape, **METADATA})
    return path


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures in two folders, of several formats and sizes."""
    root = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(0)
    for number in range(20):
        coarse = generator.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((70 + number, 90), Image.Resampling.BICUBIC)
        path = root / "ab"[number % 2] / f"{number:02d}.{('png', 'jpg')[number % 2]}"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
    return root
