"""Runs the Prefect server, its workers and the deployments on this machine, until Ctrl-C.

    python -m pipelines.serve [--port 4200]

The state is stored in .prefect/ (SQLite), or in the database that FRA_DATABASE_URL names
(postgresql+asyncpg://user:password@host/database); the logs of server and workers are in .prefect/logs/. Everything
listens on the loopback address only. With `--host` the server listens on another address and requires the password in
PREFECT_SERVER_API_AUTH_STRING (user:password). Report and Data Docs show faces, and stay on the loopback address.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.orchestration import server
from pipelines.orchestration.environment import PAGES_URL, bypass_proxy
from pipelines.project.root import NotInRootError, require_root

logger = logging.getLogger("pipelines")

LOOPBACK = "127.0.0.1"
HOME = Path(".prefect")
LOGS = HOME / "logs"
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"
"""Prefect's environment variable for the credentials (user:password) that the server requires."""
POOLS = {"local": 4, "gpu": 2}
"""Work pools, each with one worker on this machine, and the number of runs that it starts at a time."""
RECONCILE = 15.0
"""Seconds between two checks for runs whose process is dead."""
STARTUP = 180.0
"""Seconds that the server may take to answer (at its first start it creates its tables)."""


class ServeError(RuntimeError):
    """The services cannot be started; the message says why and what to do."""


@dataclass
class Service:
    """A process that is restarted whenever it ends."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = field(default=0.0)

    def ensure_running(self) -> bool:
        """Starts the process if it does not run, at most every five seconds; returns whether it was started."""
        if (self.process is not None and self.process.poll() is None) or time.monotonic() - self.started < 5:
            return False
        if self.process is not None:
            logger.warning(
                "%s ended (exit code %s, see %s): restarting it",
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
                start_new_session=True,  # Ctrl-C must reach this process only, which stops the others in order
            )
        return True

    def stop(self) -> None:
        """Stops the process and waits for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def prefect_command(*arguments: str) -> list[str]:
    """Returns the command line of `prefect`."""
    return [sys.executable, "-m", "prefect", *arguments]


def settings(host: str, port: int, artifacts: int) -> dict[str, str]:
    """Returns the environment variables of all services.

    Args:
        host: the address that the server listens on.
        port: the server's port.
        artifacts: the port of the pages in artifacts/.

    Raises:
        ServeError: the server would listen on another address than loopback without a password.
    """
    home = str(HOME.resolve())
    url = address(host, port)
    chosen = {
        "PREFECT_HOME": home,
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_UI_URL": url,
        "PREFECT_UI_API_URL": "/api",  # relative to the address that the browser uses
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # A restarted server would forget leases in memory, and never release their slots.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        PAGES_URL: f"http://{LOOPBACK}:{artifacts}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    if password := os.environ.get(PASSWORD):
        chosen["PREFECT_API_AUTH_STRING"] = password  # for workers and flows
    elif host != LOOPBACK:
        raise ServeError(
            f"--host {host} opens the server to others: set {PASSWORD}=user:password first, which it then requires"
        )
    if database := os.environ.get("FRA_DATABASE_URL"):
        chosen["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    return chosen


def address(host: str, port: int) -> str:
    """Returns the server's address as this machine reaches it."""
    return f"http://{LOOPBACK if host == '0.0.0.0' else host}:{port}"


def check_port(host: str, port: int) -> None:
    """Raises `ServeError` if the port cannot be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"port {port} of {host}: {error.strerror}; choose another one with --port"
            ) from None


def wait_for(service: Service, url: str) -> None:
    """Returns when the server answers. Raises `ServeError` if it ends or takes longer than `STARTUP`."""
    import httpx

    deadline = time.monotonic() + STARTUP
    while time.monotonic() < deadline:
        assert service.process is not None
        if service.process.poll() is not None:
            raise ServeError(f"the Prefect server ended as it started; its messages are in {service.log}")
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/api/health", timeout=2).is_success:
                return
        time.sleep(0.3)
    raise ServeError(f"the Prefect server did not answer within {STARTUP:.0f} s")


def install_deployments() -> None:
    """Installs the work pools, the deployments of prefect.yaml and the automations, and ends dead runs.

    Those of the same name are updated or replaced. Dead runs are those whose process has ended (`server.reconcile`).

    Raises:
        subprocess.CalledProcessError: `prefect deploy` failed.
    """
    from pipelines.orchestration import alerts

    install_pools()
    subprocess.run(prefect_command("--no-prompt", "deploy", "--all"), check=True, stdout=subprocess.DEVNULL)
    alerts.install()
    server.reconcile(logger)


def install_pools() -> None:
    """Creates the work pools that are missing, and sets the limits of the others."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        for pool, limit in POOLS.items():
            wanted = WorkPoolCreate(
                name=pool,
                type="process",
                concurrency_limit=limit,
                # Otherwise both workers write it as they start, and SQLite allows one writer at a time.
                base_job_template=ProcessWorker.get_default_base_job_template(),
            )
            try:
                client.create_work_pool(wanted)
            except ObjectAlreadyExists:
                client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=limit))


