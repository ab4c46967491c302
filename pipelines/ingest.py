"""The stage `ingest`: lists a data set (and fetches an embedded one) as data/raw/<name>/records.parquet."""

from __future__ import annotations

from fra.data.datasets import ingest as datasets
from fra.data.datasets.records import DatasetConfig, root_of
from pipelines import params
from pipelines.project import paths, permissions
from pipelines.project.dataset import selected_dataset, withdrawn_people
from pipelines.project.mirror import mirror
from pipelines.stage import logger, main


def ingest() -> None:
    """Writes the records of the selected data set, without people who withdrew their consent.

    Images of an embedded set are kept between runs, so that only new ones are made.
    """
    config = selected_dataset()
    withdrawn = withdrawn_people(config.name)
    raw, state = paths.raw(config.name), paths.WORK / "raw" / config.name
    embedded = datasets.is_embedded(config)
    if embedded:
        datasets.EMBEDDED[config.adapter](state, config)
        mirror(state, raw)
    trains = config.name == params.section("dataset", DatasetConfig).name
    records = datasets.ingest(config, raw, withdrawn, trains=trains)
    if embedded:
        mirror(raw, state)  # without the people who were withdrawn
    else:
        permissions.restrict(root_of(config, raw), records)
    known = records["person"].nunique()
    logger.info("%s: %s images of %s people", config.name, f"{len(records):,}", known or "unknown")
    if withdrawn:
        logger.info("%s: %s withdrawn people left out", config.name, len(withdrawn))


if __name__ == "__main__":
    main(ingest, takes="SET")
