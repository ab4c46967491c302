"""Overrides as users write them (`NAME=VALUE`): former names, forbidden ones, and quoting for Hydra."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from pipelines.sections import (
    FAMILIES,
    RENAMED,
    SECTIONS,
    ParamsError,
    resolve,
)

NAME = re.compile(r"[+~]{0,2}[A-Za-z0-9_./@-]+")
"""What may stand before the "=" of an override."""


REFERENCE = re.compile(r"\$\{\.*[A-Za-z0-9_.]+\}")
"""Another parameter's value, as `${dataset.name}`."""


QUOTED = re.compile(r"""'.*'|".*"|\$\{\.*[A-Za-z0-9_.]+\}""", re.DOTALL)
"""A value that is a string of Hydra's grammar, or another parameter's value."""


def check_renamed(name: str, value: object = None) -> None:
    """Raises ParamsError with the present name for a parameter, or a parameter's value, that was renamed."""
    for former in (name, f"{name}={value}"):
        if former in RENAMED:
            raise ParamsError(f"{former} has been renamed: use {RENAMED[former]}")


def check_override(override: str) -> None:
    """Raises ParamsError for a former name, and where an override would read more than parameters."""
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


def quote(override: str) -> str:
    """Returns the override with its value in quotes where it is text, so that every path is a valid value.

    "~" at the start of a text is expanded. Values in quotes and `null` are kept.
    """
    name, equals, value = override.partition("=")
    if not equals or value == "null" or QUOTED.fullmatch(value):
        return override
    text = _is_text(name.lstrip("+"))
    if not text and _is_valid(override):
        return override
    return f"{name}={_hydra_string(expand_home(value) if text else value)}"


def expand_home(values: Any) -> Any:
    """Returns the values with "~" and "~user" at the start of each text expanded, as a shell does it."""
    if isinstance(values, dict):
        return {key: expand_home(value) for key, value in values.items()}
    if isinstance(values, list):
        return [expand_home(value) for value in values]
    if isinstance(values, str) and values.startswith("~"):
        with suppress(RuntimeError):  # there is no such user
            return str(Path(values).expanduser())
    return values


def kept(values: dict[str, Any], groups: list[Any]) -> list[str]:
    """Returns the overrides that give these values and choices of groups, as users write them (see `quote`).

    Args:
        values: Parameters by section, as project.yaml holds them.
        groups: The `defaults` of project.yaml, such as `{"override /dataset": "folder"}`.
    """
    chosen = [item for group in groups if isinstance(group, dict) for item in group.items()]
    return [f"{key.rpartition('/')[2]}={choice}" for key, choice in chosen] + list(_flatten(values))


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        name = prefix + str(key)
        levels = 2 if name.partition(".")[0] in FAMILIES else 1
        if isinstance(value, dict) and name.count(".") < levels:
            yield from _flatten(value, f"{name}.")
            continue
        plain = isinstance(value, str) and value != "null" and not QUOTED.fullmatch(value)
        # Names that users choose are in no default: "++" adds them.
        added = isinstance(value, dict) or levels == 2
        yield f"{'++' if added else ''}{name}={value if plain else _hydra(value)}"


def _hydra(value: Any) -> str:
    """Returns a value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_hydra(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_hydra, value)) + "]"
    return _hydra_string(value) if isinstance(value, str) else json.dumps(value)


def _is_text(name: str) -> bool:
    """Whether the parameter `name`, such as "dataset.root" or "transfer.baselines.mine", is a string."""
    section, _, rest = name.partition(".")
    if section in FAMILIES:
        dotted, (_, _, rest) = FAMILIES[section], rest.partition(".")
    elif section in SECTIONS:
        dotted = SECTIONS[section]
    else:
        return False
    kind: Any = resolve(dotted)
    for part in rest.split(".") if rest else ():
        if dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind).get(part)
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            return False
    return kind is str or set(get_args(kind)) == {str, NoneType}


def _is_valid(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:  # its lexer raises this, its parser a subclass
        return False
    return True


def _hydra_string(text: str) -> str:
    """Returns the text in quotes: quotes are escaped, and backslashes that precede one are doubled."""
    escaped = re.sub(r"(\\*)'", lambda found: rf"{found[1] * 2}\'", text)
    return "'" + re.sub(r"\\+\Z", lambda found: found[0] * 2, escaped) + "'"
