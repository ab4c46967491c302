"""How backbones are compared, and ridge regression from frozen feature maps to all labels of the synthetic faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from fra.data import images
from fra.files import sha256
from fra.ruler.faces import OPEN_MOUTH, Faces
from fra.transfer import metrics
from fra.transfer.config import MINUS, RANDOM
from fra.transfer.features import pool
from fra.transfer.heads import powers
from fra.transfer.metrics import Array
from fra.weights import released
from fra.weights.pretrained import PretrainedBackbone, load

Part = Literal["val", "test"]

LABELS = (100, 400, 1600, 4000)
GRID = powers(-1, 3, 9)
"""Inverse penalties to try: the mean squared norm of the features is divided by them, as in `fra.transfer.heads`."""


class Setting(NamedTuple):
    """How backbones are compared.

    Attributes:
        part: The faces that are reported: validation faces to choose by, or test faces.
        labels: Numbers of labelled training faces.
        draws: Random choices of these faces that are averaged, where they are not all.
        grid: Largest side of a feature map; a larger map is averaged in cells.
        standardise: Whether each feature is divided by its standard deviation; fine-tuning always does so.
        finetune: Whether the backbone is trained as well, see `fra.ruler.finetune`.
    """

    part: Part = "test"
    labels: tuple[int, ...] = LABELS
    draws: int = 3
    grid: int = 8
    standardise: bool = True
    finetune: bool = False


class Entry(NamedTuple):
    """A backbone to compare: its name in tables, the number of its seed among those of the name, and the network."""

    model: str
    seed: int
    encoder: PretrainedBackbone


def load_all(weights: Sequence[str]) -> list[Entry]:
    """Return backbones in the order given; "random:<seed>" is the architecture of the first with random weights.

    "name=file" gives a name; files of one name are seeds of one recipe, whose mean is compared.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, weights are named twice, the first are random, or two seeds of one name are the
            same file, so that an interval over them would be too narrow.
    """
    if repeated := [name for number, name in enumerate(weights) if name in weights[:number]]:
        raise ValueError(f"{repeated[0]}: named twice")
    found: list[Entry] = []
    read: set[tuple[str, str]] = set()
    files = [word.rpartition("=")[2] for word in weights]
    for word, file in zip(weights, files, strict=True):
        model = word.partition("=")[0] or file
        if MINUS in model:
            raise ValueError(
                f"{word}: a name with {MINUS!r} would read as a difference: give another, as name=file"
            )
        seed = sum(entry.model == model for entry in found)
        kind, _, number = file.partition(":")
        if kind != RANDOM:
            found.append(Entry(model, seed, load(file)))
            content = (model, sha256(released.find(file)))
            if content in read:
                raise ValueError(
                    f"{word}: the same weights as another seed of {model}: give different pre-trainings"
                )
            read.add(content)
        elif not number.isdecimal() or file == files[0]:
            raise ValueError(
                f"{word}: random weights are random:<seed>, after the weights whose architecture they take"
            )
        else:
            found.append(Entry(model, seed, load(files[0], int(number))))
    return found


def resized(encoder: PretrainedBackbone, image_NHW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images of the size that a backbone was trained with."""
    return np.stack([images.resize(image, encoder.image_size) for image in image_NHW3])


def feature_maps(
    encoder: PretrainedBackbone, image_NHW3: NDArray[np.uint8], grid: int, device: torch.device
) -> NDArray[np.float32]:
    """Return the feature maps of images: (N, C·H·W), at most `grid` × `grid` cells each."""
    encoder.to(device)
    small = resized(encoder, image_NHW3)
    with torch.inference_mode():
        parts = [
            pool(encoder.backbone(encoder.normalise(small[first : first + 64])).float(), "grid", grid).cpu()
            for first in range(0, len(small), 64)
        ]
    return np.asarray(torch.cat(parts).numpy())


def standardised(x_ND: Array, train: int) -> Array:
    """Return features divided by their standard deviation over the first `train` rows.

    All training faces are used, as that needs no labels. Deviations below a tenth of their median count as that much:
    a feature that is nearly constant in training would otherwise decide single test faces.
    """
    std_D = x_ND[:train].std(axis=0)
    return np.asarray(x_ND / np.maximum(std_D, np.median(std_D) / 10 + 1e-12))


def ridge(x_ND: Array, y_NO: Array, x_MD: Array) -> Iterator[Array]:
    """Yield the predictions (M, O) of ridge regression for each value of `GRID`, solved in the space of the faces."""
    mean_D, mean_O = x_ND.mean(axis=0), y_NO.mean(axis=0)
    x_ND = x_ND - mean_D
    gram_NN, cross_MN = (x_ND @ x_ND.T).astype(np.float64), (x_MD - mean_D) @ x_ND.T
    energy = np.trace(gram_NN) / len(gram_NN)
    for value in GRID:
        factor = cho_factor(gram_NN + energy / value * np.eye(len(gram_NN)), lower=True, check_finite=False)
        weight_NO = cho_solve(factor, y_NO - mean_O, check_finite=False)
        yield cross_MN @ weight_NO.astype(cross_MN.dtype) + mean_O


