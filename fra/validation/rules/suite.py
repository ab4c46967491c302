"""The specification of valid data: all rules, each with a severity and its meaning in words.

A rule is an expectation on one of the tables of `fra.validation.tables`. Severities: `error` stops the run,
`quarantine` excludes the rows that break the rule, `warn` reports them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fra.validation.config import ValidateConfig
from fra.validation.rules.faces import faces, landmarks, photographs
from fra.validation.rules.images import columns, content, duplicates, files_of_images, identity, labels
from fra.validation.rules.rule import Rule, own
from fra.validation.rules.storage import batches, drift, stored_files, stored_images


def suite(config: ValidateConfig, label_columns: list[str]) -> list[Rule]:
    """Returns all rules for a data set, the user's own included, with the severities that `config` sets.

    Without `config.faces`, the rules on faces in the images are left out: nothing is measured for them.

    Args:
        config: Limits, severities and the file of own rules.
        label_columns: The label columns of the manifest.

    Raises:
        FileNotFoundError: The file of own rules does not exist.
        ValueError: It cannot be loaded, two rules share a name, or `severities` names an unknown rule.
    """
    rules = [
        *columns(),
        *files_of_images(config),
        *photographs(),
        *content(config),
        *faces(config),
        *identity(config),
        *duplicates(config),
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
            raise ValueError(f"{config.expectations}: the rule {name!r} already exists; choose another name")
    for name in config.severities:
        if name not in names:
            raise ValueError(
                f"validate.severities: no rule is named {name!r}; the rules are: {', '.join(names)}"
            )
    left_out = set() if config.faces else {rule.name for rule in faces(config)}
    return [
        replace(rule, severity=config.severities.get(rule.name, rule.severity))
        for rule in rules
        if rule.name not in left_out
    ]
