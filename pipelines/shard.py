"""shard: records and their images → tar shards, betons and the manifest"""

from __future__ import annotations

import pandas as pd

from fra.data import beton, shards
from fra.data.datasets import root_of
from fra.data.shards import ShardConfig
from pipelines import params, paths
from pipelines.dataset import chosen
from pipelines.stage import logger, main


def shard() -> None:
    dataset, config = chosen(), params.section("shard", ShardConfig)
    raw, name = paths.raw(dataset.name), dataset.name
    records = pd.read_parquet(raw / "records.parquet")
    manifest = shards.write(records, root_of(dataset, raw), paths.shards(name), paths.manifest(name), config)
    beton.write(manifest, paths.shards(name), paths.beton(name), config)
    sharded = manifest["shard"].notna()
    logger.info(
        "%s: %s images in %s shards; %s could not be decoded",
        name,
        f"{sharded.sum():,}",
        manifest["shard"].nunique(),
        (~sharded).sum(),
    )


if __name__ == "__main__":
    main(shard)
