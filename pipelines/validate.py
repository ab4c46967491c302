"""validate: manifest, shards and betons → verdict, quarantine list, Data Docs; stops the run if they do not pass"""

from __future__ import annotations

import sys

from fra.data.loader.config import DataConfig
from fra.data.views.views import ViewsConfig
from fra.validation import terminal
from fra.validation import validate as gate
from fra.validation.config import ValidateConfig
from fra.validation.validate import Set
from fra.validation.verdict import GateError
from pipelines import params
from pipelines.project import paths
from pipelines.project.dataset import chosen, validation_of
from pipelines.stage import logger, main


def on_disk(name: str) -> Set:
    """A data set's files."""
    return Set(
        name, paths.manifest(name), paths.shards(name), tuple(sorted(paths.beton(name).glob("*.beton")))
    )


def validate() -> None:
    dataset, config = chosen(), params.section("validate", ValidateConfig)
    out = validation_of(dataset)
    values = params.read()
    trained = dataset.name == values["dataset"]["name"]
    elsewhere = sorted({str(task["dataset"]) for task in values["tasks"].values()} - {dataset.name})
    verdict, aside = gate.judge(
        on_disk(dataset.name),
        out,
        config,
        # what is trained on must hold no test image of the tasks' sets, and must make sound batches
        held_out=[on_disk(name) for name in elsewhere] if trained else [],
        training=(params.section("data", DataConfig), params.section("views", ViewsConfig))
        if trained
        else None,
    )
    terminal.show(verdict, sys.stderr)
    for row in aside.itertuples():
        logger.info("set aside: %s: %s", row.source, row.reason)
    if not verdict.success:
        raise GateError(
            f"{dataset.name} did not pass: {'; '.join(verdict.reasons)}. See {out}/data_docs/index.html"
        )
    logger.info("%s passed: %s images, %s set aside", dataset.name, f"{verdict.rows:,}", verdict.quarantined)


if __name__ == "__main__":
    main(validate, takes="SET")
