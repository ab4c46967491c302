"""One loop for all tasks: frozen features, heads chosen on validation people, test read once for each fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fra.data.files import write_json, write_parquet
from fra.transfer import features as frozen
from fra.transfer.heads import Array, choose, unit
from fra.transfer.metrics import best_threshold
from fra.transfer.splits import draw_pairs, few_labels, people, redraw_validation, strata
from fra.transfer.tasks import TASKS, Probe, Task

RUN = ["protocol", "fraction", "seed", "model"]
"""The columns of predictions and results that tell fits apart."""


@dataclass(frozen=True)
class TransferConfig:
    """How backbones are evaluated. Every task runs each protocol it knows, at each fraction, for each seed.

    With validation "redrawn" each seed draws anew which people of `train` and `val` validate (see
    `fra.transfer.splits`); with "manifest" the published split stays. `grid` is the side to which feature
    maps are pooled for alignment; `pairs` the most verification pairs of one person's images. `labels`
    replaces the label columns of expression or attributes (empty: those of the embedded faces). `cache`
    holds frozen features.
    """

    seeds: int = 3
    protocols: tuple[str, ...] = ("linear",)
    fractions: tuple[float, ...] = (1.0,)
    validation: str = "redrawn"
    labels: tuple[str, ...] = ()
    grid: int = 8
    pairs: int = 3000
    device: str = "auto"
    cache: str = ".cache/features"

    def __post_init__(self) -> None:
        known = sorted({name for task in TASKS.values() if task.probe for name in task.probe.heads})
        if unknown := sorted(set(self.protocols) - set(known)):
            raise ValueError(f"transfer.protocols: {unknown[0]!r} is not known; choose of {', '.join(known)}")
        if not self.protocols or not self.fractions or self.seeds < 1:
            raise ValueError("transfer needs at least one seed, one protocol and one fraction")
        if wrong := [fraction for fraction in self.fractions if not 0 < fraction <= 1]:
            raise ValueError(f"transfer.fractions: {wrong[0]} is not in (0, 1]")
        if self.validation not in ("redrawn", "manifest"):
            raise ValueError(f"transfer.validation: {self.validation!r} is neither 'redrawn' nor 'manifest'")


class Data(NamedTuple):
    """Rows of the manifest with their frozen features (N, D)."""

    frame: pd.DataFrame
    features_ND: NDArray[np.float32]

    def split(self, name: str) -> Data:
        rows = np.flatnonzero(self.frame["split"] == name)
        return Data(self.frame.iloc[rows], self.features_ND[rows])


def evaluate(
    task: str, config: TransferConfig, manifest: Path, shards: Path, backbone: Path, out: Path
) -> dict[str, Any]:
    """Evaluates a backbone beside random weights of its architecture.

    Writes `metrics.json` and `predictions.parquet`.

    Returns what `metrics.json` holds: model → metric → mean and std over seeds (of the first protocol, at
    the largest fraction), and the number of test images or pairs.

    Raises:
        FileNotFoundError: manifest or backbone is missing.
        ValueError: the task is unknown, or the manifest lacks what it needs.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; there are: {', '.join(TASKS)}")
    frame = read_manifest(manifest)
    predictions = pd.concat(_runs(TASKS[task], config, frame, shards, backbone), ignore_index=True)
    summary = summarise(task, predictions)
    write_parquet(predictions[[*RUN, *predictions.columns.drop(RUN)]], out / "predictions.parquet")
    write_json(summary, out / "metrics.json")
    return summary


