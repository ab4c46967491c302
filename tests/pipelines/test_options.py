"""Options mean the same in every command of `fra`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from pipelines.cli.main import app

HABITS: dict[str, tuple[str | None, type, set[object]]] = {
    "--out": ("-o", Path, set()),
    "--weights": ("-w", Path, set()),
    "--device": (None, str, {"auto"}),
    "--batch-size": (None, int, set()),
    "--json": (None, bool, {False}),
    "--detect": (None, bool, {False}),
}
"""Short form, type, and (where there is only one) default of each option that several commands have."""
HELP = {"--device": "cpu, cuda, cuda:<number>, or auto", "--json": "Print only the result, as JSON"}
FORMER = {("transfer", "regions", "--weights"): ["--model"]}
"""Further names of an option, which are kept for those who use them."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def deviations() -> Iterator[str]:
    for path, command in commands(get_command(app)):
        options = [one for one in command.params if one.opts[0].startswith("-")]
        named = {option: one for one in options for option in one.opts}
        for long, (short, kind, defaults) in HABITS.items():
            one = named.get(long)
            if short in named and named[short] is not one:
                yield f"{path}: {short} is {named[short].opts}"
            if one is None:
                continue
            expected = [long, *([short] if short else []), *FORMER.get((*path, long), [])]
            if one.opts != expected or one.secondary_opts:
                yield f"{path}: {one.opts} {one.secondary_opts} instead of {expected}"
            annotation = one.type_descriptor.annotation
            if annotation is not kind:
                yield f"{path}: {long} is {annotation}"
            if defaults and one.default not in defaults:
                yield f"{path}: {long} is {one.default!r} by default"
            if HELP.get(long, "") not in one.help:
                yield f"{path}: {long}: {one.help!r}"


def test_options_mean_the_same_in_every_command() -> None:
    all_options = [
        option for _, command in commands(get_command(app)) for one in command.params for option in one.opts
    ]
    assert all(all_options.count(option) > 2 for option in HABITS)
    assert list(deviations()) == []
