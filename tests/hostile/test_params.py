"""Parameters and overrides that would read more than parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fra.data.datasets.records import DatasetConfig
from pipelines import params
from pipelines.flows.sweep import combinations
from pipelines.lineage.checks import lock
from pipelines.sections import ParamsError

ROOT = Path(__file__).parents[2]
SECRET = "swordfish"


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FRA_SECRET", SECRET)


@pytest.mark.parametrize(
    "override",
    [
        "dataset.root=${oc.env:FRA_SECRET}",
        "dataset.root='${oc.env:FRA_SECRET}'",
        "dataset.root=${ oc.env : FRA_SECRET }",
        "dataset.root=${oc.decode:${oc.env:FRA_SECRET}}",
        "dataset.root=${${dataset.name}:FRA_SECRET}",
        "dataset.root=${hydra:runtime.cwd}",
        "dataset.root=${oc.create:{a:1}}",
        "+dataset.x=${oc.env:HOME,nothing}",
        "dataset.root=\\${oc.env:FRA_SECRET}",
    ],
)
def test_resolvers_are_not_run(override: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="only other parameters can be referred to") as error:
        params.compose([override], tmp_path / "params.yaml")
    assert SECRET not in str(error.value)
    assert not (tmp_path / "params.yaml").exists()
    with pytest.raises(ParamsError):
        combinations([override])


def test_other_parameters_can_be_referred_to(tmp_path: Path) -> None:
    params.compose(["dataset.root=/faces/${dataset.name}"], tmp_path / "params.yaml")
    assert params.read(tmp_path / "params.yaml")["dataset"]["root"] == "/faces/orl"


@pytest.mark.parametrize(
    "override", ["hydra.searchpath=[file:///etc]", "+hydra.run.dir=/", "hydra/launcher=basic"]
)
def test_hydras_own_settings_are_no_parameters(override: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="Hydra's own settings are no parameters"):
        params.compose([override], tmp_path / "params.yaml")


@pytest.mark.parametrize("name", ["train.lr;id", "train.lr $(id)", "a b", "", "`id`", "x\ny"])
def test_a_name_is_a_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="not of the form NAME=VALUE"):
        params.compose([f"{name}=1"], tmp_path / "params.yaml")


def test_a_sweep_takes_no_mapping() -> None:
    """Its keys would become words of a command in dvc.yaml."""
    with pytest.raises(ValueError, match="contains a mapping"):
        combinations(["benchmarks={'x; id':{}}"])


def test_interpolations_in_params_yaml_stay_text(tmp_path: Path) -> None:
    """The file is data: nothing in it is looked up when a stage reads it."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["dataset"]["root"] = "${oc.env:FRA_SECRET}"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    assert params.section("dataset", DatasetConfig, tmp_path / "params.yaml").root == "${oc.env:FRA_SECRET}"


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (tmp_path / "params.yaml").write_text("\n".join([*lines, "dataset: *a9"]))
    with pytest.raises(ParamsError, match="has YAML aliases"):
        params.section("dataset", DatasetConfig, tmp_path / "params.yaml")
    (problem,) = lock.graph({}, tmp_path, complete=True)
    assert "has YAML aliases" in problem.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: !!python/object/apply:os.system [id]", "not YAML: could not determine a constructor"),
        (b"a: " + b"[" * 5_000, "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (json.dumps({"dataset": {"name": "../../x"}}).encode(), "use letters, digits"),
    ],
)
def test_yaml_that_would_do_more_is_one_clear_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=message) as error:
        params.section("dataset", DatasetConfig, tmp_path / "params.yaml")
    assert "\n" not in str(error.value)
