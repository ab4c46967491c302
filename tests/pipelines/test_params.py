from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from support.serving import commit
from support.workspace import run

from pipelines import params, validate
from pipelines.overrides import expand_home
from pipelines.sections import (
    COMPARED,
    DERIVED,
    FAMILIES,
    RENAMED,
    SECTIONS,
    ParamsError,
    defaults,
    listing,
    resolve,
)

ROOT = Path(__file__).parents[2]


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


def test_without_overrides_the_files_are_those_of_the_repository(conf: Path, tmp_path: Path) -> None:
    params.choose(["recipe=tiny"], tmp_path / "params.yaml", conf)
    params.choose([], tmp_path / "params.yaml", conf)
    for name in ("pipelines/conf/project.yaml", "params.yaml"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()


RECIPES = sorted(path.stem for path in (ROOT / "pipelines/conf/recipe").glob("*.yaml"))


@pytest.mark.parametrize(
    "chosen",
    [
        *(
            pytest.param([f"recipe={recipe}"], marks=() if recipe == "tiny" else pytest.mark.slow)
            for recipe in RECIPES
        ),
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


@pytest.mark.parametrize(
    "overrides", [["dataset=synthetic", "ruler=synthetic"], ["dataset=generated", "dataset.name=orl"]]
)
def test_a_set_that_two_stages_would_write_is_refused(
    overrides: list[str], conf: Path, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError, match="whose files two stages would write: pre-train on another one"):
        params.choose(overrides, tmp_path / "params.yaml", conf)
    params.choose(["dataset=generated", "ruler=synthetic"], tmp_path / "params.yaml", conf)


def test_a_set_that_validation_does_not_depend_on_is_refused(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its test images could be trained on: without the edge, validation may run before the set is there."""
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["validate"]["deps"]
    names = [f"tasks.{task}.dataset" for task in COMPARED]
    assert {f"data/shards/${{{name}}}/index.json" for name in [*names, "ruler.name"]} <= set(deps)
    path = tmp_path / "params.yaml"
    gaze = ["+benchmarks.mine={name: mine, adapter: table, root: /data}", "+tasks.gaze.dataset=mine"]
    gaze.append("+tasks.gaze.validation=artifacts/validation/mine")
    with pytest.raises(ParamsError, match=r"^tasks\.gaze\.dataset is mine, .* Add ruler\.name=mine"):
        params.choose(gaze, path, conf)
    params.choose([*gaze, "ruler.name=mine"], path, conf)
    chosen = yaml.safe_load(path.read_text())
    chosen["ruler"]["name"] = "orl"  # as `dvc exp run -S` may write it, without the check above
    path.write_text(yaml.safe_dump(chosen))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["validate"])
    with pytest.raises(ParamsError, match=r"Add ruler\.name=mine"):
        validate.validate()


def test_what_cannot_be_kept_is_refused(conf: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    params.choose(["dataset=folder"], path, conf)
    before = path.read_text(), (conf / "project.yaml").read_text()
    for override, message in {
        "~transfer.baselines.released": "cannot be kept",
        "model.num_mask=16": r"model\.num_mask",
        "train.lr=-1": r"^train\.lr: must be greater than or equal to 0, got -1$",
        "train.epochs=many": r"^train\.epochs: must be a valid integer, got 'many'$",
        "train.epochs=a#b": r"^train\.epochs: must be a valid integer, got 'a#b'$",
        "train.batch_size=1": r"^train: batch_size 1 .* leaves one image .*: raise batch_size",
        "train.accumulation_steps=44": r"^train: batch_size 44 .* leaves one image .* lower accumulation_steps",
        "train.accumulation_steps=3": r"^train: batch_size 44 cannot be split into accumulation_steps 3",
        "train.region_start_epoch=99": r"^train: region_start_epoch must be less than epochs \(20\), got 99",
        "transfer.finetune.batch_size=1": r"^transfer\.finetune\.batch_size: must be greater than or equal to 2",
        "views.crop_scale=[0.9,0.2]": r"^views\.crop_scale: the smaller number must be first, got \[0\.9, 0\.2\]",
        "+transfer.labels.age=[old]": r"^transfer\.labels\.age\.\[key\]: there is no task 'age'; choose of ",
        "dataset.only=no/list.txt": r"^dataset\.only=no/list\.txt: no such list of keys in .*: write it",
        "dataset.name=a/b": r"^dataset: name is 'a/b': use letters",
        "+nosuch.x=1": r"^'\+nosuch.x=1': no stage reads 'nosuch'; sections are dataset, ",
        "+data.batches=7": r"^data\.batches: no such parameter",
        "train.weight_decay=nan": r"^train\.weight_decay: must be a finite number, got nan",
        "views.mean=[0.5,inf,0.5]": r"^views\.mean\.1: must be a finite number",
        "+benchmarks.mine.nosuch=1": r"^benchmarks\.mine\.nosuch: no such parameter",
    }.items():
        with pytest.raises(ParamsError, match=message):
            params.choose([override], path, conf)
    assert (path.read_text(), (conf / "project.yaml").read_text()) == before


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the project's code and DVC settings."""
    for name in ("fra", "pipelines", ".dvc"):
        ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.local")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    return tmp_path


def test_an_experiment_starts_from_the_overrides_of_the_project(project: Path) -> None:
    """Through DVC itself: the user's data set, with a path that Hydra's grammar does not take, stays chosen."""
    root = "/d/O'Brien's faces [2024] (1) a#b=c 新"
    chosen = ["dataset=folder", "dataset.name=mine", f"dataset.root={root}", "recipe=tiny"]
    params.choose(chosen, project / "params.yaml", project / "pipelines/conf")
    stage = {"cmd": "cp params.yaml seen.yaml", "params": ["dataset", "model"], "outs": ["seen.yaml"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"look": stage}}))
    commit(project)
    done = run(project, "dvc", "exp", "run", "-S", "model.num_masks=16", "-S", "objective=byol")
    assert done.returncode == 0, done.stdout
    seen = yaml.safe_load((project / "seen.yaml").read_text())
    assert (seen["dataset"]["name"], seen["model"]["num_masks"]) == ("mine", 16)
    assert seen["dataset"]["root"] == root
    assert seen["objective"]["region_weight"] == 0
    assert seen["train"] == yaml.safe_load((project / "params.yaml").read_text())["train"]
    done = run(project, "dvc", "exp", "run", "-S", "train.explosion=5")
    assert done.returncode != 0
    assert "ERROR: train.explosion has been renamed: use train.max_loss_ratio" in done.stdout


def test_each_part_of_params_yaml_is_chosen_or_known_to_follow() -> None:
    parts = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(parts) == {*SECTIONS, *FAMILIES, *DERIVED}
    assert "follows from other parameters" in next(listing("measured"))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("name", "dotted"), SECTIONS.items())
def test_every_recipe_fits_the_code(recipe: str, name: str, dotted: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    params.compose([f"recipe={recipe}"], path)
    cls = resolve(dotted)
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
        params.section(name, resolve(dotted), path)


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
        ("num_masks", "many", r"model.num_masks: must be a valid integer, got 'many'"),
        ("num_masks", 8.5, "model.num_masks"),
        ("num_masks", True, "model.num_masks"),
        ("num_masks", 0, "model.num_masks: must be greater than 0, got 0"),
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
        params.section("model", resolve(SECTIONS["model"]), path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing: run `python -m pipelines.params`"),
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
        params.section("model", resolve(SECTIONS["model"]), path)


@pytest.mark.parametrize(("former", "present"), RENAMED.items())
def test_a_former_name_is_answered_with_the_present_one(former: str, present: str, tmp_path: Path) -> None:
    name, _, value = former.partition("=")
    section, _, key = name.partition(".")
    with pytest.raises(ParamsError, match=f"{former} has been renamed: use {present}$"):
        params.choose([f"{name}={value or 2}"], tmp_path / "params.yaml")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content[section][key] = value or 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=f"{former} has been renamed: use {present}$"):
        params.section(section, resolve(SECTIONS[section]), tmp_path / "params.yaml")
    new = present.partition("=")[0]
    assert new.partition(".")[2] in {field.name for field in dataclasses.fields(resolve(SECTIONS[section]))}


FOLDERS = [
    "/d/My Faces (1)",
    "/d/新加卷",
    "/d/O'Brien",
    '/d/the "best"',
    "/d/a#b",
    "/d/a=b",
    "/d/a,b",
    "/d/[2024] {x}",
    "/d/a: b & c; d",
    "/d/back\\slash\\",
    "/d/it\\'s",
    "/d/100%~",
    "2024",
    "on",
    "/d/${dataset.name} (1)",
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_path_is_a_value(folder: str, conf: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    wanted = folder.replace("${dataset.name}", "mine")
    chosen = [
        "dataset=folder",
        "dataset.name=mine",
        f"dataset.root={folder}",
        f"+transfer.baselines.b={folder}",
    ]
    params.choose(chosen, path, conf)
    for values in (params.read(path), yaml.safe_load(path.read_text())):
        assert values["dataset"]["root"] == wanted
        assert values["transfer"]["baselines"]["b"] == wanted
    params.compose(["model.num_masks=16"], path, conf, "project")  # as `dvc exp run -S model.num_masks=16`
    assert params.read(path)["dataset"]["root"] == wanted


def test_the_home_folder_is_expanded(conf: Path, tmp_path: Path) -> None:
    params.choose(["dataset.root=~/my faces"], tmp_path / "params.yaml", conf)
    assert params.read(tmp_path / "params.yaml")["dataset"]["root"] == str(Path.home() / "my faces")


@pytest.mark.parametrize("key", ["root", "urls"])
def test_the_home_folder_is_expanded_in_an_edited_file(key: str, conf: Path, tmp_path: Path) -> None:
    """Or in one that `dvc exp run -S "dataset.root='~/faces'"` writes; without the inner quotes, Hydra refuses it."""
    path = tmp_path / "params.yaml"
    params.compose([f"dataset.{key}='~/faces'"], path, conf)
    assert params.read(path)["dataset"][key] == "~/faces"
    assert getattr(params.section("dataset", resolve(SECTIONS["dataset"]), path), key) == str(
        Path.home() / "faces"
    )


def test_text_that_only_looks_like_a_home_folder_is_kept() -> None:
    values = {"a": ["~no-such-user-here/x", "x~/y"], "b": {"c": "https://host//x"}, "d": 1}
    assert expand_home(values) == values


def test_a_command_adds_overrides_to_those_of_the_project(conf: Path, tmp_path: Path) -> None:
    """As a shell runs it."""
    path = tmp_path / "params.yaml"
    chosen = [
        "recipe=paper",
        "dataset=folder",
        "dataset.name=mine",
        "dataset.root=/d/it's $HOME (1)",
        "+transfer.baselines.il=~/il.st",
        "+tasks.mine={dataset: orl, validation: artifacts/a b}",
        "transfer.protocols=[finetune, linear]",
        "train.lr=1e-5",
        "dataset.urls=null",
        "+validate.severities={not blurred: warn}",
    ]
    params.choose(chosen, path, conf)
    kept = yaml.safe_load((conf / "project.yaml").read_text())
    assert params.command_with(conf=conf).startswith(
        "python -m pipelines.params recipe=paper dataset=folder dataset.name=mine"
    )
    command = shlex.split(params.command_with("+validate.severities={not tiny: warn}", conf=conf))
    params.choose(command[3:], path, conf)
    again = yaml.safe_load((conf / "project.yaml").read_text())
    assert again["validate"].pop("severities") == {"not blurred": "warn", "not tiny": "warn"}
    kept["validate"].pop("severities")
    assert again == kept


def test_add_keeps_earlier_overrides_and_dropped_ones_are_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    params.main(["dataset=folder", "dataset.name=mine", "dataset.root=/d", "train.epochs=3"])
    params.main(["--add", "probe=knn", "train.epochs=4"])
    params.main(["--add", "probe=none", "dataset.name=yours"])
    assert capsys.readouterr().err == ""
    values = params.read()
    assert (values["dataset"]["name"], values["dataset"]["root"]) == ("yours", "/d")
    assert (values["train"]["epochs"], values["probe"]["labels"]) == (4, [])
    params.main(["train.epochs=5"])
    assert capsys.readouterr().err == (
        "dropped from the overrides (--add keeps them): "
        "dataset=folder probe=none dataset.name=yours dataset.root=/d\n"
    )


def test_null_is_no_text(conf: Path, tmp_path: Path) -> None:
    params.choose(["dataset=folder", "dataset.root=null"], tmp_path / "params.yaml", conf)
    assert params.read(tmp_path / "params.yaml")["dataset"]["root"] is None


def test_a_text_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, parsed = tmp_path / "params.yaml", []
    load = yaml.load
    monkeypatch.setattr(yaml, "load", lambda *given: parsed.append(1) or load(*given))
    for rate in (1, 2):
        path.write_text(f"train: {{lr: {rate}}}  # {tmp_path}")
        for _ in range(3):
            values = params.read(path)
            assert values["train"]["lr"] == rate
            values["train"]["lr"] = None  # the caller's own copy
    assert len(parsed) == 2


def test_config_yaml_repeats_no_default() -> None:
    repeated = yaml.safe_load((ROOT / "pipelines/conf/config.yaml").read_text())
    for name, values in defaults().items():
        same = {key for key, value in repeated.get(name, {}).items() if values.get(key) == value}
        assert same == set(), name


def test_the_tasks_are_those_of_transfer() -> None:
    from fra.transfer import config
    from fra.transfer.tasks import table

    assert tuple(table.TASKS) == config.TASKS
    heads = {head for task in table.TASKS.values() if task.probe for head in task.probe.heads}
    with pytest.raises(ValueError, match=" or ".join(f"'{name}'" for name in ("knn", "finetune"))):
        config.TransferConfig(protocols=("none",))
    assert config.TransferConfig(protocols=(*sorted(heads), "finetune"))


@pytest.mark.parametrize("name", [*SECTIONS, *FAMILIES])
def test_every_parameter_is_described(name: str) -> None:
    for line in listing(name):
        parameter, _, meaning = line.partition("\n    ")
        assert parameter.startswith(f"{name}.")
        assert meaning.endswith("."), parameter


def test_a_backbone_of_a_fixed_size_is_refused_before_anything_runs(conf: Path, tmp_path: Path) -> None:
    name = ["recipe=demo-scratch", "model.backbone=timm:levit_128s"]
    with pytest.raises(
        ParamsError,
        match=r"levit_128s does not accept images of 64×64 pixels .*: set data\.image_size to one of 224, or",
    ):
        params.choose(name, tmp_path / "params.yaml", conf)
    params.choose([*name, "data.image_size=224"], tmp_path / "params.yaml", conf)
    other = ["recipe=demo-scratch", "model.backbone=timm:test_efficientnet"]
    with pytest.raises(
        ParamsError, match=r"train\.layer_decay is 0\.8, but the layers of timm:test_eff.* set it to 1"
    ):
        params.choose([*other, "train.layer_decay=0.8"], tmp_path / "params.yaml", conf)
    with pytest.raises(
        ParamsError, match=r"train\.gradient_checkpointing: timm:test_efficientnet has batch norms"
    ):
        params.choose([*other, "train.gradient_checkpointing=true"], tmp_path / "params.yaml", conf)


def test_weights_of_another_backbone_are_refused_before_anything_runs(conf: Path, tmp_path: Path) -> None:
    message = "model.backbone is resnet50, but the weights of train.init=demo are those of mini: add train.init=null"
    with pytest.raises(ParamsError, match=message):
        params.choose(["model=resnet50"], tmp_path / "params.yaml", conf)
    params.choose(["model=resnet50", "recipe=demo-scratch"], tmp_path / "params.yaml", conf)
