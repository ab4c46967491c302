"""The cross test: heads fitted on synthetic faces, tested on real photographs (landmarks)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fra.data import images
from fra.data.datasets.adapters import orl
from fra.data.datasets.records import DatasetConfig
from fra.faces.crop import similarity
from fra.ruler import fit
from fra.ruler.faces import Faces
from fra.transfer import align, metrics
from fra.transfer.metrics import Array
from fra.weights.pretrained import PretrainedBackbone

PHOTOGRAPHS = "photographs"
"""Name of the metric: the normalised mean error of landmarks on photographs."""
MEAN_FACE = "mean face"
"""Name of the baseline that predicts the mean landmarks of the synthetic training faces."""


class Photographs(NamedTuple):
    """Photographs with landmarks.

    Attributes:
        image_NHW3: Pixels, uint8.
        point_NC: Landmarks x0, y0, x1 … in pixels.
        person_N: Whom each photograph shows.
    """

    image_NHW3: NDArray[np.uint8]
    point_NC: Array
    person_N: Array


def read_photographs(raw: Path, faces: Faces) -> Photographs:
    """Read the 400 embedded photographs, framed like the synthetic faces.

    All are cropped by one transform, which brings the mean centres of eyes and mouth to those of the synthetic training
    faces: no landmark of a single photograph is used.
    """
    config = DatasetConfig()
    orl.fetch(raw, config)
    records = [record for record in orl.records(raw, config) if record.landmarks is not None]
    point_NL2 = np.array([record.landmarks for record in records]).reshape(len(records), -1, 2)
    size = faces.image_NHW3.shape[1]
    wanted_NL2 = faces.point_NC[faces.rows("train")].reshape(-1, 68, 2)
    means = [np.mean([align.centres(face) for face in part], axis=0) for part in (point_NL2, wanted_NL2)]
    transform_23 = similarity(*means)
    photos = [images.decode(images.read_file(raw / record.source)) for record in records]
    return Photographs(
        np.stack(
            [
                cv2.warpAffine(
                    photo, transform_23, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
                )
                for photo in photos
            ]
        ).astype(np.uint8),
        (point_NL2 @ transform_23[:, :2].T + transform_23[:, 2]).reshape(len(records), -1),
        np.array([record.person for record in records]),
    )


def grey(image_NHW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images without colour, as the photographs are."""
    grey_NHW1 = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in image_NHW3])[..., None]
    return np.repeat(grey_NHW1, 3, axis=3)


def errors(
    encoder: PretrainedBackbone,
    faces: Faces,
    photographs: Photographs,
    setting: fit.Setting,
    device: torch.device,
) -> dict[int, Array]:
    """Return the normalised mean error of each photograph by number of labelled synthetic faces, mean over draws.

    Synthetic faces are made grey, as the photographs are; the penalty is chosen on those for validation.
    """
    train, val = faces.rows("train"), faces.rows("val")
    rows = np.concatenate([train, val])
    pixels = np.concatenate([grey(faces.image_NHW3[rows]), photographs.image_NHW3])
    x_ND = fit.feature_maps(encoder, pixels, setting.grid, device)
    if setting.standardise:
        x_ND = fit.standardised(x_ND, len(train))
    x_train, x_eval = x_ND[: len(train)], x_ND[len(train) :]
    found = {}
    for count in setting.labels:
        draws = []
        for chosen in fit.choices(len(train), count, setting.draws):
            pred_LMC = np.stack(list(fit.ridge(x_train[chosen], faces.point_NC[train[chosen]], x_eval)))
            losses = [fit.nme(pred_MC[: len(val)], faces.point_NC[val]).mean() for pred_MC in pred_LMC]
            best_MC = pred_LMC[int(np.argmin(losses))]
            draws.append(fit.nme(best_MC[len(val) :], photographs.point_NC))
        found[count] = np.mean(draws, axis=0)
    return found


def predict(
    entries: Sequence[fit.Entry],
    faces: Faces,
    photographs: Photographs,
    setting: fit.Setting,
    device: torch.device,
) -> pd.DataFrame:
    """Return the error of each photograph: columns `model`, `seed`, `labels`, `person`, `nme`; last the mean face."""
    found = [
        (model, seed, errors(encoder, faces, photographs, setting, device))
        for model, seed, encoder in entries
    ]
    mean_C = faces.point_NC[faces.rows("train")].mean(axis=0)
    of_mean_N = fit.nme(np.tile(mean_C, (len(photographs.person_N), 1)), photographs.point_NC)
    found.append((MEAN_FACE, 0, dict.fromkeys(setting.labels, of_mean_N)))
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "model": model,
                    "seed": seed,
                    "labels": count,
                    "person": photographs.person_N,
                    "nme": error_N,
                }
            )
            for model, seed, by_count in found
            for count, error_N in by_count.items()
        ],
        ignore_index=True,
    ).astype({"nme": np.float32})


def values(predictions: pd.DataFrame) -> dict[tuple[str, int, str], dict[int, Array]]:
    """Return mean errors for `fra.ruler.results.table`: of all photographs, then of 1,000 resamples of people.

    Args:
        predictions: See `predict`.
    """
    found: dict[tuple[str, int, str], dict[int, Array]] = {}
    generator = np.random.default_rng(0)
    names = predictions["person"].unique()
    drawn_BP = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=1000)
    for (model, seed, count), part in predictions.groupby(["model", "seed", "labels"], sort=False):
        number_N = pd.Categorical(part["person"], np.sort(names)).codes
        weight_BN = np.concatenate([np.ones((1, len(part))), drawn_BP[:, number_N]])
        key = (str(model), int(str(count)), PHOTOGRAPHS)
        found.setdefault(key, {})[int(str(seed))] = metrics.mean(part["nme"].to_numpy(float), weight_BN)
    return found
