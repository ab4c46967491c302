"""Runs a stage of the pipeline: as plain Python, or as a Prefect flow if `PREFECT_API_URL` names a server.

A stage is a function without arguments. Prefect's own temporary server would cost 9 to 20 s for each stage, so without
a configured server nothing of Prefect is imported. The exit code depends on the stage only: if the server goes away,
the stage still runs to its end.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from pipelines.lineage import openlineage, record
from pipelines.orchestration import server
from pipelines.orchestration.environment import PARENT_TASK_RUN, STAGE_SETTINGS, bypass_proxy
from pipelines.orchestration.supervise import signal_on_parent_death
from pipelines.project import permissions
from pipelines.project.errors import describe
from pipelines.project.locks import exclusive_lock
from pipelines.project.root import require_root

TRANSIENT = frozenset(
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
"""Values of `OSError.errno` after which a retry may succeed. A missing file or a full disk is not among them."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "SET": {
        "nargs": "?",
        "help": "a labelled data set, a key of `benchmarks` in params.yaml; default: the data set of pre-training",
    },
    "TASK": {"help": "a key of `tasks` in params.yaml"},
}
"""The arguments that a stage may take from the command line; everything else is in params.yaml."""

logger = logging.getLogger("fra")


def main(stage: Callable[[], None], limit: str | None = None, takes: str | None = None) -> None:
    """Runs `stage` and ends the process.

    The exit code is 0; 1 after an error; `os.EX_IOERR` (74) after a transient error; `os.EX_TEMPFAIL` (75) if the stage
    saved its state after a stop signal and continues when it is started again. An error prints one line.

    Args:
        stage: the stage's function; its name is the stage's name.
        limit: a global concurrency limit of the Prefect server, which one run at a time holds; created if missing.
        takes: the key of `ARGUMENTS` that the command line may give.
    """
    name = stage.__name__
    check_arguments(name, takes)
    # Of the ranks of a distributed run, only the first uses the server, logs progress and writes records.
    first_rank = os.environ.get("RANK", "0") == "0"
    with_server = first_rank and bool(os.environ.get("PREFECT_API_URL"))
    recorded = first_rank and "DVC_STAGE" in os.environ
    if "DVC_STAGE" in os.environ:
        signal_on_parent_death(signal.SIGTERM)  # after kill -9 of DVC its stage would keep running
    try:
        require_root()
        permissions.restrict_umask()
        with (
            exclusive_lock("-".join([name, *sys.argv[1:]])) if first_rank else nullcontext(),
            openlineage.run(name, os.environ.get(PARENT_TASK_RUN)) if recorded else nullcontext(),
        ):
            if with_server:
                bypass_proxy()
                os.environ["PREFECT_API_URL"] = server.address() or os.environ["PREFECT_API_URL"]
                os.environ.update(STAGE_SETTINGS)  # Prefect reads them when it is imported
                from pipelines.orchestration.stage_flow import run_as_flow

                run_as_flow(stage, limit)
            else:
                level = logging.INFO if first_rank else logging.WARNING
                logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
                stage()
            if recorded:
                record.write(os.environ["DVC_STAGE"])
    except Exception as error:
        if os.environ.get("FRA_DEBUG"):
            raise
        print(f"error: {name}: {describe(error)}", file=sys.stderr)
        sys.exit(os.EX_IOERR if is_transient(error) else 1)


def check_arguments(stage: str, takes: str | None) -> None:
    """Prints the help for --help; ends the process with code 2 if the arguments are not what `takes` allows."""
    parser = argparse.ArgumentParser(
        f"python -m pipelines.{stage}",
        description=f"{str(sys.modules['__main__'].__doc__).removesuffix('.')}. It reads params.yaml.",
        epilog="`dvc repro` runs, in order, the stages whose code, parameters or data have changed.",
    )
    if takes:
        parser.add_argument(takes, **ARGUMENTS[takes])
    parser.parse_args()


def is_transient(error: BaseException) -> bool:
    """Returns whether a retry may succeed: after some errors of input and output, and no others."""
    return isinstance(error, (ConnectionError, TimeoutError)) or (
        isinstance(error, OSError) and error.errno in TRANSIENT
    )
