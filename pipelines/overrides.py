"""Overrides as users write them (`NAME=VALUE`): former names, forbidden ones, and quoting for Hydra."""

from __future__ import annotations

import dataclasses
import re
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
    if text and value.startswith("~"):
        value = str(Path(value).expanduser())
    return f"{name}={_hydra_string(value)}"


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