def read_manifest(path: Path) -> pd.DataFrame:
    """The rows of a manifest whose images are in shards.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: train, val or test has no image, or a person is in two of them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest; run the stages ingest and shard first")
    frame = pd.read_parquet(path)
    frame = frame[frame["shard"].notna()].reset_index(drop=True)
    for split in ("train", "val", "test"):
        if not (frame["split"] == split).any():
            raise ValueError(f"{path}: no image in split {split!r}; transfer needs train, val and test")
    splits = frame.groupby(people(frame))["split"].nunique()
    if (splits > 1).any():
        raise ValueError(
            f"{path}: person {splits.idxmax()!r} is in {splits.max()} splits; people must not be shared"
        )
    return frame


def results(task: str, predictions: pd.DataFrame) -> pd.DataFrame:
    """Every figure, computed from the predictions alone.

    Tidy: columns task, protocol, fraction, seed, model, metric, value.
    """
    rows = [
        {"task": task, **dict(zip(RUN, run, strict=True)), "metric": metric, "value": value}
        for run, group in predictions.groupby(RUN, sort=False)
        for metric, value in TASKS[task].figures(group).items()
    ]
    return pd.DataFrame(rows)


def summarise(task: str, predictions: pd.DataFrame) -> dict[str, Any]:
    """What `metrics.json` holds, from the predictions alone: of the first protocol at the largest fraction,
    model → metric → mean and standard deviation (n − 1) over seeds, without the figures of single labels;
    and the
    number of test images (and pairs)."""
    table = results(task, predictions)
    first, largest = predictions["protocol"].iloc[0], predictions["fraction"].max()
    headline = (table["protocol"] == first) & (table["fraction"] == largest)
    single = table["metric"].str.contains("/")
    summary: dict[str, Any] = {}
    for (model, metric), values in table[headline & ~single].groupby(["model", "metric"])["value"]:
        deviation = values.std() if len(values) > 1 else 0.0
        summary.setdefault(model, {})[metric] = {"mean": float(values.mean()), "std": float(deviation)}
    test = {"images": int(predictions["key"].nunique())}
    if "other" in predictions:
        test = {
            "images": int(pd.concat([predictions["key"], predictions["other"]]).nunique()),
            "pairs": int(predictions.groupby(RUN).size().max()),
        }
    return summary | {"test": test}


def recompute(task: str, folder: Path) -> dict[str, Any]:
    """`metrics.json` of a folder that `evaluate` wrote, computed anew from its `predictions.parquet`."""
    return summarise(task, pd.read_parquet(folder / "predictions.parquet"))


def _runs(
    task: Task, config: TransferConfig, frame: pd.DataFrame, shards: Path, backbone: Path
) -> Iterator[pd.DataFrame]:
    """The predictions of each seed, model, protocol and fraction."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(automatic if config.device == "auto" else config.device)
    cache = Path(config.cache)
    for seed in range(config.seeds):
        split = redraw_validation(frame, seed) if config.validation == "redrawn" else frame
        for model, weights in (("pretrained", None), ("random", seed)):
            encoder = frozen.load(backbone, weights)
            features = frozen.extract(encoder, frame, shards, task.view, config.grid, cache, device)
            data = Data(split, features)
            if task.probe is None:
                rows = compare(data, config.pairs, seed)
                yield rows.assign(protocol="cosine", fraction=1.0, seed=seed, model=model)
                continue
            truth = task.probe.truth(split, config.labels or task.labels)
            for protocol in config.protocols:
                for fraction in config.fractions:
                    rows = fit_and_predict(task.probe, protocol, data, truth, fraction, seed)
                    yield rows.assign(protocol=protocol, fraction=fraction, seed=seed, model=model)


def fit_and_predict(
    probe: Probe, protocol: str, data: Data, truth: pd.DataFrame, fraction: float, seed: int
) -> pd.DataFrame:
    """Predictions on test of a head fitted to a fraction of train, its strength chosen on val."""
    y_NO = truth.to_numpy()
    known = ~np.isnan(y_NO).all(axis=1)
    train, val, test = (
        np.flatnonzero(known & (data.frame["split"] == name)) for name in ("train", "val", "test")
    )
    train = train[few_labels(strata(y_NO[train]), fraction, seed)]
    x_ND = data.features_ND
    predict, _ = choose(probe.heads[protocol], (x_ND[train], y_NO[train]), (x_ND[val], y_NO[val]), probe.loss)
    score_MO, truth_MO = predict(x_ND[test]), y_NO[test]
    frame = data.frame.iloc[test]
    units = 1.0 if probe.units is None else probe.units(frame)
    tidy = pd.DataFrame(
        {
            "key": np.repeat(frame["key"].to_numpy(dtype=object), y_NO.shape[1]),
            "output": np.tile(truth.columns.to_numpy(dtype=object), len(frame)),
            "truth": (truth_MO * units).ravel(),
            "prediction": (probe.decide(score_MO) if probe.decide else score_MO * units).ravel(),
            "score": score_MO.astype(float).ravel() if probe.decide else np.nan,
        }
    )
    return tidy[tidy["truth"].notna()]


def compare(data: Data, limit: int, seed: int) -> pd.DataFrame:
    """Pairs of test people by the cosine of their features less the training mean; nothing is trained.

    The threshold of `prediction` is the best one on pairs of validation people.
    """
    centre = data.split("train").features_ND.mean(axis=0)
    val, test = (_scored_pairs(data.split(name), centre, limit, seed) for name in ("val", "test"))
    threshold = best_threshold(val["score"].to_numpy(), val["truth"].to_numpy())
    return test.assign(prediction=(test["score"] >= threshold).astype(float))


def _scored_pairs(data: Data, centre: Array, limit: int, seed: int) -> pd.DataFrame:
    first, second, same = draw_pairs(people(data.frame).to_numpy(dtype=str), limit, seed)
    unit_ND = unit(data.features_ND - centre)
    keys = data.frame["key"].to_numpy(dtype=object)
    score = np.sum(unit_ND[first] * unit_ND[second], axis=1).astype(float)
    columns = {"key": keys[first], "other": keys[second], "output": "same", "truth": same.astype(float)}
    return pd.DataFrame(columns | {"score": score})
