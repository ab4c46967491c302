"""Runs a stage: as plain Python, or as a Prefect flow where a server is configured (`PREFECT_API_URL`).

A stage is a function without arguments. Starting Prefect's own temporary server for each would cost 9 to 20 s, so
without a server nothing of Prefect is imported. The work decides how the process ends, never the server: if that goes
away, the work is done all the same.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from pipelines.lineage import openlineage, record
from pipelines.orchestration.supervise import die_with_parent
from pipelines.project import paths, permissions
from pipelines.project.errors import describe

TRY_AGAIN = 74
"""Exit code of a run that failed for a cause that can pass: a disk, a network (EX_IOERR)."""
RESUME_ME = 75
"""Exit code of a run that was told to stop, saved its state, and continues when started again (EX_TEMPFAIL)."""
PARENT = "FRA_PARENT_TASK_RUN"
"""Environment variable by which the parent flow hands its task run's id to the stage's process."""
LEASE = 90.0
"""Seconds after which a limit's slot is free again if the process that held it died; a live one renews it."""
PASSING = frozenset(
    getattr(errno, name)
    for name in [
        "EIO",
        "EAGAIN",
        "EBUSY",
        "ESTALE",
        "EREMOTEIO",
        "ENOLCK",
        "ETIMEDOUT",
        "ENETDOWN",
        "ENETUNREACH",
        "ENETRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ECONNABORTED",
        "ECONNREFUSED",
        "ECONNRESET",
        "EPIPE",
    ]
    if hasattr(errno, name)
)
"""What `OSError.errno` says where trying again may help. Not among them: a missing file, a full disk, a closed door."""

SETTINGS = {
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 s; the default's 62 would hold up the next stage where the server is away
    "PREFECT_LOGGING_EXTRA_LOGGERS": "fra",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": "%(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(message)s",
}
"""Prefect's settings for a stage. Its lines go through DVC into the parent flow's log, which adds time and name."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "SET": {
        "nargs": "?",
        "help": "a labelled set, a key of `benchmarks` in params.yaml; else the one to learn from",
    },
    "TASK": {"help": "a key of `tasks` in params.yaml"},
}
"""What a stage may take from the command line; all else is in params.yaml."""

logger = logging.getLogger("fra")


def main(stage: Callable[[], None], limit: str | None = None, takes: str | None = None) -> None:
    """Runs `stage` and ends the process: 0; 1 with one line that says what is wrong; 74 where trying again may help.

    `limit` is a global concurrency limit of the Prefect server: one run at a time holds it. It is made where missing.
    `takes` is the argument, of `ARGUMENTS`, that the command line may name.
    """
    check_arguments(stage.__name__, takes)
    # Of several ranks of one run, the first one speaks with the server, tells what goes on and writes the records.
    first = os.environ.get("RANK", "0") == "0"
    watched = first and bool(os.environ.get("PREFECT_API_URL"))
    recorded = first and "DVC_STAGE" in os.environ
    if "DVC_STAGE" in os.environ:
        die_with_parent(signal.SIGTERM)  # killed by force, DVC would leave its stage at work
    permissions.mask()
    try:
        with (
            alone(stage.__name__) if first else nullcontext(),
            openlineage.run(stage.__name__, os.environ.get(PARENT)) if recorded else nullcontext(),
        ):
            if watched:
                as_flow(stage, limit)
            else:
                level = logging.INFO if first else logging.WARNING
                logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
                stage()
            if recorded:
                record.write(os.environ["DVC_STAGE"])
    except Exception as error:
        if os.environ.get("FRA_DEBUG"):
            raise
        print(f"error: {stage.__name__}: {describe(error)}", file=sys.stderr)
        sys.exit(TRY_AGAIN if can_pass(error) else 1)


def check_arguments(stage: str, takes: str | None) -> None:
    """Answers --help, and ends the process with code 2 where the command line has more or less than `takes`."""
    parser = argparse.ArgumentParser(
        f"python -m pipelines.{stage}",
        description=f"{str(sys.modules['__main__'].__doc__).removesuffix('.')}. Reads params.yaml.",
        epilog="`dvc repro` runs the stages whose code, parameters or data have changed, in order.",
    )
    if takes:
        parser.add_argument(takes, **ARGUMENTS[takes])
    parser.parse_args()


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Keeps a second process from the same stage, of the same task, in this folder.

    Raises:
        BlockingIOError: one is at work already. The lock is the system's: whoever dies gives it back.
    """
    name = "-".join([stage, *sys.argv[1:]])
    path = paths.WORK / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            raise BlockingIOError(
                taken.errno, f"another process is at {name} in this folder: wait for it, or end it"
            ) from None
        yield


def can_pass(error: BaseException) -> bool:
    """Whether what went wrong may be right next time: input and output, and nothing else."""
    return isinstance(error, (ConnectionError, TimeoutError)) or (
        isinstance(error, OSError) and error.errno in PASSING
    )


def as_flow(stage: Callable[[], None], limit: str | None) -> None:
    """Runs `stage` as a flow run of the configured server, below the parent flow's task run if there is one."""
    os.environ.update(SETTINGS)
    import httpx
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow
    from prefect.states import Cancelled, Failed

    from pipelines.orchestration import server

    ended: list[BaseException | None] = []

    def work() -> Any:
        with slot(limit):
            try:
                stage()
            except BaseException as error:
                ended.append(error)
                if isinstance(error, SystemExit) and error.code == RESUME_ME:
                    return Cancelled(message="Told to stop; saved, and continues when started again.")
                if isinstance(error, Exception):
                    return Failed(message=describe(error))
                raise
            ended.append(None)
        return None

    logger.setLevel(logging.INFO)
    stage_flow = flow(work, name=stage.__name__)
    try:
        with get_client(sync_client=True) as client:
            name = os.environ.get("DVC_STAGE", stage.__name__)
            run = client.create_flow_run(stage_flow, name=name, parent_task_run_id=os.environ.get(PARENT))
            server.claim(client, run.id)
        run_flow(stage_flow, flow_run=run, return_type="state")
    except Exception as error:  # the engine's, not the stage's: that one is in `ended`
        if not ended and not isinstance(error, httpx.TransportError):
            raise
        logger.warning("no word from the Prefect server (%s); the work goes on without it", describe(error))
    if not ended:
        stage()
    elif ended[0] is not None:
        raise ended[0]


@contextmanager
def slot(limit: str | None) -> Iterator[None]:
    """Holds the one slot of a global concurrency limit; waits for it as long as it takes."""
    if limit is None:
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit)
        except ObjectNotFound:
            client.upsert_global_concurrency_limit_by_name(limit, 1)
    logger.info("waiting for the limit %r, if another run holds it", limit)
    with concurrency(
        limit, occupy=1, lease_duration=LEASE, strict=True, raise_on_lease_renewal_failure=False
    ):
        yield