def stop_signal() -> threading.Event:
    """Returns an event that SIGINT, SIGTERM and SIGHUP set, in place of ending this process."""
    event = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: event.set())
    return event


def serve(host: str, port: int) -> None:
    """Runs all services until a stop signal; the workers stop first, so that their runs save and are rescheduled.

    Raises:
        ServeError: they cannot be started; the message says why and what to do.
        subprocess.CalledProcessError: `prefect deploy` failed.
    """
    bypass_proxy(host)
    if url := server.served_address():
        raise ServeError(f"`make serve` already runs at {url.removesuffix('/api')}; stop it first")
    artifacts = port + 1
    check_port(host, port)
    check_port(LOOPBACK, artifacts)
    os.environ.update(settings(host, port, artifacts))
    remove_addresses()  # of a process that was killed
    Path("artifacts").mkdir(exist_ok=True)
    api, others = services(host, port, artifacts)
    stopped = stop_signal()
    try:
        start(api, others, address(host, port), os.environ[PAGES_URL])
        print(
            f"Prefect: {address(host, port)}   report and data docs: {os.environ[PAGES_URL]}   "
            f"logs: {LOGS}   (Ctrl-C stops all)",
            flush=True,
        )
        watch([api, *others], stopped)
    finally:
        stop(api, others)


def services(host: str, port: int, artifacts: int) -> tuple[Service, list[Service]]:
    """Returns the Prefect server, and the other services: the pages in artifacts/ and one worker for each pool."""
    api = prefect_command("server", "start", "--host", host, "--port", str(port))
    pages = ["-m", "http.server", "--bind", LOOPBACK, "--directory", "artifacts", str(artifacts)]
    workers = [
        Service(
            f"worker of {pool}",
            prefect_command("worker", "start", "--pool", pool, "--type", "process"),
            LOGS / f"worker-{pool}.log",
        )
        for pool in POOLS
    ]
    return Service("server", api, LOGS / "server.log"), [
        Service("artifacts", [sys.executable, *pages], LOGS / "artifacts.log"),
        *workers,
    ]


def start(api: Service, others: list[Service], url: str, pages: str) -> None:
    """Starts the server, installs pools and deployments, then starts the other services.

    The server's address `url` and the address `pages` of artifacts/ are stored for other commands.
    """
    print("starting Prefect's server (the first start creates its tables: up to a minute)", flush=True)
    api.ensure_running()
    wait_for(api, url)
    install_deployments()
    server.ADDRESS.write_text(f"{url}/api\n")
    server.PAGES.write_text(f"{pages}\n")
    for service in others:
        service.ensure_running()


def remove_addresses() -> None:
    """Removes the files by which other commands find the server and the pages."""
    for file in (server.ADDRESS, server.PAGES):
        file.unlink(missing_ok=True)


def watch(services: list[Service], stopped: threading.Event) -> None:
    """Restarts services that end, and ends runs whose process is dead, until the event is set."""
    checked = time.monotonic()
    while not stopped.wait(1):
        for service in services:
            service.ensure_running()
        if time.monotonic() - checked > RECONCILE:
            checked = time.monotonic()
            with suppress(Exception):  # the server may be away for the moment
                server.reconcile(logger)


def stop(api: Service, others: list[Service]) -> None:
    """Stops the workers and then the server, which receives the last states of their runs."""
    print("stopping: runs save their work (at most half a minute)", flush=True)
    remove_addresses()
    with ThreadPoolExecutor(len(others)) as pool:
        list(pool.map(Service.stop, others))
    api.stop()


def main() -> None:
    """Starts the services from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.serve",
        description="Runs the Prefect server, its workers and the deployments on this machine, until Ctrl-C.",
    )
    parser.add_argument(
        "--host", default=LOOPBACK, help="address that the server listens on (default: this machine only)"
    )
    parser.add_argument(
        "--port", type=int, default=4200, help="port of the server; the report and Data Docs get the next one"
    )
    arguments = parser.parse_args()
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    try:
        require_root()
        serve(arguments.host, arguments.port)
    except (ServeError, NotInRootError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
