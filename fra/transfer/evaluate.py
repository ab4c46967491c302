"""One loop for all tasks: choices are made on validation people, and test is read once for each fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fra.transfer import features as frozen
from fra.transfer import finetune
from fra.transfer.finetune import Examples, FinetuneConfig
from fra.transfer.heads import Array, choose
from fra.transfer.manifest import read_faces, read_manifest
from fra.transfer.results import GROUP, PRETRAINED, RANDOM, RUN, write
from fra.transfer.splits import few_labels, people, redraw_validation, strata
from fra.transfer.tasks import TASKS, Probe, Task
from fra.transfer.verification import compare, compare_folds, read_pairs
from fra.weights.pretrained import PretrainedBackbone, load

FINETUNE = "finetune"


@dataclass(frozen=True)
class TransferConfig:
    """How backbones are evaluated: each protocol, at each fraction of the labels, for each seed.

    - `protocols`: "linear" and "knn" on frozen features, "finetune". Verification compares features as they
      are.
    - `validation`: "redrawn" draws the people of `train` and `val` anew into the two for each seed (so that
      the deviation over seeds says how much the choice of labelled people matters); "manifest" keeps the
      given split.
    - `labels`: a task's label columns, where they are not those of the embedded faces (task → names).
    - `groups`: manifest columns (`label.Male`, …) by whose values a task's figures are also given, for
      fairness and published subsets (task → columns).
    - `baselines`: further backbones beside random weights (name → path of weights, or "demo"; the
      pipeline takes files from `data/baselines`).
    - `align`: tasks whose published sets are aligned see faces brought to one place by their landmarks.
    - `grid`: side to which feature maps are pooled for alignment; `pairs`: most drawn pairs of one person's
      images; `pairs_file`: LFW's `pairs.txt`, whose 10 folds then take the place of drawn pairs.
    - `cache`: folder of frozen features, shared by all tasks; safe to delete.
    """

    seeds: int = 3
    protocols: tuple[str, ...] = ("linear",)
    fractions: tuple[float, ...] = (1.0,)
    validation: str = "redrawn"
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    baselines: dict[str, str] = field(default_factory=dict)
    align: bool = True
    grid: int = 8
    pairs: int = 3000
    pairs_file: str | None = None
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    device: str = "auto"
    cache: str = ".cache/features"

    def __post_init__(self) -> None:
        known = sorted(
            {name for task in TASKS.values() if task.probe for name in task.probe.heads} | {FINETUNE}
        )
        if unknown := sorted(set(self.protocols) - set(known)):
            raise ValueError(f"transfer.protocols: {unknown[0]!r} is not known; choose of {', '.join(known)}")
        if not self.protocols or not self.fractions or self.seeds < 1:
            raise ValueError("transfer needs at least one seed, one protocol and one fraction")
        if wrong := [fraction for fraction in self.fractions if not 0 < fraction <= 1]:
            raise ValueError(f"transfer.fractions: {wrong[0]} is not in (0, 1]")
        if self.validation not in ("redrawn", "manifest"):
            raise ValueError(f"transfer.validation: {self.validation!r} is neither 'redrawn' nor 'manifest'")
        for name, chosen in (("labels", self.labels), ("groups", self.groups)):
            if unknown := sorted(set(chosen) - set(TASKS)):
                raise ValueError(
                    f"transfer.{name}: there is no task {unknown[0]!r}; choose of {', '.join(TASKS)}"
                )
        if taken := sorted(n for n in self.baselines if n in (PRETRAINED, RANDOM, "test") or " - " in n):
            raise ValueError(f"transfer.baselines: {taken[0]!r} has its meaning already; give another name")
        if self.grid < 1 or self.pairs < 1:
            raise ValueError(
                f"transfer.grid ({self.grid}) and transfer.pairs ({self.pairs}) must be at least 1"
            )


class Rows(NamedTuple):
    """Places in the manifest of what is learnt from, chosen on, and asked."""

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
    quarantined: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Evaluates a backbone beside random weights of its architecture and the configured baselines.

    `quarantined` are keys that validation quarantined: neither learnt from nor asked.
    Writes to `out` `predictions.parquet` and what follows from it: `results.csv` (see
    `fra.transfer.results.results`), `curves/` (see `fra.transfer.curves`) and `metrics.json` (see
    `fra.transfer.results.summarise`), whose content it returns.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the task is unknown, or the manifest lacks what it needs.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; there are: {', '.join(TASKS)}")
    entry = TASKS[task]
    pairs = None if entry.probe or config.pairs_file is None else read_pairs(Path(config.pairs_file))
    frame = (
        read_manifest(manifest, quarantined) if pairs is None else read_faces(manifest, pairs, quarantined)
    )
    source = frozen.Source(shards, Path(config.cache), entry.aligned and config.align)
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(automatic if config.device == "auto" else config.device)
    setting = _Setting(task, config, frame, pairs, source, device)
    predictions = pd.concat(_runs(setting, backbone), ignore_index=True)
    predictions = predictions[[*RUN, *predictions.columns.drop(RUN)]]
    return write(task, predictions, out)


@dataclass(frozen=True)
class _Setting:
    """What is the same for all fits of a task."""

    name: str
    config: TransferConfig
    frame: pd.DataFrame
    pairs: pd.DataFrame | None
    source: frozen.Source
    device: torch.device

    @property
    def task(self) -> Task:
        return TASKS[self.name]

    def features(self, encoder: PretrainedBackbone) -> Array:
        return frozen.extract(encoder, self.frame, self.source, self.task.view, self.config.grid, self.device)


def _runs(setting: _Setting, backbone: Path) -> Iterator[pd.DataFrame]:
    """The predictions of each seed, model, protocol and fraction."""
    config, frame = setting.config, setting.frame
    others = [(name, Path(path), None) for name, path in config.baselines.items()]
    redrawn = config.validation == "redrawn" and setting.pairs is None
    for seed in range(config.seeds):
        split = redraw_validation(frame, seed) if redrawn else frame
        for model, path, weights in ((PRETRAINED, backbone, None), (RANDOM, backbone, seed), *others):
            encoder = load(path, weights)
            fits = _learn if setting.task.probe else _compare
            for protocol, fraction, rows in fits(setting, encoder, split, seed):
                rows = _with_groups(rows, frame, config.groups.get(setting.name, ()))
                yield rows.assign(protocol=protocol, fraction=fraction, seed=seed, model=model)


def _compare(
    setting: _Setting, encoder: PretrainedBackbone, split: pd.DataFrame, seed: int
) -> Iterator[tuple[str, float, pd.DataFrame]]:
    x_ND = setting.features(encoder)
    if setting.pairs is None:
        yield "cosine", 1.0, compare(split, x_ND, setting.config.pairs, seed)
    else:
        yield "cosine", 1.0, compare_folds(split, x_ND, setting.pairs)


def _learn(
    setting: _Setting, encoder: PretrainedBackbone, split: pd.DataFrame, seed: int
) -> Iterator[tuple[str, float, pd.DataFrame]]:
    config, entry = setting.config, setting.task.probe
    assert entry is not None
    truth = entry.truth(split, _labels(setting.name, config))
    for protocol in config.protocols:
        tuned = protocol == FINETUNE
        x_N: Array = frozen.pixels(encoder, split, setting.source) if tuned else setting.features(encoder)
        for fraction in config.fractions:
            rows = choose_rows(split, truth, fraction, seed)
            score_MO = (
                tune(encoder, entry, x_N, truth, rows, config.finetune, seed, setting.device)
                if tuned
                else probe(entry, protocol, x_N, truth, rows)
            )
            yield protocol, fraction, tidy(entry, split.iloc[rows.test], truth.iloc[rows.test], score_MO)


def _labels(task: str, config: TransferConfig) -> tuple[str, ...]:
    labels = config.labels.get(task, TASKS[task].labels)
    if task == "action_units" and not labels:
        raise ValueError("task action_units: name its label columns in transfer.labels.action_units")
    return tuple(labels)


def choose_rows(frame: pd.DataFrame, truth: pd.DataFrame, fraction: float, seed: int) -> Rows:
    """The rows of each split with a known truth; of train a stratified fraction.

    Raises:
        ValueError: a split has none.
    """
    known = truth.notna().any(axis=1).to_numpy()
    found = {name: np.flatnonzero(known & (frame["split"] == name)) for name in ("train", "val", "test")}
    if empty := [name for name, rows in found.items() if not len(rows)]:
        raise ValueError(f"split {empty[0]!r} has no image whose {', '.join(truth.columns[:3])} … is known")
    train = found["train"]
    found["train"] = train[few_labels(strata(truth.to_numpy()[train]), fraction, seed)]
    return Rows(**found)


def probe(entry: Probe, protocol: str, x_ND: Array, truth: pd.DataFrame, rows: Rows) -> Array:
    """Scores on test, (M, O), of a head on frozen features, its strength chosen on val."""
    y_NO = truth.to_numpy()
    train, val = ((x_ND[part], y_NO[part]) for part in (rows.train, rows.val))
    predict, _ = choose(entry.heads[protocol], train, val, entry.loss)
    return predict(x_ND[rows.test])


def tune(
    encoder: PretrainedBackbone,
    entry: Probe,
    pixels: Array,
    truth: pd.DataFrame,
    rows: Rows,
    config: FinetuneConfig,
    seed: int,
    device: torch.device,
) -> Array:
    """Scores on test, (M, O), of a fine-tuned copy of the backbone, its epoch chosen on val."""
    y_NO = truth.to_numpy()
    train, val = (Examples(pixels[part], y_NO[part]) for part in (rows.train, rows.val))
    return finetune.fit(encoder, entry.objective, train, val, config, seed, device)(pixels[rows.test])


def tidy(entry: Probe, frame: pd.DataFrame, truth: pd.DataFrame, score_MO: Array) -> pd.DataFrame:
    """Predictions of the rows of `frame` as `fra.transfer.tasks` describes them; known truths only."""
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
    """The rows with each image's groups; a pair has one where both images are of it."""
    if absent := [column for column in columns if column not in frame]:
        raise ValueError(f"transfer.groups: the manifest has no column {absent[0]!r}")
    for column in columns:
        values = frame.set_index("key")[column]
        numeric = pd.api.types.is_numeric_dtype(
            values
        )  # with unknown ones among them, classes are read as 1.0
        group_of = values.map("{:g}".format, na_action="ignore") if numeric else values.astype("string")
        group = rows["key"].map(group_of)
        if "other" in rows:
            group = group.where(group == rows["other"].map(group_of))
        rows = rows.assign(**{GROUP + column.removeprefix("label."): group})
    return rows
