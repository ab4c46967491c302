"""Fine-tuning on the ruler: the backbone and one linear head for all labels are trained on the labelled faces.

The number of epochs follows from the number of labels, the last epoch is kept and nothing is chosen per backbone, so
that validation faces are as unseen as test faces. The settings were chosen on validation faces, for one backbone.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fra.ruler.faces import Faces
from fra.ruler.fit import Setting, drawn, nme, resized
from fra.transfer.config import FinetuneConfig
from fra.transfer.features import pool
from fra.transfer.finetune import Examples, Objective, fit
from fra.transfer.metrics import Array
from fra.weights.pretrained import PretrainedBackbone

CONFIG = FinetuneConfig(warmup_epochs=1, batch_size=16, lr=5e-4, rotation=0.0, shift=0.0)
"""How backbones are fine-tuned. Faces are neither rotated nor shifted, as all have the same frame."""


def epochs(labels: int) -> int:
    """Return the number of epochs: 20 with 400 labelled faces, and in proportion to 1 / √labels."""
    return max(2, round(20 * math.sqrt(400 / labels)))


class WholeMap(nn.Module):
    """A linear layer on all cells of a feature map, each feature standardised: (B, C, H, W) → (B, O); starts at 0."""

    def __init__(self, features: int, outputs: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.linear = nn.Linear(features, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Return raw outputs (B, O)."""
        out_BO: Tensor = self.linear(self.norm(pool(map_BCHW, "grid", self.grid)))
        return out_BO


def objective(features: int, grid: int, coordinates: int, truth_NO: Array) -> Objective:
    """Return the objective of all labels at once.

    The loss is the mean over the measures (landmarks, and each further column) of the squared error in units of the
    label's standard deviation; unknown truths are left out.

    Args:
        features: Number of features of a pooled map.
        grid: Largest side of a feature map; a larger map is averaged in cells.
        coordinates: Number of the first columns, which are landmarks.
        truth_NO: Labels of the training faces, NaN where unknown.
    """
    mean_O, std_O = (torch.from_numpy(f(truth_NO, axis=0)).float() for f in (np.nanmean, np.nanstd))
    std_O = std_O.clamp_min(1e-6)  # a label with one value is predicted as that value

    def loss(raw_BO: Tensor, truth_BO: Tensor) -> Tensor:
        wanted_BO = (truth_BO - mean_O.to(raw_BO.device)) / std_O.to(raw_BO.device)
        known_BO = ~wanted_BO.isnan()
        squared_BO = torch.where(known_BO, raw_BO - wanted_BO.nan_to_num(), 0.0) ** 2
        of_column_O = squared_BO.sum(dim=0) / known_BO.sum(dim=0).clamp_min(1)
        return torch.cat([of_column_O[:coordinates].mean()[None], of_column_O[coordinates:]]).mean()

    return Objective(
        lambda _, outputs: WholeMap(features, outputs, grid), loss, lambda raw_BO: raw_BO * std_O + mean_O
    )


def predict(
    encoder: PretrainedBackbone, faces: Faces, setting: Setting, device: torch.device
) -> pd.DataFrame:
    """Return the predictions of fine-tuned copies of a backbone, with the columns of `fra.ruler.fit.predict`.

    Raises:
        ValueError: More labels are wanted than there are training faces.
    """
    draws = list(drawn(faces, setting))
    train, reported = faces.rows("train"), faces.rows(setting.part)
    pixels = resized(encoder, faces.image_NHW3)
    truth_NO = np.concatenate([faces.point_NC, faces.truth.to_numpy()], axis=1)
    coordinates = faces.point_NC.shape[1]
    with torch.inference_mode():
        maps = encoder.to(device).backbone(encoder.normalise(pixels[:1]))
    features = pool(maps, "grid", setting.grid).shape[1]
    found = []
    for labels, draw, chosen in draws:
        rows = train[chosen]
        aim = objective(features, setting.grid, coordinates, truth_NO[rows])
        config = replace(CONFIG, epochs=epochs(labels))
        tuned = fit(encoder, aim, Examples(pixels[rows], truth_NO[rows]), None, config, draw, device)
        pred_MO = tuned(pixels[reported])
        error_M = nme(pred_MO[:, :coordinates], faces.point_NC[reported])
        columns = dict(zip(faces.truth, pred_MO[:, coordinates:].T, strict=True))
        frame = pd.DataFrame({"key": faces.truth.index[reported], "nme": error_M} | columns)
        found.append(
            frame.astype(dict.fromkeys(("nme", *columns), np.float32)).assign(labels=labels, draw=draw)
        )
    return pd.concat(found, ignore_index=True)
