"""Fine-tuning of the whole backbone and a small head on images; keeps the epoch of lowest validation loss, if any.

The recipe is that of the official code: AdamW, learning rate 2e-4, weight decay 0.05, 100 epochs, batch size 256, 5
warm-up epochs, then cosine; rotation by ±10°, translation, brightness and contrast jitter, random erasing. The official
code reports its best epoch on test; here validation subjects choose the epoch, and test is evaluated once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from fra.method.backbone import checkpoint_gradients
from fra.train.optim import adamw, layer_scales, set_lr
from fra.train.schedule import cap_warmup, warmup_cosine
from fra.transfer.config import FinetuneConfig, LandmarkLoss
from fra.weights.pretrained import PretrainedBackbone

Array = NDArray[Any]


@dataclass(frozen=True)
class Objective:
    """Head, loss and augmentation of a task.

    Attributes:
        head: (feature_dim, O) → module from feature map to raw outputs.
        loss: (raw outputs, truths (B, O)) → scalar.
        scores: Raw outputs → scores.
        landmarks: Truths are coordinates, which move with the image; the loss is `landmark_loss` of the settings.
        rotates: Images may be rotated; not where truths are directions.
    """

    head: Callable[[int, int], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    scores: Callable[[Tensor], Tensor]
    landmarks: bool = False
    rotates: bool = True


class PooledLinear(nn.Module):
    """Spatial mean and one linear layer: (B, C, H, W) → (B, O)."""

    def __init__(self, feature_dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, outputs)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Return raw outputs (B, O)."""
        out_BO: Tensor = self.linear(map_BCHW.mean(dim=(2, 3)))
        return out_BO


