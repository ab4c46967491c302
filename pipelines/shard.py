"""The stage `shard`: writes the images of a data set as tar shards and betons, and its manifest."""

from __future__ import annotations

from pathlib import Path

from fra.data.datasets.records import root_of
from fra.data.executors import check_locks
from fra.data.shards.config import ShardConfig
from fra.files import read_parquet
from fra.wording import counted
from pipelines import params
from pipelines.project import paths
from pipelines.project.dataset import selected_dataset
from pipelines.project.executor import executor_of
from pipelines.project.mirror import LAST, link, mirror
from pipelines.repo.lock import cached_files
from pipelines.stage import logger, main


def recall(name: str, tars: Path, table: Path) -> None:
    """Takes the last manifest and index of shards from DVC's cache, where there is no state, as in a new clone.

    Images then stay in the shards that they are in; the shards themselves are written again.
    """
    manifest = cached_files(paths.manifest(name).as_posix())
    shards = cached_files(paths.shards(name).as_posix())
    if "" in manifest and LAST in shards:
        link(manifest[""], table)
        link(shards[LAST], tars / LAST)


def shard() -> None:
    """Writes shards, betons and manifest of the selected data set; an image that one cannot hold is in neither.

    The shards are written into a folder of state and linked from there, so that a run continues from the last one.
    """
    from fra.data.shards import beton, write  # imports FFCV: not before the parameters are checked

    check_locks()
    dataset, config = selected_dataset(), params.section("shard", ShardConfig)
    raw, name = paths.raw(dataset.name), dataset.name
    executor = executor_of(config)
    records = read_parquet(raw / "records.parquet")
    state = paths.WORK / "shards" / name
    tars, table = state / "tars", state / "manifest.parquet"
    if not table.is_file():
        recall(name, tars, table)
    places = (root_of(dataset, raw), tars, table, config, state)
    manifest = write.write(records, *places, executor=executor)
    if broken := beton.write(manifest, tars, paths.beton(name), config):
        manifest = write.write(records, *places, executor=executor, broken=broken)
        beton.write(manifest, tars, paths.beton(name), config)
    link(table, paths.manifest(name))
    mirror(tars, paths.shards(name))
    sharded = manifest["shard"].notna()
    logger.info(
        "%s: %s in %s; %s could not be decoded",
        name,
        counted(int(sharded.sum()), "image"),
        counted(manifest["shard"].nunique(), "shard"),
        (~sharded).sum(),
    )


if __name__ == "__main__":
    main(shard, takes="SET")
