"""Your own rules for the gate. Add to `RULES` here, or name a file of your own in `validate.expectations`. For example:

Rule(
    "not tiny",
    "quarantine",
    "fewer than 2,000 bytes",
    gxe.ExpectColumnValuesToBeBetween(column="bytes", min_value=2000),
    report_column="bytes",
)

with `import great_expectations.expectations as gxe`. Columns of the table `images`: those of the manifest, and what the
gate measures (`docs/guides/validation.md` lists them).
"""

from __future__ import annotations

from fra.validation.rules.rule import Rule

RULES: list[Rule] = []
