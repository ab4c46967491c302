"""ingest: lists a data set (and fetches an embedded one) → data/raw/<name>/records.parquet"""

from __future__ import annotations

from fra.data.datasets import ingest as datasets
from fra.data.datasets.records import DatasetConfig, root_of
from pipelines import params
from pipelines.project import paths, permissions
from pipelines.project.dataset import chosen, withdrawn
from pipelines.stage import logger, main


def ingest() -> None:
    config = chosen()
    gone = withdrawn(config.name)
    raw = paths.raw(config.name)
    trains = config.name == params.section("dataset", DatasetConfig).name
    records = datasets.ingest(config, raw, gone, trains=trains)
    if not datasets.is_embedded(config):
        permissions.close(root_of(config, raw), records)
    known = records["person"].nunique()
    logger.info("%s: %s images of %s people", config.name, f"{len(records):,}", known or "unknown")
    if gone:
        logger.info("%s: %s withdrawn people left out", config.name, len(gone))


if __name__ == "__main__":
    main(ingest, takes="SET")
