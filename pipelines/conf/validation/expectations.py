"""Your own validation rules.

Add to `RULES` here, or set `validate.expectations` to a file of your own. For example:

Rule(
    "not tiny",
    "quarantine",
    "fewer than 2,000 bytes",
    gxe.ExpectColumnValuesToBeBetween(column="bytes", min_value=2000),
    report_column="bytes",
)

with `import great_expectations.expectations as gxe`. The table `images` has the columns of the
manifest and the measurements listed in docs/guides/validation.md.
"""

from __future__ import annotations

from fra.validation.rules.rule import Rule

RULES: list[Rule] = []
