"""Where the jobs of the data stages run, by `shard.executor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from fra.data.executors import QUEUED_PER_WORKER, Executor, J, local
from fra.data.shards.config import ShardConfig


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

    def execute(work: Callable[[J], int], jobs: Sequence[J]) -> Iterator[int]:
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
            waiting = (job.absolute() for job in jobs)
            ahead = QUEUED_PER_WORKER * sum(client.nthreads().values())
            running = as_completed(
                [client.submit(work, job, pure=False, retries=2) for job in islice(waiting, ahead)]
            )
            for done in running:
                for job in islice(waiting, 1):
                    running.add(client.submit(work, job, pure=False, retries=2))
                yield done.result()

    return execute


def executor_of(config: ShardConfig) -> Executor:
    """Returns where the jobs of a data stage run: processes of this machine, or the workers of a Dask scheduler."""
    return local(config.workers) if config.executor == "local" else on_dask(config.dask_address)