def choices(faces: int, count: int, draws: int) -> Iterator[Array]:
    """Yield the sorted numbers of the labelled faces of each draw; a draw's fewer labels are among its more labels."""
    for draw in range(draws if count < faces else 1):
        yield np.sort(np.random.default_rng([draw, 3]).permutation(faces)[:count])


class Draw(NamedTuple):
    """One choice of labelled faces: how many, which of the draws, and their numbers among the training faces."""

    labels: int
    draw: int
    chosen: Array


def drawn(faces: Faces, setting: Setting) -> Iterator[Draw]:
    """Yield every choice of labelled faces.

    Raises:
        ValueError: More labels are wanted than there are training faces.
    """
    train = len(faces.rows("train"))
    if max(setting.labels) > train:
        raise ValueError(f"there are {train:,} labelled faces, not {max(setting.labels):,}")
    for count in setting.labels:
        for number, chosen in enumerate(choices(train, count, setting.draws)):
            yield Draw(count, number, chosen)


def predict(
    encoder: PretrainedBackbone, faces: Faces, setting: Setting, device: torch.device
) -> pd.DataFrame:
    """Return the predictions of a backbone for the reported faces, one row for each face, number of labels and draw.

    Columns: `labels`, `draw`, `key`, `nme` (the face's normalised mean error) and a prediction for each column of
    `Faces.truth`. The penalty is chosen on validation faces; where these are reported, on the other half of them.

    Raises:
        ValueError: More labels are wanted than there are training faces.
    """
    draws = list(drawn(faces, setting))
    train, val, reported = faces.rows("train"), faces.rows("val"), faces.rows(setting.part)
    rows = np.concatenate([train, val] if setting.part == "val" else [train, val, reported])
    x_ND = feature_maps(encoder, faces.image_NHW3[rows], setting.grid, device)
    if setting.standardise:
        x_ND = standardised(x_ND, len(train))
    x_train, x_eval, evaluated = x_ND[: len(train)], x_ND[len(train) :], rows[len(train) :]
    found = []
    for count, draw, chosen in draws:
        frame = _fit(x_train[chosen], train[chosen], x_eval, evaluated, faces, setting.part)
        found.append(frame.assign(labels=count, draw=draw))
    return pd.concat(found, ignore_index=True)


def _fit(x_ND: Array, train: Array, x_MD: Array, evaluated: Array, faces: Faces, part: Part) -> pd.DataFrame:
    """Return predictions (see `predict`) of the reported faces from one choice of training faces."""
    names = [name for name in faces.truth if name != OPEN_MOUTH]
    measure_NT, mouth_N1 = faces.truth[names].to_numpy(), faces.truth[[OPEN_MOUTH]].to_numpy()
    points = faces.point_NC.shape[1]
    target_NO = np.concatenate([faces.point_NC, measure_NT], axis=1)
    pred_LMO = np.stack(list(ridge(x_ND, target_NO[train], x_MD)))
    labelled = ~np.isnan(mouth_N1[train, 0])
    score_LM1 = np.stack(list(ridge(x_ND[labelled], mouth_N1[train[labelled]], x_MD)))
    nme_LM1 = np.stack([nme(pred_MO[:, :points], faces.point_NC[evaluated]) for pred_MO in pred_LMO])[
        ..., None
    ]
    value_LMK = np.concatenate([nme_LM1, pred_LMO[..., points:], score_LM1], axis=2)
    squared_LMT = (pred_LMO[..., points:] - measure_NT[evaluated]) ** 2
    loss_LMK = np.concatenate([nme_LM1, squared_LMT, (score_LM1 - mouth_N1[evaluated]) ** 2], axis=2)
    split = faces.split[evaluated]
    columns = {
        name: _chosen(value_LMK[..., number], loss_LMK[..., number], split, part).astype(np.float32)
        for number, name in enumerate(["nme", *names, OPEN_MOUTH])
    }
    frame = pd.DataFrame({"key": faces.truth.index[evaluated]} | columns)
    return frame.iloc[np.flatnonzero(split == part)]


def _chosen(value_LM: Array, loss_LM: Array, split: Array, part: Part) -> Array:
    """Return each face's value at the penalty of lowest loss on validation faces, without those of its own half."""
    val = np.flatnonzero(split == "val")
    if part != "val":
        best = int(np.argmin(np.nanmean(loss_LM[:, val], axis=1)))
        return np.asarray(value_LM[best])
    found = np.full(value_LM.shape[1], np.nan)
    for half in (0, 1):
        best = int(np.argmin(np.nanmean(loss_LM[:, val[1 - half :: 2]], axis=1)))
        found[val[half::2]] = value_LM[best, val[half::2]]
    return found


def nme(pred_NC: Array, truth_NC: Array) -> Array:
    """Return the normalised mean error of each face from flat coordinates: (N,)."""
    return metrics.normalised_mean_error(
        pred_NC.reshape(len(pred_NC), -1, 2), truth_NC.reshape(len(truth_NC), -1, 2)
    )
