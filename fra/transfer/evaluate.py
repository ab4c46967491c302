"""The evaluation loop of all tasks: choices are made on validation subjects; test is evaluated once per fit."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fra.transfer import features as frozen
from fra.transfer import finetune
from fra.transfer.config import PRETRAINED, RANDOM, FinetuneConfig, TransferConfig
from fra.transfer.finetune import Examples, Finetuned
from fra.transfer.heads import Array, Predict, choose
from fra.transfer.results import GROUP, RUN, write
from fra.transfer.splits import few_labels, people, read_manifest, read_pair_images, redraw_validation, strata
from fra.transfer.tasks import TASKS, Probe, Task
from fra.transfer.verification import Copies, compare_drawn_pairs, compare_given_pairs, read_pairs
from fra.weights.pretrained import PretrainedBackbone, load

FINETUNE = "finetune"


class Rows(NamedTuple):
    """Row numbers of training, validation and test images in the manifest."""

    train: Array
    val: Array
    test: Array


def evaluate(
    task: str,
    config: TransferConfig,
    manifest: Path,
    shards: Path,
    backbone: Path,
    out: Path,
    quarantined: Set[str],
) -> dict[str, Any]:
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
        The content of `metrics.json`, see `fra.transfer.results.summarise`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The task is unknown, or the manifest lacks data that the task needs.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; the tasks are: {', '.join(TASKS)}")
    entry = TASKS[task]
    pairs = None if entry.probe or config.pairs_file is None else read_pairs(Path(config.pairs_file))
    if pairs is None:
        frame = read_manifest(manifest, quarantined)
    else:
        frame, pairs = read_pair_images(manifest, pairs, quarantined)
    source = frozen.Source(shards, Path(config.cache), entry.aligned and config.align)
    evaluation = _Evaluation(task, config, frame, pairs, source, device_of(config))
    predictions = pd.concat(_predictions(evaluation, backbone), ignore_index=True)
    predictions = predictions[[*RUN, *predictions.columns.drop(RUN)]]
    return write(task, predictions, out)


def device_of(config: TransferConfig) -> torch.device:
    """Return the device of the settings; "auto" is a GPU if one is available."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if config.device == "auto" else config.device)


@dataclass(frozen=True)
class _Evaluation:
    """Task, settings and data, the same for all fits of a task."""

    name: str
    config: TransferConfig
    frame: pd.DataFrame
    pairs: pd.DataFrame | None
    source: frozen.Source
    device: torch.device

    @property
    def task(self) -> Task:
        return TASKS[self.name]

    @cached_property
    def copies(self) -> Copies:
        """Which images are copies of each other."""
        return Copies.of(self.frame, self.source.shards)

    def features(self, encoder: PretrainedBackbone) -> Array:
        return frozen.extract(encoder, self.frame, self.source, self.task.view, self.config.grid, self.device)


def _predictions(evaluation: _Evaluation, backbone: Path) -> Iterator[pd.DataFrame]:
    """Yield the predictions of each seed, model, protocol and fraction of labels."""
    config, frame = evaluation.config, evaluation.frame
    others = [(name, Path(path), None) for name, path in config.baselines.items()]
    redrawn = config.validation == "redrawn" and evaluation.pairs is None
    for seed in range(config.seeds):
        split = redraw_validation(frame, seed) if redrawn else frame
        for model, path, weights in ((PRETRAINED, backbone, None), (RANDOM, backbone, seed), *others):
            encoder = load(path, weights)
            fits = _fit_heads if evaluation.task.probe else _compare_pairs
            for protocol, fraction, rows in fits(evaluation, encoder, split, seed):
                rows = _with_groups(rows, frame, config.groups.get(evaluation.name, ()))
                yield rows.assign(protocol=protocol, fraction=fraction, seed=seed, model=model)


def _compare_pairs(
    evaluation: _Evaluation, encoder: PretrainedBackbone, split: pd.DataFrame, seed: int
) -> Iterator[tuple[str, float, pd.DataFrame]]:
    x_ND = evaluation.features(encoder)
    if evaluation.pairs is None:
        copies = evaluation.copies
        yield "cosine", 1.0, compare_drawn_pairs(split, x_ND, evaluation.config.pairs, seed, copies)
    else:
        yield "cosine", 1.0, compare_given_pairs(split, x_ND, evaluation.pairs)


def _fit_heads(
    evaluation: _Evaluation, encoder: PretrainedBackbone, split: pd.DataFrame, seed: int
) -> Iterator[tuple[str, float, pd.DataFrame]]:
    config, entry = evaluation.config, evaluation.task.probe
    assert entry is not None
    truth = entry.truth(split, label_names(evaluation.name, config))
    for protocol in config.protocols:
        finetuned = protocol == FINETUNE
        x_N: Array = (
            frozen.pixels(encoder, split, evaluation.source) if finetuned else evaluation.features(encoder)
        )
        for fraction in config.fractions:
            rows = choose_rows(split, truth, fraction, seed)
            predict: Predict = (
                fit_network(encoder, entry, x_N, truth, rows, config.finetune, seed, evaluation.device)
                if finetuned
                else fit_probe(entry, protocol, x_N, truth, rows)[0]
            )
            score_MO = predict(x_N[rows.test])
            yield protocol, fraction, tidy(entry, split.iloc[rows.test], truth.iloc[rows.test], score_MO)


def label_names(task: str, config: TransferConfig) -> tuple[str, ...]:
    """Return the label columns of a task.

    Raises:
        ValueError: The task has none of its own and none are set.
    """
    labels = config.labels.get(task, TASKS[task].labels)
    if task == "action_units" and not labels:
        raise ValueError("task action_units: list its label columns in transfer.labels.action_units")
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


def fit_probe(
    entry: Probe, protocol: str, x_ND: Array, truth: pd.DataFrame, rows: Rows
) -> tuple[Predict, float]:
    """Return a head on frozen features, and its regularisation parameter, chosen on validation subjects."""
    y_NO = truth.to_numpy()
    train, val = ((x_ND[part], y_NO[part]) for part in (rows.train, rows.val))
    return choose(entry.heads[protocol], train, val, entry.loss)


def fit_network(
    encoder: PretrainedBackbone,
    entry: Probe,
    pixels: Array,
    truth: pd.DataFrame,
    rows: Rows,
    config: FinetuneConfig,
    seed: int,
    device: torch.device,
) -> Finetuned:
    """Return a fine-tuned copy of the backbone with a head, its epoch chosen on validation subjects."""
    y_NO = truth.to_numpy()
    train, val = (Examples(pixels[part], y_NO[part]) for part in (rows.train, rows.val))
    return finetune.fit(encoder, entry.objective, train, val, config, seed, device)


def tidy(entry: Probe, frame: pd.DataFrame, truth: pd.DataFrame, score_MO: Array) -> pd.DataFrame:
    """Return tidy predictions of the rows of `frame`, see `fra.transfer.tasks`; known truths only."""
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
