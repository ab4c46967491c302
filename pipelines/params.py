"""params.yaml: composed by Hydra from `pipelines/conf`, checked against the dataclass that uses each section.

python -m pipelines.params [OVERRIDE…]    write params.yaml, e.g. `python -m pipelines.params recipe=paper`

The overrides are kept in `pipelines/conf/project.yaml`, with which `dvc exp run -S …` begins: what was chosen once need not
be said again with every experiment.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from fra.files import write_text

PARAMS = Path("params.yaml")
CONF = Path("pipelines/conf")
PROJECT = "project.yaml"
"""In `CONF`: what was chosen, as the configuration that Hydra starts from (`hydra.config_name` in .dvc/config)."""
NAME = re.compile(r"[+~]{0,2}[A-Za-z0-9_./@-]+")
"""What may stand before the "=" of an override."""
REFERENCE = re.compile(r"\$\{\.*[A-Za-z0-9_.]+\}")
"""Another parameter's value, as `${dataset.name}`."""
SECTIONS = {
    "dataset": "fra.data.datasets.records.DatasetConfig",
    "shard": "fra.data.shards.config.ShardConfig",
    "validate": "fra.validation.config.ValidateConfig",
    "data": "fra.data.loader.config.DataConfig",
    "views": "fra.data.views.views.ViewsConfig",
    "model": "fra.method.networks.ModelConfig",
    "objective": "fra.method.networks.ObjectiveConfig",
    "train": "fra.train.config.TrainConfig",
    "probe": "fra.train.probe.ProbeConfig",
    "transfer": "fra.transfer.evaluate.TransferConfig",
}
"""The dataclass of each section, by name: a stage depends on the code of its own sections alone."""
FAMILIES = {"benchmarks": SECTIONS["dataset"], "tasks": "pipelines.transfer.TaskConfig"}
"""… and of each part of a section that has parts, as `benchmarks.celeba`."""
RENAMED = {
    "train.trust": "train.trust_coefficient",
    "train.accumulate": "train.accumulation_steps",
    "train.explosion": "train.max_loss_ratio",
    "train.region_start": "train.region_start_epoch",
    "train.region_init": "train.mask_init",
    "data.order=nearby": "data.order=chunk_shuffle",
    "shard.raw_bytes": "shard.smart_threshold",
    "shard.runner": "shard.executor",
}
"""Former names of parameters, and `name=value` of values, with the present ones."""
T = TypeVar("T")


class ParamsError(ValueError):
    """params.yaml or an override is not what the code understands; the message names key, value and what is right."""


def read(path: Path = PARAMS) -> dict[str, Any]:
    """All of params.yaml. Raises `ParamsError`."""
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ParamsError(
                f"{path}: has YAML aliases (*name), by which a small file becomes huge: write it out"
            )
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise ParamsError(f"{path}: not there: run `python -m pipelines.params`") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ParamsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: holds no sections: run `python -m pipelines.params`")
    return content


def section(name: str, cls: type[T], path: Path = PARAMS) -> T:
    """The section `name` ("train", "benchmarks.orl") as a `cls`, every key known and of the right type.

    Raises:
        ParamsError: the section is missing, or a key is unknown, missing its type, or out of range.
    """
    try:
        return parse(name, cls, under(name, read(path)))
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None


def under(name: str, values: Any) -> Any:
    """What is under `name`, as "benchmarks.orl". Raises `ParamsError` where there is nothing."""
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            raise ParamsError(f"has no section {name!r}: run `python -m pipelines.params`")
        values = values[part]
    return values


def parse(name: str, cls: type[T], values: Any) -> T:
    """The section `name` from its `values`; as `section`, but for the file's name in the error."""
    if strange := unknown(cls, values, name):
        check_renamed(strange[0])
        raise ParamsError(f"{strange[0]}: no such parameter")
    for key, value in values.items():
        check_renamed(f"{name}.{key}", value)
    if endless := infinite(values, name):
        raise ParamsError(f"{endless[0]}: must be a finite number")
    try:
        return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ParamsError("; ".join(explain(name, found) for found in error.errors())) from None


def check_renamed(name: str, value: object = None) -> None:
    """Raises `ParamsError` with the present name for a parameter, or a parameter's value, that was renamed."""
    for former in (name, f"{name}={value}"):
        if former in RENAMED:
            raise ParamsError(f"{former} has been renamed: use {RENAMED[former]}")


def unknown(cls: Any, values: Any, name: str) -> list[str]:
    """The keys in `values` that the dataclass `cls`, or one inside it, does not have."""
    if not (dataclasses.is_dataclass(cls) and isinstance(values, dict)):
        return []
    types = get_type_hints(cls)
    found = [f"{name}.{key}" for key in values if key not in types]
    return found + [
        strange
        for key, value in values.items()
        if key in types
        for strange in unknown(types[key], value, f"{name}.{key}")
    ]


