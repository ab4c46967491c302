"""The evaluation loop of all tasks: choices are made on validation subjects; test is evaluated once per fit."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fra.dist import choose_device
from fra.transfer import features as frozen
from fra.transfer import finetune
from fra.transfer.config import PRETRAINED, RANDOM, HeadProtocol, TransferConfig, kind_of
from fra.transfer.finetune import Examples
from fra.transfer.heads import Array, Predict, choose
from fra.transfer.results import GROUP, RUN, write
from fra.transfer.splits import few_labels, people, read_manifest, read_pair_images, redraw_validation, strata
from fra.transfer.tasks.table import Probe, Task, task_of
from fra.transfer.verification import Copies, compare_drawn_pairs, compare_given_pairs, read_pairs
from fra.weights.pretrained import PretrainedBackbone, load

FINETUNE, COSINE = "finetune", "cosine"


class Rows(NamedTuple):
    """Row numbers of training, validation and test images in the manifest."""

    train: Array
    val: Array
    test: Array


class Fit(NamedTuple):
    """One fit of a task, and its predictions of the test images.

    Attributes:
        encoder: The backbone before it was fine-tuned.
        predict: The head, or the fine-tuned network; None for verification, which compares features.
        choice: What validation subjects chose: "inverse_penalty", "neighbours" or "epoch".
        outputs: Names of the outputs.
        train: The manifest's rows of the training images.
        predictions: Tidy predictions (see `fra.transfer.tasks.prediction_metrics`).
    """

    encoder: PretrainedBackbone
    predict: Predict | None
    choice: dict[str, float]
    outputs: list[str]
    train: pd.DataFrame
    predictions: pd.DataFrame


class Evaluation(NamedTuple):
    """Result of `evaluate`.

    Attributes:
        summary: The content of `metrics.json`, see `fra.transfer.results.summarise`.
        fit: The backbone's fit with the first seed, all labels and the protocol `model_protocol` of the settings; None
            where that was not evaluated.
    """

    summary: dict[str, Any]
    fit: Fit | None


def evaluate(
    task: str,
    config: TransferConfig,
    manifest: Path,
    shards: Path,
    backbone: Path,
    out: Path,
    quarantined: Set[str],
) -> Evaluation:
    """Evaluate a backbone, the same architecture with random weights, and the configured baselines on one task.

    Args:
        task: Name of the task.
        config: Protocols, fractions of labels, seeds and baselines.
        manifest: Manifest of the labelled data set.
        shards: Folder of its shards.
        backbone: Weights file.
        out: Folder for `predictions.parquet` and the files computed from it: `results.csv` (see
            `fra.transfer.results.results`), `curves/` (see `fra.transfer.results.curve_tables`) and `metrics.json`.
        quarantined: Keys of quarantined images, which are used neither for training nor for test.

    Returns:
        The content of `metrics.json`, and the fit that a task model is made of.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The task is unknown, or the manifest lacks data that the task needs.
    """
    entry = task_of(task)
    pairs = None if entry.probe or config.pairs_file is None else read_pairs(Path(config.pairs_file))
    if pairs is None:
        frame = read_manifest(manifest, quarantined)
    else:
        frame, pairs = read_pair_images(manifest, pairs, quarantined)
    data = _Data(task, config, frame, pairs, shards, choose_device(config.device, "transfer.device"))
    kept: list[Fit] = []
    predictions = pd.concat(_predictions(data, backbone, kept), ignore_index=True)
    predictions = predictions[[*RUN, *predictions.columns.drop(RUN)]]
    return Evaluation(write(task, predictions, out), kept[0] if kept else None)


def first_fit(
    task: str,
    protocol: HeadProtocol,
    config: TransferConfig,
    frame: pd.DataFrame,
    shards: Path,
    encoder: PretrainedBackbone,
) -> Fit:
    """Return the fit of all labels with the first seed, as `evaluate` makes it.

    Args:
        task: Name of a task that fits a head.
        protocol: A linear head, or fine-tuning.
        config: The settings.
        frame: Usable rows of the manifest.
        shards: Folder of their shards.
        encoder: The backbone.
    """
    one = replace(config, protocols=(protocol,), fractions=(1.0,))
    data = _Data(task, one, frame, None, shards, choose_device(config.device, "transfer.device"))
    ((_, _, fit),) = _fit_heads(data, encoder, data.split(0), 0)
    return fit


@dataclass(frozen=True)
class _Data:
    """Task, settings and images, the same for all fits of a task."""

    name: str
    config: TransferConfig
    frame: pd.DataFrame
    pairs: pd.DataFrame | None
    shards: Path
    device: torch.device

    @property
    def task(self) -> Task:
        return task_of(self.name)

    @cached_property
    def copies(self) -> Copies:
        """Which images are copies of each other."""
        return Copies.of(self.frame, self.shards)

    def split(self, seed: int) -> pd.DataFrame:
        """The rows with the splits of a seed."""
        redrawn = self.config.validation == "redrawn" and self.pairs is None
        return redraw_validation(self.frame, seed) if redrawn else self.frame

    def inputs(self, encoder: PretrainedBackbone, protocol: str) -> Array:
        """What a protocol reads of each row: its pixels for fine-tuning, else frozen features."""
        aligned = self.task.aligned and self.config.align
        source = frozen.Source(self.shards, Path(self.config.cache), aligned)
        if protocol == FINETUNE:
            return frozen.pixels(encoder, self.frame, source)
        return frozen.extract(encoder, self.frame, source, self.task.view, self.config.grid, self.device)


def _predictions(data: _Data, backbone: Path, kept: list[Fit]) -> Iterator[pd.DataFrame]:
    """Yield the predictions of each seed, model, protocol and fraction of labels.

    The fit that a task model is made of is appended to `kept`.
    """
    config, frame = data.config, data.frame
    others = [(name, Path(path), None) for name, path in config.baselines.items()]
    wanted = (0, PRETRAINED, config.model_protocol if data.task.probe else COSINE, 1.0)
    for seed in range(config.seeds):
        split = data.split(seed)
        for model, path, weights in ((PRETRAINED, backbone, None), (RANDOM, backbone, seed), *others):
            encoder = load(path, weights)
            fits = _fit_heads if data.task.probe else _compare_pairs
            for protocol, fraction, fit in fits(data, encoder, split, seed):
                if (seed, model, protocol, fraction) == wanted:
                    kept.append(fit)
                rows = _with_groups(fit.predictions, frame, config.groups.get(data.name, ()))
                yield rows.assign(protocol=protocol, fraction=fraction, seed=seed, model=model)


def _compare_pairs(
    data: _Data, encoder: PretrainedBackbone, split: pd.DataFrame, seed: int
) -> Iterator[tuple[str, float, Fit]]:
    x_ND = data.inputs(encoder, COSINE)
    predictions = (
        compare_drawn_pairs(split, x_ND, data.config.pairs, seed, data.copies)
        if data.pairs is None
        else compare_given_pairs(split, x_ND, data.pairs)
    )
    train = split[split["split"] == "train"]
    yield COSINE, 1.0, Fit(encoder, None, {}, [], train, predictions)


def _fit_heads(
    data: _Data, encoder: PretrainedBackbone, split: pd.DataFrame, seed: int
) -> Iterator[tuple[str, float, Fit]]:
    config, entry = data.config, data.task.probe
    assert entry is not None
    truth = entry.truth(split, label_names(data.name, config))
    rows_of = {fraction: choose_rows(split, truth, fraction, seed) for fraction in config.fractions}
    for protocol in config.protocols:
        x_N = data.inputs(encoder, protocol)
        for fraction, rows in rows_of.items():
            yield (
                protocol,
                fraction,
                fit_head(encoder, entry, protocol, x_N, split, truth, rows, config, seed),
            )


def fit_head(
    encoder: PretrainedBackbone,
    entry: Probe,
    protocol: str,
    x_N: Array,
    frame: pd.DataFrame,
    truth: pd.DataFrame,
    rows: Rows,
    config: TransferConfig,
    seed: int,
) -> Fit:
    """Fit a head, or fine-tune; validation subjects choose, test is evaluated once.

    Args:
        encoder: The backbone.
        entry: How the task is fitted.
        protocol: One of `TransferConfig.protocols`.
        x_N: Features of the rows of `frame`; for fine-tuning their pixels.
        frame: Rows of the manifest.
        truth: Truths of these rows, a column per output.
        rows: Which of them are for training, validation and test.
        config: Fine-tuning and device.
        seed: Seed of fine-tuning.
    """
    predict: Predict
    choice: dict[str, float]
    if protocol == FINETUNE:
        y_NO = truth.to_numpy()
        train, val = (Examples(x_N[part], y_NO[part]) for part in (rows.train, rows.val))
        predict = finetune.fit(
            encoder,
            entry.objective,
            train,
            val,
            config.finetune,
            seed,
            choose_device(config.device, "transfer.device"),
        )
        choice = {"epoch": predict.epoch}
    else:
        predict, parameter = fit_probe(entry, protocol, x_N, truth, rows)
        choice = {"neighbours" if protocol == "knn" else "inverse_penalty": parameter}
    test = tidy(entry, frame.iloc[rows.test], truth.iloc[rows.test], predict(x_N[rows.test]))
    return Fit(encoder, predict, choice, list(truth.columns), frame.iloc[rows.train], test)


def fit_probe(
    entry: Probe, protocol: str, x_ND: Array, truth: pd.DataFrame, rows: Rows
) -> tuple[Predict, float]:
    """Return a head on frozen features, and its regularisation parameter, chosen on validation subjects."""
    y_NO = truth.to_numpy()
    train, val = ((x_ND[part], y_NO[part]) for part in (rows.train, rows.val))
    return choose(entry.heads[protocol], train, val, entry.loss)


def label_names(task: str, config: TransferConfig) -> tuple[str, ...]:
    """Return the label columns of a task.

    Raises:
        ValueError: The task has none of its own and none are set.
    """
    labels = config.labels.get(task, task_of(task).labels)
    if kind_of(task) == "action_units" and not labels:
        raise ValueError(f"task {task}: list its label columns in transfer.labels.{task}")
    return tuple(labels)


def choose_rows(frame: pd.DataFrame, truth: pd.DataFrame, fraction: float, seed: int) -> Rows:
    """Return the rows of each split with a known truth; of train a stratified fraction.

    Raises:
        ValueError: A split has no such row.
    """
    known = truth.notna().any(axis=1).to_numpy()
    found = {name: np.flatnonzero(known & (frame["split"] == name)) for name in ("train", "val", "test")}
    if empty := [name for name, rows in found.items() if not len(rows)]:
        raise ValueError(
            f"split {empty[0]!r} has no image with a known truth ({', '.join(truth.columns[:3])} …)"
        )
    train = found["train"]
    found["train"] = train[few_labels(strata(truth.to_numpy()[train]), fraction, seed)]
    return Rows(**found)


def tidy(entry: Probe, frame: pd.DataFrame, truth: pd.DataFrame, score_MO: Array) -> pd.DataFrame:
    """Return tidy predictions of the rows of `frame`, see `prediction_metrics`; known truths only."""
    units = 1.0 if entry.units is None else entry.units(frame)
    outputs = truth.shape[1]
    rows = pd.DataFrame(
        {
            "key": np.repeat(frame["key"].to_numpy(dtype=object), outputs),
            "person": np.repeat(people(frame).to_numpy(dtype=object), outputs),
            "output": np.tile(truth.columns.to_numpy(dtype=object), len(frame)),
            "truth": (truth.to_numpy() * units).ravel(),
            "prediction": (entry.decide(score_MO) if entry.decide else score_MO * units)
            .astype(float)
            .ravel(),
            "score": score_MO.astype(float).ravel() if entry.decide else np.nan,
        }
    )
    return rows[rows["truth"].notna()]


def _with_groups(rows: pd.DataFrame, frame: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows with the group of each image; a pair has a group where both images are in it."""
    if missing := [column for column in columns if column not in frame]:
        raise ValueError(f"transfer.groups: the manifest has no column {missing[0]!r}")
    for column in columns:
        values = frame.set_index("key")[column]
        numeric = pd.api.types.is_numeric_dtype(values)  # with missing values, classes are read as 1.0
        group_of = values.map("{:g}".format, na_action="ignore") if numeric else values.astype("string")
        group = rows["key"].map(group_of)
        if "other" in rows:
            group = group.where(group == rows["other"].map(group_of))
        rows = rows.assign(**{GROUP + column.removeprefix("label.").removeprefix("group."): group})
    return rows
