"""params.yaml: composed by Hydra, validated by the dataclass of each section.

Defaults and ranges are declared in these dataclasses; `pipelines/conf` holds the groups (data sets, networks,
objectives, recipes) that change several parameters at once. The overrides of `python -m pipelines.params` are kept
in `pipelines/conf/project.yaml`, from which `dvc exp run -S …` starts.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import shutil
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from fra.files import write_text
from pipelines.overrides import check_override, check_renamed, expand_home, kept, quote
from pipelines.sections import (
    BACKBONE_CHECK,
    FAMILIES,
    INIT_CHECK,
    SECTIONS,
    ParamsError,
    check_lists,
    check_task_sets,
    listing,
    resolve,
)

PARAMS = Path("params.yaml")
CONF = Path("pipelines/conf")
PROJECT = "project.yaml"
"""In `CONF`: the overrides, as the configuration that Hydra starts from (`hydra.config_name` in .dvc/config)."""
EXAMPLES = """examples:
  python -m pipelines.params                                        the demo: released weights, adapted to photographs
  python -m pipelines.params recipe=demo-scratch                    the same faces from random weights
  python -m pipelines.params recipe=tiny                            a test run of seconds
  python -m pipelines.params dataset=folder dataset.name=mine dataset.root=~/faces
                                                                    your own photographs
  python -m pipelines.params recipe=paper model=resnet50 dataset=vggface2 dataset.root=/data/vggface2/train
  python -m pipelines.params train.epochs=20 train.lr=5e-4 'transfer.fractions=[0.1, 1.0]'
  python -m pipelines.params +transfer.baselines.imagenet=data/baselines/imagenet.safetensors
                                                                    "+" adds a name that is not in params.yaml
  python -m pipelines.params --list train                           the parameters of a section

Each call starts from the defaults and drops earlier overrides; --add keeps them:
  python -m pipelines.params --add train.epochs=20
To change a parameter for one run:
  dvc exp run -S train.epochs=20
