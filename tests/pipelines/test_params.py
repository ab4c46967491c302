from __future__ import annotations

import dataclasses
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.serving import commit
from support.workspace import run

from pipelines import params
from pipelines.params import SECTIONS, ParamsError

ROOT = Path(__file__).parents[2]


def config_class(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_params_yaml_is_what_the_defaults_compose(tmp_path: Path) -> None:
    params.compose([], tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A project's own `pipelines/conf`, beside where its params.yaml will be."""
    return Path(shutil.copytree(ROOT / "pipelines/conf", tmp_path / "pipelines/conf"))


def test_nothing_is_chosen_at_first(conf: Path, tmp_path: Path) -> None:
    params.choose(["recipe=tiny"], tmp_path / "params.yaml", conf)
    params.choose([], tmp_path / "params.yaml", conf)
    for name in ("pipelines/conf/project.yaml", "params.yaml"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()


RECIPES = sorted(path.stem for path in (ROOT / "pipelines/conf/recipe").glob("*.yaml"))


@pytest.mark.parametrize(
    "chosen",
    [
        *([f"recipe={recipe}"] for recipe in RECIPES),
        ["recipe=weights", "dataset=folder", "dataset.name=mine", "dataset.root='/a b/${dataset.name}'"],
        [
            "recipe=paper",
            "+transfer.baselines.il=il.st",
            "transfer.protocols=[finetune, linear]",
            "train.lr=1e-3",
        ],
        ["+validate.severities={not blurred: warn}", "dataset.images=null", "probe=knn", "objective=byol"],
    ],
)
def test_what_was_chosen_is_kept(chosen: list[str], conf: Path, tmp_path: Path) -> None:
    path, again, wanted = (tmp_path / f"{name}.yaml" for name in ("params", "again", "wanted"))
    params.choose(chosen, path, conf)
    params.compose(chosen, wanted, conf)
    assert path.read_text() == wanted.read_text()
    # … and an experiment begins with it, in value and in group:
    for extra in ("model.num_masks=16", "objective=fra-small", "model=mini"):
        params.compose([extra], again, conf, "project")
        params.compose([*chosen, extra], wanted, conf)
        assert again.read_text() == wanted.read_text()


def test_what_cannot_be_kept_is_refused(conf: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    params.choose(["dataset=folder"], path, conf)
    before = path.read_text(), (conf / "project.yaml").read_text()
    for override, message in {
        "~transfer.baselines.released": "cannot be kept",
        "model.num_mask=16": r"model\.num_mask",
        "train.lr=-1": r"^train\.lr must not be negative",
        "train.epochs=many": r"^train\.epochs: input should be a valid integer, got 'many'",
        "dataset.root=7": r"^dataset\.root: ",
        "+nosuch.x=1": r"^'\+nosuch.x=1': no stage reads 'nosuch'; there are dataset, ",
        "+data.batches=7": r"^data\.batches: no such parameter",
        "train.weight_decay=nan": r"^train\.weight_decay: must be a finite number",
        "views.mean=[0.5,inf,0.5]": r"^views\.mean: must be a finite number",
        "tasks.expression.dataset=3": r"^tasks\.expression\.dataset: input should be a valid string, got 3",
        "+benchmarks.mine.nosuch=1": r"^benchmarks\.mine\.nosuch: no such parameter",
    }.items():
        with pytest.raises(ParamsError, match=message):
            params.choose([override], path, conf)
    assert (path.read_text(), (conf / "project.yaml").read_text()) == before


def test_an_experiment_begins_with_what_was_chosen(conf: Path, tmp_path: Path) -> None:
    """Through DVC itself: one's own faces are not left for the demo's because a number of masks is tried."""
    params.choose(["dataset=folder", "dataset.name=mine", "recipe=tiny"], tmp_path / "params.yaml", conf)
    shutil.copytree(
        ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "*.local")
    )
    stage = {"cmd": "cp params.yaml seen.yaml", "params": ["dataset", "model"], "outs": ["seen.yaml"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"look": stage}}))
    commit(tmp_path)
    done = run(tmp_path, "dvc", "exp", "run", "-S", "model.num_masks=16", "-S", "objective=byol")
    assert done.returncode == 0, done.stdout
    seen = yaml.safe_load((tmp_path / "seen.yaml").read_text())
    assert (seen["dataset"]["name"], seen["model"]["num_masks"]) == ("mine", 16)
    assert seen["objective"]["region_weight"] == 0
    assert seen["train"] == yaml.safe_load((tmp_path / "params.yaml").read_text())["train"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("name", "dotted"), SECTIONS.items())
def test_every_recipe_fits_the_code(recipe: str, name: str, dotted: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    params.compose([f"recipe={recipe}"], path)
    cls = config_class(dotted)
    params.section(name, cls, path)
    written = set(yaml.safe_load(path.read_text())[name])
    assert written == {field.name for field in dataclasses.fields(cls)}, "every number is in params.yaml"


@pytest.mark.parametrize(
    "override", ["objective=byol", "dataset=folder", "model=resnet50", "data.loader=webdataset", "probe=knn"]
)
def test_a_group_is_one_override(override: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    params.compose([override], path)
    for name, dotted in SECTIONS.items():
        params.section(name, config_class(dotted), path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_mask=16", "model.num_mask"),
        ("dataset=imagenet", "Available options in 'dataset'"),
        ("recipe=", "recipe"),
    ],
)
def test_an_override_that_does_not_fit_is_one_clear_error(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError, match=message) as error:
        params.compose([override], tmp_path / "params.yaml")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "params.yaml").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_masks", "many", r"model.num_masks: input should be a valid integer, got 'many'"),
        ("num_masks", 8.5, "model.num_masks"),
        ("num_masks", True, "model.num_masks"),
        ("num_masks", 0, "model.num_masks must be at least 1"),
        ("masks", 3, "model.masks: no such parameter"),
        ("dropout", None, "model.dropout"),
    ],
)
def test_a_wrong_value_names_key_and_value(key: str, value: object, message: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["model"][key] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=message):
        params.section("model", config_class(SECTIONS["model"]), path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not there"),
        ("{a: [", "not YAML"),
        ("[]", "holds no sections"),
        ("a: 1", "has no section 'model'"),
    ],
)
def test_a_broken_file_says_what_to_do(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ParamsError, match=message):
        params.section("model", config_class(SECTIONS["model"]), path)


@pytest.mark.parametrize(("former", "present"), params.RENAMED.items())
def test_a_former_name_is_answered_with_the_present_one(former: str, present: str, tmp_path: Path) -> None:
    name, _, value = former.partition("=")
    section, _, key = name.partition(".")
    with pytest.raises(ParamsError, match=f"{former} has been renamed: use {present}$"):
        params.choose([f"{name}={value or 2}"], tmp_path / "params.yaml")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content[section][key] = value or 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=f"{former} has been renamed: use {present}$"):
        params.section(section, config_class(SECTIONS[section]), tmp_path / "params.yaml")
    new = present.partition("=")[0]
    assert new.partition(".")[2] in {
        field.name for field in dataclasses.fields(config_class(SECTIONS[section]))
    }
