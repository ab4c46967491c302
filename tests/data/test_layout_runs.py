"""Each public layout, with the irregularities of its real files, through `dvc repro`: validation included.

The set of each case replaces that of the case before in one workspace, whose embedded faces are prepared once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support import miniatures
from support.workspace import ROOT, make_workspace, run

CONF = ROOT / "pipelines/conf/dataset"
ALL = miniatures.PEOPLE * miniatures.IMAGES


@dataclass(frozen=True)
class Layout:
    """A set in miniature.

    Attributes:
        make: Writes its folder.
        images: The number of images that must pass validation.
        task: The task that is evaluated on it.
        overrides: Parameters besides its root; `{root}` stands for the folder.
        name: Its name in `dataset=`, where that is not the name of the case.
    """

    make: Callable[[Path], None]
    images: int = ALL
    task: str | None = None
    overrides: tuple[str, ...] = ()
    name: str | None = None


def attributes() -> list[str]:
    names: list[str] = yaml.safe_load((CONF / "celeba.yaml").read_text())["transfer"]["labels"]["attributes"]
    return names


def nothing(root: Path) -> None:
    root.mkdir()


SHARES = ("dataset.val=0.2", "dataset.test=0.3")
OWN_TASK = (
    "tasks.attributes.dataset=mine",
    "tasks.attributes.validation=artifacts/validation",
    "+transfer.labels.attributes=[Smiling]",
    "+transfer.groups.attributes=[group.indoors]",
)
LAYOUTS = {
    "rafdb": Layout(miniatures.rafdb, task="expression"),
    "affectnet": Layout(miniatures.affectnet, task="expression", overrides=("dataset.val=0.1",)),
    "affectnet arrays": Layout(
        miniatures.affectnet_arrays, task="expression", overrides=("dataset.val=0.1",), name="affectnet"
    ),
    "fer2013": Layout(miniatures.fer2013, task="expression"),
    "ferplus": Layout(miniatures.ferplus, task="expression"),
    "celeba": Layout(lambda root: miniatures.celeba(root, attributes()), task="attributes"),
    "celeba of Kaggle": Layout(
        lambda root: miniatures.celeba_kaggle(root, attributes()), task="attributes", name="celeba"
    ),
    "w300": Layout(miniatures.w300, task="alignment"),
    "wflw": Layout(miniatures.wflw, task="alignment"),
    "disfa": Layout(miniatures.disfa, task="action_units", overrides=SHARES),
    "bp4d": Layout(miniatures.bp4d, task="action_units", overrides=SHARES),
    "mpiifacegaze": Layout(miniatures.mpiifacegaze, task="gaze", overrides=SHARES),
    "table": Layout(miniatures.table, task="attributes", overrides=OWN_TASK),
    "vggface2": Layout(miniatures.vggface2),
    "folder": Layout(miniatures.folder, overrides=SHARES),
    "flat folder": Layout(miniatures.flat_folder, overrides=SHARES, name="folder"),
    "webdataset": Layout(
        miniatures.webdataset, ALL + 2, overrides=("dataset.urls='{root}/faces-{{000000..000001}}.tar'",)
    ),
    "generated": Layout(nothing, 250, overrides=("dataset.images=250",)),
    "lfw": Layout(
        miniatures.lfw,
        task="verification",
        overrides=("benchmarks.lfw.root={root}", "transfer.pairs_file={root}/pairs.txt"),
    ),
    "orl": Layout(nothing, 400, task="alignment"),
}
WITHOUT_ROOT = {"webdataset", "generated", "lfw", "orl"}
WHOLE = ("w300", "table")
"""Sets on which the test runs the whole chain, to the report; with the others it ends with validation."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("layouts"))


def choose(name: str, workspace: Path, root: Path) -> Layout:
    """Makes the set in `root` and sets the parameters of the workspace."""
    layout = LAYOUTS[name]
    layout.make(root)
    overrides = [override.format(root=root) for override in layout.overrides]
    if (dataset := layout.name or name) not in WITHOUT_ROOT:
        overrides.append(f"dataset.root={root}")
    line = ("recipe=tiny", "train.batch_size=8", f"dataset={dataset}", *overrides)
    done = run(workspace, sys.executable, "-m", "pipelines.params", *line)
    assert done.returncode == 0, done.stdout
    return layout


def result_of(name: str, workspace: Path) -> dict[str, object]:
    folder = "artifacts/validation/lfw" if name == "lfw" else "artifacts/validation"
    found: dict[str, object] = json.loads((workspace / folder / "verdict.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_passes_validation(name: str, workspace: Path, tmp_path: Path) -> None:
    layout = choose(name, workspace, tmp_path / "set")
    stages = [] if name in WHOLE else ["benchmark@lfw" if name == "lfw" else "validate"]
    done = run(workspace, "dvc", "repro", *stages)
    assert done.returncode == 0, done.stdout
    result = result_of(name, workspace)
    assert result["success"] is True
    assert (result["rows"], result["quarantined"]) == (layout.images, 0)
    if name in WHOLE:
        check_task(str(layout.task), name, workspace)


def check_task(task: str, name: str, workspace: Path) -> None:
    """The task was learnt on the set, its subsets are evaluated, and the report was written."""
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    groups = [column.removeprefix("group.") for column in params["transfer"]["groups"].get(task, ())]
    results = pd.read_csv(workspace / f"artifacts/transfer/{task}/results.csv")
    assert params["tasks"][task]["dataset"] == params["dataset"]["name"]
    assert len(groups) == 1
    assert {f"{groups[0]}=0", f"{groups[0]}=1"} <= set(results["group"].dropna())
    assert (workspace / "artifacts/report/index.html").is_file()


def test_every_adapter_has_a_miniature() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} - {"synthetic"} == {  # it is drawn, so has no layout
        layout.name or name for name, layout in LAYOUTS.items()
    }
