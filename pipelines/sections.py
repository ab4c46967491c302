"""The sections of params.yaml: which dataclass declares the type, range and default of each parameter."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

SECTIONS = {
    "dataset": "fra.data.datasets.records.DatasetConfig",
    "faces": "fra.faces.config.FacesConfig",
    "shard": "fra.data.shards.config.ShardConfig",
    "validate": "fra.validation.config.ValidateConfig",
    "data": "fra.data.loader.config.DataConfig",
    "views": "fra.data.views.config.ViewsConfig",
    "model": "fra.method.config.ModelConfig",
    "objective": "fra.method.config.ObjectiveConfig",
    "train": "fra.train.config.TrainConfig",
    "probe": "fra.train.config.ProbeConfig",
    "transfer": "fra.transfer.config.TransferConfig",
}
"""The dataclass of each section, by name: a stage depends on the code of its own sections only."""


FAMILIES = {"benchmarks": SECTIONS["dataset"], "tasks": "fra.transfer.config.TaskConfig"}
"""The dataclass of each part of a section that has parts, such as `benchmarks.celeba`."""


BACKBONE_CHECK = "fra.train.step.check_backbone"
"""A function, by name: its import takes seconds, and only pre-training depends on it."""
INIT_CHECK = ("fra.weights.released.names", "fra.weights.released.backbone")
"""Functions, by name: only some stages depend on them."""


DERIVED = {
    "sources": "what pre-training can read, by data.loader",
    "source": "what pre-training reads: that of `sources` for data.loader",
    "held_out": "where the label-free measures can take images from, by data.loader",
    "measured": "where they take images from: that of `held_out` for data.loader",
    "init_file": "the file that train.init names",
    "key_lists": "the files of dataset.only and dataset.exclude, and those of the benchmarks",
    "labelled": "the labelled set of the tasks, by dataset=…",
    "ruler": "one further labelled set that validation compares with, by ruler=…",
}
"""Parts of params.yaml that follow from groups and sections, and what they are; dvc.yaml reads them."""


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


class ParamsError(ValueError):
    """A wrong parameter in params.yaml or an override; the message names it, its value and the remedy."""


def resolve(dotted: str) -> Any:
    """Returns a class or function by its dotted name."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def defaults() -> dict[str, Any]:
    """Returns the default of each parameter that has one, by section: what Hydra's composition starts from."""
    return {name: _defaults(resolve(dotted)) for name, dotted in SECTIONS.items()}


def _defaults(cls: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
            nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
            found[field.name] = dataclasses.asdict(value) if nested else value
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
    return found


def init_file(init: str | None, source: str) -> str:
    """Returns the file that `train.init` names; `source`, which pre-training reads anyway, where it names none."""
    if init is None:
        return source
    released = Path("fra/weights") / f"{init}.safetensors"
    return released.as_posix() if not Path(init).exists() and released.is_file() else init


def key_lists(dataset: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the files of `only` and `exclude` of the data set, and of each benchmark by name.

    Where there is no list, it is the folder of withdrawals, which ingest reads anyway.
    """

    def files(config: Mapping[str, Any]) -> dict[str, str]:
        return {name: config.get(name) or "data/withdrawn" for name in ("only", "exclude")}

    return {
        "dataset": files(dataset),
        "benchmarks": {name: files(config) for name, config in benchmarks.items()},
    }


def check_lists(dataset: Mapping[str, Any], benchmarks: Mapping[str, Any]) -> None:
    """Raises ParamsError where a list of keys is missing: DVC, which depends on it, would name the path alone."""
    sections = {"dataset": dataset} | {f"benchmarks.{name}": config for name, config in benchmarks.items()}
    for section, config in sections.items():
        for name in ("only", "exclude"):
            path = config.get(name)
            if path and not Path(path).is_file():
                raise ParamsError(
                    f"{section}.{name}={path}: no such list of keys in {Path.cwd()}: write it (`fra curate -o`, or a "
                    f"selection saved from the atlas), correct the path, or choose parameters without {section}.{name}"
                )


COMPARED = ("expression", "attributes", "alignment", "verification")
"""Tasks on whose sets the stage `validate` depends in dvc.yaml, besides `ruler.name`: DVC has no lists in `deps`."""


def check_task_sets(values: Mapping[str, Any]) -> None:
    """Raises ParamsError where the stage `validate` does not depend on the set of a task.

    It compares the images of pre-training with the test images of every task's set, which must exist by then.
    """
    tasks, further = values["tasks"], values["ruler"]["name"]
    named = {values["dataset"]["name"], further, *(tasks[task]["dataset"] for task in COMPARED)}
    for task, config in tasks.items():
        if (name := config["dataset"]) not in named:
            raise ParamsError(
                f"tasks.{task}.dataset is {name}, with whose test images validation could not compare: in dvc.yaml it "
                f"depends on {', '.join(sorted(named))} only. Add ruler.name={name}, for one further set "
                f"(here ruler.name is {further})"
            )


def listing(name: str) -> Iterator[str]:
    """Yields a line per parameter of a section: its name, default, range and meaning.

    Raises:
        ParamsError: There is no such section.
    """
    if name in DERIVED:
        yield f"{name} is not chosen, but follows from other parameters\n    {DERIVED[name]}"
        return
    if name not in SECTIONS | FAMILIES:
        raise ParamsError(
            f"no section {name!r}; sections are {', '.join([*SECTIONS, *FAMILIES])}; from these follow "
            f"{', '.join(DERIVED)}"
        )
    schema = TypeAdapter(resolve((SECTIONS | FAMILIES)[name])).json_schema()
    prefix = name if name in SECTIONS else f"{name}.<name>"
    for field, about in schema["properties"].items():
        default = f" = {json.dumps(about['default'], ensure_ascii=False)}" if "default" in about else ""
        yield f"{prefix}.{field}{default}{_range(about)}\n    {about.get('description', '')}"


def _range(about: dict[str, Any]) -> str:
    """Returns what a JSON schema says of a value's range, such as "  (0 to 1)", or nothing."""
    if "enum" in about:
        return f"  ({', '.join(map(str, about['enum']))})"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {about[key]:g}" for key, sign in bounds.items() if key in about]
    return f"  ({', '.join(limits)})" if limits else ""