class HeatmapRegression(nn.Module):
    """One heatmap per landmark at 4 times the map's resolution; its mean (soft-argmax) and its covariance.

    (B, C, H, W) → (B, 5·landmarks): x0, y0, x1 and so on as fractions of width and height, then the variance of x, the
    covariance and the variance of y of each landmark's heatmap. See `coordinates` and `covariances`.
    """

    def __init__(self, feature_dim: int, outputs: int, hidden_dim: int = 128) -> None:
        super().__init__()
        self.up = nn.Sequential(
            *_upsample(feature_dim, hidden_dim),
            *_upsample(hidden_dim, hidden_dim),
            nn.Conv2d(hidden_dim, outputs // 2, 1),
        )

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """Return raw outputs (B, 5·landmarks)."""
        heat_BLHW = self.up(map_BCHW)
        height, width = heat_BLHW.shape[-2:]
        share_BLHW = heat_BLHW.flatten(2).softmax(dim=2).unflatten(2, (height, width))
        x_W, y_H = ((torch.arange(n, device=map_BCHW.device) + 0.5) / n for n in (width, height))
        x_BL, y_BL = share_BLHW.sum(dim=2) @ x_W, share_BLHW.sum(dim=3) @ y_H
        offset_BLW, offset_BLH = x_W - x_BL[..., None], y_H - y_BL[..., None]
        covariance_BL3 = torch.stack(
            [
                torch.einsum("blhw,blw->bl", share_BLHW, offset_BLW**2),
                torch.einsum("blhw,blh,blw->bl", share_BLHW, offset_BLH, offset_BLW),
                torch.einsum("blhw,blh->bl", share_BLHW, offset_BLH**2),
            ],
            dim=2,
        )
        return torch.cat([torch.stack([x_BL, y_BL], dim=2).flatten(1), covariance_BL3.flatten(1)], dim=1)


def coordinates(raw_BO: Tensor) -> Tensor:
    """Return the coordinates in the output of `HeatmapRegression`: (B, 5·landmarks) → (B, 2·landmarks)."""
    return raw_BO[:, : raw_BO.shape[1] // 5 * 2]


def covariances(raw_BO: Tensor) -> Tensor:
    """Return the covariance of each heatmap: (B, 5·landmarks) → (B, landmarks, 2, 2)."""
    landmarks = raw_BO.shape[1] // 5
    xx_BL, xy_BL, yy_BL = raw_BO[:, 2 * landmarks :].reshape(-1, landmarks, 3).unbind(dim=2)
    return torch.stack([xx_BL, xy_BL, xy_BL, yy_BL], dim=2).reshape(-1, landmarks, 2, 2)


def _upsample(in_dim: int, out_dim: int) -> tuple[nn.Module, ...]:
    return (
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(in_dim, out_dim, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_dim),
        nn.ReLU(inplace=True),
    )


def cross_entropy(raw_BO: Tensor, truth_BO: Tensor) -> Tensor:
    """Return the cross-entropy of O classes; the truth is one-hot."""
    return functional.cross_entropy(raw_BO, truth_BO)


def binary_cross_entropy(raw_BO: Tensor, truth_BO: Tensor) -> Tensor:
    """Return the binary cross-entropy, the mean over known truths."""
    known = ~truth_BO.isnan()
    return functional.binary_cross_entropy_with_logits(raw_BO[known], truth_BO[known])


def wing(raw_BO: Tensor, truth_BO: Tensor, width: float = 10.0, curvature: float = 2.0) -> Tensor:
    """Return the wing loss (Feng et al., CVPR 2018, equation 5) of coordinates in hundredths of the side.

    w·log(1 + d/ε) where the distance d is below w, else d − w + w·log(1 + w/ε); `width` is w, `curvature` is ε.
    """
    distance = 100 * (coordinates(raw_BO) - truth_BO).abs()
    offset = width - width * np.log(1 + width / curvature)
    near = width * torch.log1p(distance / curvature)
    return torch.where(distance < width, near, distance - offset).mean()


def star(raw_BO: Tensor, truth_BO: Tensor, restriction: float = 1.0) -> Tensor:
    """Return a loss like STAR (Zhou et al., CVPR 2023), with smaller weight for errors along a wide heatmap.

    The position of a landmark along an outline is ambiguous, so its heatmap is stretched along the outline. The error
    is projected on the heatmap's two principal directions, and each part (smooth L1) is divided by the standard
    deviation in that direction. `restriction` times both variances is added, so that wider heatmaps do not lower the
    loss. Coordinates are in −1…1. The directions are detached: their gradient is undefined where both variances are
    equal.
    """
    covariance_BL22 = 4 * covariances(raw_BO)
    error_BL2 = 2 * (coordinates(raw_BO) - truth_BO).reshape(len(truth_BO), -1, 2)
    direction_BL22 = torch.linalg.eigh(covariance_BL22.detach()).eigenvectors
    error_BL2 = torch.einsum("blij,bli->blj", direction_BL22, error_BL2)
    variance_BL2 = torch.einsum("blij,blik,blkj->blj", direction_BL22, covariance_BL22, direction_BL22)
    along_BL2 = functional.smooth_l1_loss(error_BL2, torch.zeros_like(error_BL2), reduction="none", beta=0.01)
    return (along_BL2 / (variance_BL2 + 1e-5).sqrt() + restriction * variance_BL2).sum(dim=2).mean()


def cosine_distance(raw_BO: Tensor, truth_BO: Tensor) -> Tensor:
    """Return the mean of 1 − cosine between predicted and true directions."""
    return (1 - functional.cosine_similarity(raw_BO, truth_BO)).mean()


def measures(scale: float) -> Objective:
    """Return the objective of real numbers of about this size: the squared error in units of it, of known truths."""

    def loss(raw_BO: Tensor, truth_BO: Tensor) -> Tensor:
        known = ~truth_BO.isnan()
        return functional.mse_loss(raw_BO[known], truth_BO[known] / scale)

    return Objective(PooledLinear, loss, lambda raw: raw * scale)


CLASSES = Objective(PooledLinear, cross_entropy, lambda raw: raw.softmax(dim=1))
LABELS = Objective(PooledLinear, binary_cross_entropy, torch.sigmoid)
LANDMARKS = Objective(HeatmapRegression, wing, coordinates, landmarks=True)
LANDMARK_LOSSES: dict[LandmarkLoss, Callable[[Tensor, Tensor], Tensor]] = {"wing": wing, "star": star}
DIRECTIONS = Objective(PooledLinear, cosine_distance, lambda raw: raw, rotates=False)


class Examples(NamedTuple):
    """Images (N, H, W, 3), uint8, and truths (N, O)."""

    pixels: NDArray[np.uint8]
    truth_NO: Array


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuned copy of a backbone and its head.

    Attributes:
        encoder: The backbone that was the start, with the preprocessing of images.
        model: Normalised images → feature map → raw outputs.
        objective: What turns raw outputs into scores.
        epoch: Number of the epoch that is kept, from 1.
    """

    encoder: PretrainedBackbone
    model: nn.Sequential
    objective: Objective
    epoch: int

    def __call__(self, pixels: NDArray[np.uint8]) -> Array:
        """Return the scores (M, O) of images (M, H, W, 3)."""
        raw = torch.from_numpy(_outputs(self.model, self.encoder, pixels))
        scores: Array = self.objective.scores(raw).numpy()
        return scores


def fit(
    encoder: PretrainedBackbone,
    objective: Objective,
    train: Examples,
    val: Examples | None,
    config: FinetuneConfig,
    seed: int,
    device: torch.device,
) -> Finetuned:
    """Fine-tune a copy of the backbone; without validation images the last epoch is kept.

    Every row must have a known truth, unless the objective's loss leaves out unknown ones.

    Raises:
        ValueError: The settings ask for a rate per layer or gradient checkpointing, which the backbone does not have.
        RuntimeError: Training diverged: no epoch has a finite validation loss, or the last weights are not finite.
    """
    loss_of = LANDMARK_LOSSES[config.landmark_loss] if objective.landmarks else objective.loss
    encoder.to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        head = objective.head(encoder.feature_dim, train.truth_NO.shape[1])
        model = nn.Sequential(copy.deepcopy(encoder.backbone), head).to(device)
        scales = layer_scales(encoder.backbone, config.layer_decay, "transfer.finetune.layer_decay", "0.")
        if config.gradient_checkpointing:
            checkpoint_gradients(model[0], "transfer.finetune.gradient_checkpointing")
        average = None
        if config.ema:
            update = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
        evaluated = model if average is None else average.module
        best, best_loss, best_epoch = copy.deepcopy(evaluated.state_dict()), float("inf"), 0
        batch_size = min(config.batch_size, len(train.pixels))
        steps = max(1, len(train.pixels) // batch_size)
        warmup = cap_warmup(config.warmup_epochs, config.epochs, "transfer.finetune")
        rates = warmup_cosine(config.lr, config.epochs, warmup, steps)
        optimiser = adamw(model.named_parameters(), config.lr, config.weight_decay, scales)
        generator = np.random.default_rng([seed, 4])
        for epoch in tqdm(range(config.epochs), desc="fine-tuning", unit="epoch", mininterval=1):
            model.train()
            for step, rows in enumerate(_batches(train, batch_size, steps, config.balanced, generator)):
                set_lr(optimiser, float(rates[epoch * steps + step]))
                images, truth = augment(_batch(encoder, train, rows), objective, config)
                loss = loss_of(model(images), truth)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                if average is not None:
                    average.update_parameters(model)
            if val is None:
                continue
            raw = torch.from_numpy(_outputs(evaluated, encoder, val.pixels))
            val_loss = float(loss_of(raw, torch.from_numpy(val.truth_NO).float()))
            if val_loss < best_loss:
                best, best_loss, best_epoch = copy.deepcopy(evaluated.state_dict()), val_loss, epoch + 1
        if val is None:
            best, best_epoch = evaluated.state_dict(), config.epochs
        if best_epoch == 0 or not all(bool(value.isfinite().all()) for value in best.values()):
            found = "no epoch has a finite validation loss" if best_epoch == 0 else "weights are not finite"
            raise RuntimeError(
                f"fine-tuning diverged: {found}; lower transfer.finetune.lr (here {config.lr:g})"
            )
        model.load_state_dict(best)
    return Finetuned(encoder, model.eval(), objective, best_epoch)


def augment(
    batch: tuple[Tensor, Tensor], objective: Objective, config: FinetuneConfig
) -> tuple[Tensor, Tensor]:
    """Rotate, translate, jitter and erase each image at random, with torch's generator.

    Args:
        batch: Normalised images (B, 3, H, W), and truths (B, O).
        objective: Says whether truths are landmarks, which move with the image, and whether images may be rotated.
        config: Ranges of the augmentations.
    """
    images_B3HW, truth_BO = batch
    count, device = len(images_B3HW), images_B3HW.device

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(count, *shape, device=device) - 1

    angle_B = torch.deg2rad(draw() * (config.rotation if objective.rotates else 0.0))
    shift_B2 = draw(2) * 2 * config.shift  # grids run from −1 to 1
    cos_B, sin_B = angle_B.cos(), angle_B.sin()
    rotation_B22 = torch.stack([cos_B, -sin_B, sin_B, cos_B], dim=1).view(-1, 2, 2)
    # A point p of the image moves to R(p) + s, so the output at q is sampled at Rᵀ(q − s).
    inverse_B23 = torch.cat([rotation_B22.mT, -(rotation_B22.mT @ shift_B2[:, :, None])], dim=2)
    grid = functional.affine_grid(inverse_B23, list(images_B3HW.shape), align_corners=False)
    images_B3HW = functional.grid_sample(images_B3HW, grid, padding_mode="border", align_corners=False)
    if objective.landmarks:
        point_BL2 = truth_BO.view(len(truth_BO), -1, 2) * 2 - 1
        truth_BO = ((point_BL2 @ rotation_B22.mT + shift_B2[:, None] + 1) / 2).flatten(1)
    contrast, brightness = (draw(1, 1, 1) * config.jitter for _ in range(2))
    images_B3HW = images_B3HW * (1 + contrast) + brightness
    return _erase(images_B3HW, config.erase), truth_BO


def _erase(images_B3HW: Tensor, probability: float) -> Tensor:
    """Set a rectangle of a tenth to a third of each side to 0 (the mean), with a probability per image."""
    count, _, height, width = images_B3HW.shape
    side_B2, centre_B2 = (torch.rand(count, 2, 1, 1, device=images_B3HW.device) for _ in range(2))
    y_H, x_W = (torch.linspace(0, 1, n, device=images_B3HW.device) for n in (height, width))
    half_B2 = (0.1 + 0.23 * side_B2) / 2
    inside_y = (y_H[:, None] - centre_B2[:, :1]).abs() < half_B2[:, :1]
    inside_x = (x_W[None, :] - centre_B2[:, 1:]).abs() < half_B2[:, 1:]
    chosen = torch.rand(count, 1, 1, 1, device=images_B3HW.device) < probability
    return images_B3HW.masked_fill(inside_y & inside_x & chosen, 0.0)


def _batch(encoder: PretrainedBackbone, data: Examples, rows: Array) -> tuple[Tensor, Tensor]:
    images = encoder.normalise(data.pixels[rows])
    return images, torch.from_numpy(data.truth_NO[rows]).float().to(images.device)


def _batches(
    data: Examples, batch_size: int, steps: int, balanced: bool, generator: np.random.Generator
) -> Iterator[Array]:
    """Yield the rows of each batch of an epoch; `balanced` samples classes equally often, with replacement."""
    if balanced:
        class_N = data.truth_NO.argmax(axis=1)
        weight_N = 1.0 / np.bincount(class_N)[class_N]
        order = generator.choice(len(class_N), steps * batch_size, p=weight_N / weight_N.sum())
    else:
        order = generator.permutation(len(data.pixels))
    for step in range(steps):
        yield np.sort(order[step * batch_size : (step + 1) * batch_size])


@torch.inference_mode()
def _outputs(model: nn.Module, encoder: PretrainedBackbone, pixels: NDArray[np.uint8]) -> Array:
    model.eval()
    parts = [model(encoder.normalise(pixels[i : i + 256])).cpu() for i in range(0, len(pixels), 256)]
    outputs: Array = torch.cat(parts).float().numpy()
    return outputs