def infinite(values: Any, name: str) -> list[str]:
    """The keys in `values` of numbers that are infinite, or none (NaN)."""
    if isinstance(values, dict):
        return [key for part, value in values.items() for key in infinite(value, f"{name}.{part}")]
    if isinstance(values, list):
        return [key for value in values for key in infinite(value, name)]
    return [name] if isinstance(values, float) and not math.isfinite(values) else []


def explain(name: str, found: Any) -> str:
    """One pydantic finding in one line: which key, which value, what is wrong with it."""
    if found["type"] == "value_error":  # raised by the dataclass itself, which names key and value
        return str(found["ctx"]["error"])
    key = ".".join((name, *map(str, found["loc"])))
    return f"{key}: {found['msg'][0].lower()}{found['msg'][1:]}, got {found['input']!r}"


def check(override: str) -> None:
    """Raises `ParamsError` where an override would read anything but the parameters (the environment, files)."""
    name, _, value = override.partition("=")
    if not NAME.fullmatch(name):
        raise ParamsError(f"{override!r}: not of the form NAME=VALUE")
    if re.match(r"[+~]*hydra\b", name):
        raise ParamsError(f"{override!r}: Hydra's own settings are no parameters")
    check_renamed(name.lstrip("+~"), value)
    if "${" in REFERENCE.sub("", override):
        raise ParamsError(
            f"{override!r}: only other parameters can be referred to (${{dataset.name}}): "
            "resolvers such as oc.env are not run, write the value itself"
        )


def compose(overrides: list[str], path: Path = PARAMS, conf: Path = CONF, name: str = "config") -> None:
    """Writes the composition of `name` and overrides. Raises `ParamsError` for an override that does not fit."""
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not conf.is_dir():
        raise ParamsError(f"{conf}: no such folder in {Path.cwd()}: go to the project's root first")
    for override in overrides:
        check(override)
    try:
        compose_and_dump(path, str(conf.resolve()), None, name, str(Path.cwd()), overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ParamsError(f"{' '.join(overrides)}: {' '.join(str(error).split())}") from None


def try_out(overrides: list[str], path: Path, conf: Path) -> None:
    """Reads the sections of `path` in which single values were chosen, as their stages will, perhaps hours later.

    Raises `ParamsError` for a value of the wrong type, or out of range, and for one that nobody would read.
    """
    classes = {}
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        section, _, rest = key.partition(".")
        if (conf / key).is_dir():
            continue  # a group's choice
        if section in SECTIONS:
            classes[section] = SECTIONS[section]
        elif section in FAMILIES and rest:
            classes[f"{section}.{rest.partition('.')[0]}"] = FAMILIES[section]
        elif override.startswith("+"):
            raise ParamsError(
                f"{override!r}: no stage reads {section!r}; there are {', '.join([*SECTIONS, *FAMILIES])}"
            )
    for name, dotted in classes.items():
        module, _, cls = dotted.rpartition(".")
        parse(name, getattr(importlib.import_module(module), cls), under(name, read(path)))


def choose(overrides: list[str], path: Path = PARAMS, conf: Path = CONF) -> None:
    """Writes params.yaml from the defaults and the overrides, and keeps these in `PROJECT` for `dvc exp run -S …`.

    Raises:
        ParamsError: an override does not fit, is out of range, or cannot be kept (a removal); both files are as they
            were.
    """
    with TemporaryDirectory() as folder:
        trial, wanted, kept = (Path(folder) / name for name in ("conf", "wanted.yaml", "kept.yaml"))
        compose(overrides, wanted, conf)
        try_out(overrides, wanted, conf)
        shutil.copytree(conf, trial)
        (trial / PROJECT).write_text(as_project(overrides, conf), encoding="utf-8")
        compose([], kept, trial, Path(PROJECT).stem)
        if kept.read_text(encoding="utf-8") != wanted.read_text(encoding="utf-8"):
            raise ParamsError(
                f"{' '.join(overrides)}: cannot be kept in {conf / PROJECT}, which adds and changes but removes "
                "nothing: change the group's file, or say it with each `dvc exp run -S`"
            )
        write_text((trial / PROJECT).read_text(encoding="utf-8"), conf / PROJECT)
        write_text(kept.read_text(encoding="utf-8"), path)


def as_project(overrides: list[str], conf: Path = CONF) -> str:
    """The text of `PROJECT`: groups that were chosen in its defaults list, single values below."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    groups: list[Any] = []
    values = OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(overrides):
        if (conf / override.key_or_group).is_dir():
            groups.append({f"override /{override.key_or_group}": override.value()})
        elif not override.is_delete():
            OmegaConf.update(values, override.key_or_group, override.value(), force_add=True)
    # `_self_` before the groups' names, which Hydra wants last; values count after what `config` composes.
    chosen = OmegaConf.merge({"defaults": ["config", "_self_", *groups]}, values)
    return (
        "# What this project has chosen, by `python -m pipelines.params`; what `dvc exp run -S …` starts from.\n"
        + OmegaConf.to_yaml(chosen)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m pipelines.params",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("override", nargs="*", metavar="OVERRIDE", help="group=choice, or section.name=value")
    try:
        choose(parser.parse_args().override)
    except ParamsError as error:
        sys.exit(f"error: {error}")
