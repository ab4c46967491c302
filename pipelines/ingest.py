"""ingest: lists a data set (and fetches an embedded one) → data/raw/<name>/records.parquet"""

from __future__ import annotations

from fra.data import datasets
from pipelines import paths
from pipelines.dataset import chosen, withdrawn
from pipelines.stage import logger, main


def ingest() -> None:
    config = chosen()
    gone = withdrawn(config.name)
    records = datasets.ingest(config, paths.raw(config.name), gone)
    known = records["person"].nunique()
    logger.info("%s: %s images of %s people", config.name, f"{len(records):,}", known or "unknown")
    if gone:
        logger.info("%s: %s withdrawn people left out", config.name, len(gone))


if __name__ == "__main__":
    main(ingest)