"""
T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Reads YAML without aliases, by which a small file can become a huge one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ParamsError(
                "has YAML aliases (*name), which can make a small file huge: write the values out"
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def read(path: Path = PARAMS) -> dict[str, Any]:
    """Returns all of params.yaml; a text is parsed once per process.

    Raises:
        ParamsError: The file is missing, is not YAML, has aliases or holds no sections.
    """
    try:
        return copy.deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ParamsError(f"{path}: missing: run `python -m pipelines.params`") from None
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ParamsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=4)
def _parsed(text: str) -> dict[str, Any]:
    content = yaml.load(text, _Loader)  # a SafeLoader
    if not isinstance(content, dict):
        raise ParamsError("holds no sections: run `python -m pipelines.params`")
    return content


def section(name: str, cls: type[T], path: Path = PARAMS) -> T:
    """Returns a section of params.yaml as its dataclass.

    Args:
        name: Name of the section, such as "train" or "benchmarks.orl".
        cls: The dataclass.
        path: The file.

    Raises:
        ParamsError: The section is missing, or a parameter is unknown, missing, of a wrong type or out of range.
    """
    try:
        return parse(name, cls, subsection(name, read(path)))
    except ParamsError as error:
        prefix = f"{path}: "
        raise ParamsError(f"{prefix}{str(error).removeprefix(prefix)}") from None


def subsection(name: str, values: Any) -> Any:
    """Returns the values of a section, such as "benchmarks.orl"; raises ParamsError where it is missing."""
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            raise ParamsError(f"has no section {name!r}: run `python -m pipelines.params`")
        values = values[part]
    return values


def parse(name: str, cls: type[T], values: Any) -> T:
    """Returns the values of the section `name` as its dataclass; "~" at the start of a text is expanded.

    Raises:
        ParamsError: As `section` does.
    """
    for key, value in values.items() if isinstance(values, dict) else ():
        check_renamed(f"{name}.{key}", value)
    try:  # as JSON, in which strict validation takes a list for a tuple
        return TypeAdapter(cls).validate_json(json.dumps(expand_home(values), default=str), strict=True)
    except ValidationError as error:
        raise ParamsError(describe(error, name)) from None


def describe(error: ValidationError, name: str) -> str:
    """Returns what pydantic found in the section `name`, in one line."""
    return "; ".join(_describe(found, name) for found in error.errors())


def _describe(found: ErrorDetails, name: str) -> str:
    key = ".".join((name, *map(str, found["loc"])))
    if found["type"] == "unexpected_keyword_argument":
        return f"{key}: no such parameter (`python -m pipelines.params --list {name}` lists them)"
    if found["type"] == "missing":
        return f"{key}: missing: run `python -m pipelines.params`"
    message = str(found["ctx"]["error"]) if found["type"] == "value_error" else found["msg"]
    message = message.replace("Input should be", "must be", 1)
    of_section = not found["loc"] and found["type"] == "value_error"  # the message has the values
    return f"{key}: {message}" if of_section else f"{key}: {message}, got {found['input']!r}"


def compose(overrides: list[str], path: Path = PARAMS, conf: Path = CONF, name: str = "config") -> None:
    """Writes the composition of the configuration `name` and the overrides to `path`.

    Raises:
        ParamsError: An override does not fit the configuration, or would read more than parameters.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not conf.is_dir():
        raise ParamsError(f"{conf}: no such folder in {Path.cwd()}: go to the project's root first")
    for override in overrides:
        check_override(override)
    try:
        compose_and_dump(path, str(conf.resolve()), None, name, str(conf.resolve()), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ParamsError(f"{' '.join(overrides)}: {' '.join(str(error).split())}") from None


def check_sections(overrides: list[str], path: Path, conf: Path) -> None:
    """Validates the sections of `path` that overrides change, as their stages will, perhaps hours later.

    Raises:
        ParamsError: A value has the wrong type or is out of range, no stage reads it, the backbone does not take images
            of data.image_size, train.init has another backbone, a list of keys is missing, or validation does not
            depend on the set of a task.
    """
    classes = {}
    for override in overrides:
        key = name_of(override)
        section, _, rest = key.partition(".")
        if (conf / key).is_dir():
            continue  # a group's choice
        if section in SECTIONS:
            classes[section] = SECTIONS[section]
        elif section in FAMILIES and rest:
            classes[f"{section}.{rest.partition('.')[0]}"] = FAMILIES[section]
        elif override.startswith("+"):
            raise ParamsError(
                f"{override!r}: no stage reads {section!r}; sections are {', '.join([*SECTIONS, *FAMILIES])}"
            )
    values = read(path)
    for name, dotted in classes.items():
        parse(name, resolve(dotted), subsection(name, values))
    check_names(values)
    check_task_sets(values)
    check_lists(values["dataset"], values["benchmarks"])
    check_init(values["train"]["init"], values["model"]["backbone"])
    name, train = str(values["model"]["backbone"]), values["train"]
    if name.startswith("timm:"):  # many of timm's models take images of one size only
        check_backbone = resolve(BACKBONE_CHECK)
        try:
            check_backbone(
                name, values["data"]["image_size"], train["layer_decay"], train["gradient_checkpointing"]
            )
        except ValueError as error:
            raise ParamsError(str(error)) from None


def check_names(values: dict[str, Any]) -> None:
    """Raises ParamsError if the set to pre-train on is one of `benchmarks` too: two stages would write its files."""
    name = values["dataset"]["name"]
    if name in (values.get("benchmarks") or {}):
        raise ParamsError(
            f"dataset.name is {name}, and benchmarks.{name} is the same set, whose files two stages would write: "
            f"pre-train on another one (dataset=generated), or leave out what adds the benchmark (as ruler={name})"
        )


def choose(overrides: list[str], path: Path = PARAMS, conf: Path = CONF) -> None:
    """Writes params.yaml from the defaults and the overrides, and keeps these in `PROJECT` for `dvc exp run -S …`.

    Args:
        overrides: Groups (`recipe=tiny`) and parameters (`train.epochs=20`); text needs no quotes (see `quote`).
        path: params.yaml.
        conf: Folder of the configuration.

    Raises:
        ParamsError: An override does not fit, is out of range, or cannot be kept (a removal). No file is changed.
    """
    for override in overrides:
        check_override(override)
    overrides = [quote(override) for override in overrides]
    with TemporaryDirectory() as folder:
        trial, wanted, kept = (Path(folder) / name for name in ("conf", "wanted.yaml", "kept.yaml"))
        compose(overrides, wanted, conf)
        check_sections(overrides, wanted, conf)
        shutil.copytree(conf, trial)
        (trial / PROJECT).write_text(as_project(overrides, conf), encoding="utf-8")
        compose([], kept, trial, Path(PROJECT).stem)
        if kept.read_text(encoding="utf-8") != wanted.read_text(encoding="utf-8"):
            raise ParamsError(
                f"{' '.join(overrides)}: cannot be kept in {conf / PROJECT}, which adds and changes values but removes "
                "none: change the group's file, or give it to each `dvc exp run -S`"
            )
        write_text((trial / PROJECT).read_text(encoding="utf-8"), conf / PROJECT)
        write_text(kept.read_text(encoding="utf-8"), path)


def check_init(init: str | None, backbone: str) -> None:
    """Raises ParamsError if the released weights that training is to start from have another backbone."""
    names, backbone_of = map(resolve, INIT_CHECK)
    if init in names() and (stored := backbone_of(init)) != backbone:
        raise ParamsError(
            f"model.backbone is {backbone}, but the weights of train.init={init} are those of {stored}: add "
            "train.init=null or recipe=demo-scratch, to start from random weights"
        )


def command_with(*overrides: str, conf: Path = CONF) -> str:
    """Returns the shell command that adds overrides to those of the project."""
    return shlex.join(["python", "-m", "pipelines.params", *added(overrides, conf)])


def chosen(conf: Path = CONF) -> list[str]:
    """Returns the overrides of the project, as users write them; none without a file of them."""
    try:
        content = yaml.safe_load((conf / PROJECT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    groups = content.pop("defaults")
    return kept(content, groups)


def added(overrides: Iterable[str], conf: Path = CONF) -> list[str]:
    """Returns the overrides of the project, then the given ones: later values count, and dictionaries are merged."""
    overrides = list(overrides)
    groups = {name for override in overrides if (conf / (name := name_of(override))).is_dir()}
    return [override for override in chosen(conf) if name_of(override) not in groups] + overrides


def name_of(override: str) -> str:
    """Returns the group or parameter that an override sets."""
    return override.partition("=")[0].lstrip("+")


def as_project(overrides: list[str], conf: Path = CONF) -> str:
    """Returns the text of `PROJECT`: groups in its defaults list, single values below."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    groups: list[Any] = []
    values = OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(overrides):
        if (conf / override.key_or_group).is_dir():
            groups.append({f"override /{override.key_or_group}": override.value()})
        elif not override.is_delete():
            OmegaConf.update(values, override.key_or_group, override.value(), force_add=True)
    # `_self_` precedes the groups' names, which Hydra wants last; values count after what `config` composes.
    chosen = OmegaConf.merge({"defaults": ["config", "_self_", *groups]}, values)
    return (
        "# The overrides given to `python -m pipelines.params`; `dvc exp run -S …` starts from them.\n"
        + OmegaConf.to_yaml(chosen)
    )


def main(arguments: list[str] | None = None) -> None:
    """The command `python -m pipelines.params`; writes to the project in the current folder."""
    parser = argparse.ArgumentParser(
        "python -m pipelines.params",
        description="Write params.yaml from the defaults and the given overrides, after validating them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "override",
        nargs="*",
        metavar="OVERRIDE",
        help="GROUP=CHOICE (dataset, model, objective, probe, recipe: see pipelines/conf) or SECTION.NAME=VALUE",
    )
    parser.add_argument(
        "--add", action="store_true", help="keep the overrides of earlier calls, and add these to them"
    )
    parser.add_argument(
        "--list",
        metavar="SECTION",
        help="print the parameters of a section with defaults and ranges, and exit",
    )
    options = parser.parse_args(arguments)
    try:
        if options.list:
            print(*listing(options.list), sep="\n")
            return
        before = chosen()
        choose(added(options.override) if options.add else options.override)
    except ParamsError as error:
        sys.exit(f"error: {error}")
    names = {name_of(override) for override in chosen()}
    if dropped := [override for override in before if name_of(override) not in names]:
        print(f"dropped from the overrides (--add keeps them): {shlex.join(dropped)}", file=sys.stderr)


if __name__ == "__main__":
    main()
