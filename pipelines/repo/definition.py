"""dvc.yaml with its templates filled in, without starting DVC: what each stage should run, read, write and depend on.

Only what our dvc.yaml uses: `${a.b}`, `foreach` with `${key}` and `${item.…}`. A test compares with DVC's own reading.
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
    """`text` with each `${a.b}` replaced. Raises `KeyError` where a name is not known."""

    def value(match: re.Match[str]) -> str:
        found: Any = values
        for part in match[1].split("."):
            found = found[part]
        return str(found)

    return TEMPLATE.sub(value, text)


def define(body: dict[str, Any], values: dict[str, Any]) -> Definition:
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
    """Every stage of dvc.yaml by name, `transfer@expression` and its like spelt out."""
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
