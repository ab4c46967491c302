"""Each public layout from its folder to its metrics: listed, sharded, and evaluated by every protocol that applies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from support import miniatures
from support.labelled_set import Set

from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards.config import ShardConfig
from fra.data.shards.write import write
from fra.transfer.config import FinetuneConfig, TransferConfig
from fra.transfer.evaluate import evaluate
from fra.transfer.recompute import differences
from fra.transfer.tasks.table import TASKS

CONF = Path(__file__).parents[2] / "pipelines/conf/dataset"
SHARES = {"val": 0.2, "test": 0.4}
FITTED, COMPARED = {"linear", "knn", "finetune"}, {"cosine"}


def conf(name: str) -> dict[str, Any]:
    """Return the project's configuration of a data set."""
    found: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return found


def celeba(root: Path) -> None:
    miniatures.celeba(root, conf("celeba")["transfer"]["labels"]["attributes"])


LAYOUTS: dict[str, tuple[Callable[[Path], None], str, dict[str, float]]] = {
    "rafdb": (miniatures.rafdb, "expression", {"val": 0.25}),
    "affectnet": (miniatures.affectnet, "expression", {"val": 0.25}),
    "fer2013": (miniatures.fer2013, "expression", {}),
    "ferplus": (miniatures.ferplus, "expression", {}),
    "celeba": (celeba, "attributes", {}),
    "w300": (miniatures.w300, "alignment", {"val": 0.25}),
    "wflw": (miniatures.wflw, "alignment", {"val": 0.25}),
    "lfw": (miniatures.lfw, "verification", {}),
    "disfa": (miniatures.disfa, "action_units", SHARES),
    "bp4d": (miniatures.bp4d, "action_units", SHARES),
    "mpiifacegaze": (miniatures.mpiifacegaze, "gaze", {"val": 0.1, "test": 0.2}),
}


def evaluate_set(
    task: str, dataset: DatasetConfig, settings: dict[str, Any], backbone: Path, folder: Path
) -> tuple[dict[str, Any], pd.DataFrame]:
    """metrics.json and results.csv of one task on one data set, from its folder on disk."""
    records = ingest(dataset, folder / "raw")
    manifest, shards = folder / "manifest.parquet", folder / "shards"
    root = Path(str(dataset.root))
    write(records, root, shards, manifest, ShardConfig(workers=1), folder / "state")
    config = TransferConfig(
        seeds=1,
        protocols=("linear", "knn", "finetune"),
        fractions=(0.5, 1.0),
        finetune=FinetuneConfig(epochs=1, warmup_epochs=0, batch_size=16),
        cache=str(folder / "cache"),
        **settings,
    )
    summary = evaluate(task, config, manifest, shards, backbone, folder / "out", frozenset()).summary
    if not config.groups:  # as slow as the evaluation itself, and tested elsewhere
        assert differences(task, folder / "out") == []
    return summary, pd.read_csv(folder / "out/results.csv")


def settings_of(name: str) -> dict[str, Any]:
    """Return `labels` and `groups` of the project's configuration."""
    chosen = conf(name).get("transfer", {})
    return {
        key: {task: tuple(names) for task, names in chosen[key].items()}
        for key in ("labels", "groups")
        if key in chosen
    }


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("celeba", "wflw") else ()) for name in LAYOUTS],
)
def test_a_layout_runs_every_protocol_that_applies(name: str, faces: Set, tmp_path: Path) -> None:
    make, task, shares = LAYOUTS[name]
    make(tmp_path / "set")
    settings = settings_of(name)
    if name == "lfw":
        settings["pairs_file"] = str(tmp_path / "set/pairs.txt")
    dataset = DatasetConfig(name, name, str(tmp_path / "set"), **shares)
    summary, table = evaluate_set(task, dataset, settings, faces.backbone, tmp_path)
    assert set(table["protocol"]) == (COMPARED if name == "lfw" else FITTED)
    assert set(table["fraction"]) == ({1.0} if name == "lfw" else {0.5, 1.0})
    assert TASKS[task].primary in summary["pretrained"]
    assert summary["pretrained"].keys() == summary["random"].keys()
    assert summary["test"]["images"] >= 6
    subsets = [column.removeprefix("group.") for column in settings.get("groups", {}).get(task, ())]
    assert len(subsets) == {"w300": 1, "wflw": 6}.get(name, 0)
    for subset in subsets:
        check_subset(subset, table)


def check_subset(subset: str, table: pd.DataFrame) -> None:
    """The metrics of all test images are between those of a published subset and of the rest."""
    mean = table[table["seed"].isna() & (table["model"] == "pretrained") & (table["protocol"] == "linear")]
    mean = mean[mean["fraction"] == 1].fillna({"group": "full"}).set_index(["group", "metric"])
    for metric in ("nme", "fr10", "auc10", "fr05", "auc05"):
        inside, outside = mean.loc[(f"{subset}=1", metric)], mean.loc[(f"{subset}=0", metric)]
        assert inside["low"] <= inside["value"] <= inside["high"]
        low, high = sorted([inside["value"], outside["value"]])
        assert low - 1e-9 <= mean.at[("full", metric), "value"] <= high + 1e-9


@pytest.mark.slow
def test_own_table_is_evaluated_by_chosen_tasks(faces: Set, tmp_path: Path) -> None:
    """Head pose as a direction, an attribute, and landmarks, of one list."""
    miniatures.table(tmp_path / "set")
    dataset = DatasetConfig("mine", "table", str(tmp_path / "set"))
    labels = {"gaze": ("pitch", "yaw"), "attributes": ("Smiling",), "expression": ("Smiling",)}
    for task in ("gaze", "attributes", "expression", "alignment", "verification"):
        summary, _ = evaluate_set(task, dataset, {"labels": labels}, faces.backbone, tmp_path / task)
        assert summary["test"] | {"pairs": 0} == {"images": 9, "people": 3, "pairs": 0}


def test_every_layout_with_a_task_is_tested() -> None:
    without_task = {"orl", "folder", "generated", "synthetic", "webdataset", "vggface2", "table"}
    assert {path.stem for path in CONF.glob("*.yaml")} - without_task == set(LAYOUTS)
