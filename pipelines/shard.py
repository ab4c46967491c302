"""The stage `shard`: writes the images of a data set as tar shards and betons, and its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from fra.data.datasets.records import root_of
from fra.data.shards import beton, write
from fra.data.shards.config import ShardConfig
from fra.data.shards.executors import QUEUED_PER_WORKER, Executor, check_locks
from fra.data.shards.tar import ShardJob
from fra.files import read_parquet
from pipelines import params
from pipelines.project import paths
from pipelines.project.dataset import selected_dataset
from pipelines.project.mirror import LAST, link, mirror
from pipelines.repo.lock import cached_files
from pipelines.stage import logger, main


def absolute(job: ShardJob) -> ShardJob:
    """Returns the job with absolute paths, for a process whose current folder is another one."""
    return replace(job, root=job.root.resolve(), out=job.out.resolve(), state=job.state.resolve())


def on_dask(address: str | None, workers: int = 1, patience: float = 60) -> Executor:
    """Returns an executor that runs jobs on the workers of a Dask scheduler; jobs of a dead worker run on another.

    Workers need this project's code, and the same folders under the same paths. They need no Prefect server.

    Args:
        address: the scheduler's address.
        workers: the number of workers to wait for.
        patience: seconds to wait for the scheduler, and for the workers.

    Raises:
        ConnectionError: no scheduler answers, or too few workers are connected, within `patience` seconds.
    """

    def execute(work: Callable[[ShardJob], int], jobs: Sequence[ShardJob]) -> Iterator[int]:
        from distributed import Client, as_completed

        try:
            client = Client(address, timeout=patience)
        except OSError:
            raise ConnectionError(f"shard.dask_address {address}: no Dask scheduler answers there") from None
        with client:
            try:
                client.wait_for_workers(workers, timeout=patience)
            except TimeoutError:
                raise ConnectionError(
                    f"shard.dask_address {address}: its scheduler has too few workers"
                ) from None
            waiting = map(absolute, jobs)
            ahead = QUEUED_PER_WORKER * sum(client.nthreads().values())
            running = as_completed(
                [client.submit(work, job, pure=False, retries=2) for job in islice(waiting, ahead)]
            )
            for done in running:
                for job in islice(waiting, 1):
                    running.add(client.submit(work, job, pure=False, retries=2))
                yield done.result()

    return execute


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
    check_locks()
    dataset, config = selected_dataset(), params.section("shard", ShardConfig)
    raw, name = paths.raw(dataset.name), dataset.name
    executor = None if config.executor == "local" else on_dask(config.dask_address)
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
        "%s: %s images in %s shards; %s could not be decoded",
        name,
        f"{sharded.sum():,}",
        manifest["shard"].nunique(),
        (~sharded).sum(),
    )


if __name__ == "__main__":
    main(shard, takes="SET")
