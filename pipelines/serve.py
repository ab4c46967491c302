"""Server, workers and deployments on this machine, until Ctrl-C.

    python -m pipelines.serve [--port 4200]

State lies in .prefect/ (SQLite), or in the database that FRA_DATABASE_URL names
(postgresql+asyncpg://user:password@host/database); what server and workers say, in .prefect/logs/. All of it listens
on this machine alone. With `--host`, the server listens wider, behind the password in PREFECT_SERVER_API_AUTH_STRING
(user:password); report and Data Docs, which show faces, never do.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.orchestration import server

logger = logging.getLogger("pipelines")

LOOPBACK = "127.0.0.1"
HOME = Path(".prefect")
LOGS = HOME / "logs"
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"
"""Environment variable of Prefect's own: user:password that the server asks for."""
POOLS = {"local": 4, "gpu": 2}
"""Work pools, each with a worker of its own here, and how many runs one starts at a time."""
RECONCILE = 15.0
"""Seconds between two looks for runs whose process is dead."""
STARTUP = 180.0
"""Seconds that the server may take to answer (the first time it makes its tables)."""


class ServeError(RuntimeError):
    """It cannot be served; the message says why and what to do."""


@dataclass
class Service:
    """A process that is started again whenever it ends."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = field(default=0.0)

    def keep(self) -> bool:
        """Starts it if it does not run, at most every five seconds; True where it was started."""
        if (self.process is not None and self.process.poll() is None) or time.monotonic() - self.started < 5:
            return False
        if self.process is not None:
            logger.warning(
                "%s ended (exit code %s, see %s): starting it again",
                self.name,
                self.process.returncode,
                self.log,
            )
        self.started = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.orchestration.supervise", *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process alone, which stops the others in order
            )
        return True

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def settings(host: str, port: int, artifacts: int) -> dict[str, str]:
    """The environment of everything that is started here."""
    home = str(HOME.resolve())
    url = address(host, port)
    chosen = {
        "PREFECT_HOME": home,
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_UI_URL": url,
        "PREFECT_UI_API_URL": "/api",  # of whatever address the browser came by
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Leases in memory would be forgotten by a server that starts again, and their slots never given back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "FRA_ARTIFACTS_URL": f"http://{LOOPBACK}:{artifacts}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    if password := os.environ.get(PASSWORD):
        chosen["PREFECT_API_AUTH_STRING"] = password  # of workers and flows
    elif host != LOOPBACK:
        raise ServeError(
            f"--host {host} lets others in: set {PASSWORD}=user:password first, which the server will ask for"
        )
    if database := os.environ.get("FRA_DATABASE_URL"):
        chosen["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    return chosen


def address(host: str, port: int) -> str:
    """Where this machine itself finds the server."""
    return f"http://{LOOPBACK if host == '0.0.0.0' else host}:{port}"


def check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"port {port} of {host}: {error.strerror}; choose another one with --port"
            ) from None


def wait_for(service: Service, url: str) -> None:
    """Returns once the server answers. Raises `ServeError` where it ends or takes too long."""
    import httpx

    deadline = time.monotonic() + STARTUP
    while time.monotonic() < deadline:
        assert service.process is not None
        if service.process.poll() is not None:
            raise ServeError(f"the Prefect server ended at once; its messages are in {service.log}")
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/api/health", timeout=2).is_success:
                return
        time.sleep(0.3)
    raise ServeError(f"the Prefect server did not answer within {STARTUP:.0f} s")


def prepare() -> None:
    """Pools, the deployments of prefect.yaml, the automations; what is there already is brought up to date."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    from pipelines.orchestration import alerts

    with get_client(sync_client=True) as client:
        for pool, limit in POOLS.items():
            with suppress(ObjectAlreadyExists):
                client.create_work_pool(
                    WorkPoolCreate(
                        name=pool,
                        type="process",
                        concurrency_limit=limit,
                        # Else both workers write it as they start, and SQLite lets only one write at a time.
                        base_job_template=ProcessWorker.get_default_base_job_template(),
                    )
                )
    subprocess.run(prefect("--no-prompt", "deploy", "--all"), check=True, stdout=subprocess.DEVNULL)
    alerts.install()
    server.reconcile(logger)


@contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: told.set())
    yield told


def serve(host: str, port: int) -> None:
    """Runs everything until it is told to stop; then workers first (their runs save and are scheduled again)."""
    if url := server.running():
        raise ServeError(f"already served at {url.removesuffix('/api')}; stop that first")
    artifacts = port + 1
    check_port(host, port)
    check_port(LOOPBACK, artifacts)
    os.environ.update(settings(host, port, artifacts))
    Path("artifacts").mkdir(exist_ok=True)
    api, others = services(host, port, artifacts)
    with told_to_stop() as told:
        try:
            start(api, others, address(host, port))
            print(
                f"Prefect: {address(host, port)}   report and data docs: http://{LOOPBACK}:{artifacts}   "
                f"logs: {LOGS}   (Ctrl-C stops all)",
                flush=True,
            )
            watch([api, *others], told)
        finally:
            stop(api, others)


def services(host: str, port: int, artifacts: int) -> tuple[Service, list[Service]]:
    """The server; and what serves the artifacts' pages, and a worker a pool."""
    api = prefect("server", "start", "--host", host, "--port", str(port))
    pages = ["-m", "http.server", "--bind", LOOPBACK, "--directory", "artifacts", str(artifacts)]
    workers = [
        Service(
            f"worker of {pool}",
            prefect("worker", "start", "--pool", pool, "--type", "process"),
            LOGS / f"worker-{pool}.log",
        )
        for pool in POOLS
    ]
    return Service("server", api, LOGS / "server.log"), [
        Service("artifacts", [sys.executable, *pages], LOGS / "artifacts.log"),
        *workers,
    ]


def start(api: Service, others: list[Service], url: str) -> None:
    """The server first, then pools and deployments, then the rest."""
    print("starting Prefect's server (the first time it makes its tables: up to a minute)", flush=True)
    api.keep()
    wait_for(api, url)
    prepare()
    server.ADDRESS.write_text(f"{url}/api\n")
    for service in others:
        service.keep()


def watch(running: list[Service], told: threading.Event) -> None:
    """Starts what has ended again, and tells the server now and then of runs that died, until told to stop."""
    looked = time.monotonic()
    while not told.wait(1):
        for service in running:
            service.keep()
        if time.monotonic() - looked > RECONCILE:
            looked = time.monotonic()
            with suppress(Exception):  # the server may be away for the moment
                server.reconcile(logger)


def stop(api: Service, others: list[Service]) -> None:
    """The server last, as workers tell it what becomes of their runs."""
    print("stopping: runs save their work (at most half a minute)", flush=True)
    server.ADDRESS.unlink(missing_ok=True)
    with ThreadPoolExecutor(len(others)) as pool:
        list(pool.map(Service.stop, others))
    api.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=4200, help="of the interface; artifacts get the next one")
    chosen = parser.parse_args()
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    try:
        serve(chosen.host, chosen.port)
    except (ServeError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
