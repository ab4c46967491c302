"""What data must be: the rules of the gate, tables that read like a specification.

A rule is an expectation on one of the tables that the gate measures (`fra.validation.tables`), how much it matters, and
what it means in words. Severities: `error` stops the run; `quarantine` sets the rows aside; `warn` is reported.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fra.validation.config import ValidateConfig
from fra.validation.rules.images import columns, content, copies, files_of_images, identity, labels, landmarks
from fra.validation.rules.rule import (
    Rule,
    own,
)
from fra.validation.rules.storage import batches, drift, stored_files, stored_images


def suite(config: ValidateConfig, label_columns: list[str]) -> list[Rule]:
    """All rules for a set with these labels, one's own among them, with the severities that `config` gives.

    Raises:
        FileNotFoundError, ValueError: the file of own rules is missing or wrong; two rules share a name; `severities`
            names a rule that does not exist.
    """
    rules = [
        *columns(),
        *files_of_images(config),
        *content(config),
        *identity(config),
        *copies(config),
        *landmarks(config),
        *labels(config, label_columns),
        *stored_images(config),
        *stored_files(),
        *drift(config),
        *batches(config),
        *own(Path(config.expectations)),
    ]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{config.expectations}: the rule {name!r} is there already; choose another name"
            )
    for name in config.severities:
        if name not in names:
            raise ValueError(
                f"validate.severities: no rule is named {name!r}; the rules are: {', '.join(names)}"
            )
    return [replace(rule, severity=config.severities.get(rule.name, rule.severity)) for rule in rules]
