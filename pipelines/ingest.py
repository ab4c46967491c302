"""ingest: lists a data set (and fetches an embedded one) → data/raw/<name>/records.parquet"""

from __future__ import annotations

from fra.data import datasets
from pipelines import paths
from pipelines.dataset import chosen
from pipelines.stage import logger, main


def ingest() -> None:
    config = chosen()
    records = datasets.ingest(config, paths.raw(config.name))
    people = records["person"].nunique()
    logger.info("%s: %s images of %s people", config.name, f"{len(records):,}", people or "unknown")


if __name__ == "__main__":
    main(ingest)
