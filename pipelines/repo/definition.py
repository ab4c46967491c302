"""dvc.yaml with its templates filled in, without starting DVC: command, inputs, outputs and parameters of each stage.

Supports only what our dvc.yaml uses: `${a.b}`, and `foreach` with `${key}` and `${item.…}`. A test compares the result
with DVC's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

TEMPLATE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Definition:
    """A stage as dvc.yaml defines it."""

    command: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: tuple[str, ...]


def fill(text: str, values: dict[str, Any]) -> str:
    """Returns `text` with each `${a.b}` replaced by its value. Raises `KeyError` where a name has no value."""

    def value(match: re.Match[str]) -> str:
        found: Any = values
        for part in match[1].split("."):
            found = found[part]
        return str(found)

    return TEMPLATE.sub(value, text)


def define(body: dict[str, Any], values: dict[str, Any]) -> Definition:
    """The definition of one stage from its entry in dvc.yaml and the values of the templates."""
    command = body["cmd"] if isinstance(body["cmd"], list) else [body["cmd"]]
    named = [entry for key in ("outs", "metrics", "plots") for entry in body.get(key, [])]
    outs = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in named]
    return Definition(
        " && ".join(fill(line, values) for line in command),
        tuple(fill(path, values) for path in body.get("deps", [])),
        tuple(fill(path, values) for path in outs),
        tuple(fill(key, values) for key in body.get("params", [])),
    )


def definitions(graph: str, params: dict[str, Any]) -> dict[str, Definition]:
    """The definition of every stage of a dvc.yaml (given as text), by name.

    A `foreach` group gives one stage for each key, such as `transfer@expression`.

    Raises:
        KeyError, TypeError: `params` do not fit the templates.
    """
    found = {}
    for name, body in yaml.safe_load(graph)["stages"].items():
        if "foreach" not in body:
            found[name] = define(body, params)
            continue
        items = params
        for part in body["foreach"].removeprefix("${").removesuffix("}").split("."):
            items = items[part]
        for key, item in items.items():
            found[f"{name}@{key}"] = define(body["do"], {**params, "key": key, "item": item})
    return found


def lookup(values: Any, key: str) -> Any:
    """The value of a dotted key, None where it is missing. dvc.lock keeps a dotted key as one key."""
    if isinstance(values, dict) and key in values:
        return values[key]
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values
