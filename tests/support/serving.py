"""A toy pipeline in its own folder, and `make serve` for it: real DVC, real server, real workers."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from support.workspace import ROOT, copy_code, environment

TOY = {
    "ingest": ("python toy_stage.py ingest plain", []),
    "pretrain": ("python toy_stage.py pretrain hold", ["ingest"]),
    "transfer@a": ("python toy_stage.py transfer-a plain", ["pretrain"]),
    "transfer@b": ("python toy_stage.py transfer-b plain", ["pretrain"]),
    "zreport": ("python toy_stage.py zreport plain", ["transfer-a", "transfer-b"]),
}
"""Command and inputs (files in made/) of each stage."""


def commit(folder: Path) -> None:
    """Makes the folder a git repository, and commits everything in it."""
    (folder / ".gitignore").write_text("__pycache__\n.work\n.prefect\n.site\n/data\n/artifacts\n/made\n")
    for command in (
        ["git", "init", "-q", "-b", "main"],
        ["git", "config", "user.name", "test"],
        ["git", "config", "user.email", "test@example.org"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "--allow-empty", "-m", "start"],
    ):
        subprocess.run(command, cwd=folder, check=True, env=environment())


def toy_stages(**behaviours: str) -> dict[str, Any]:
    """Returns dvc.yaml of the toy pipeline; `behaviours` changes what a stage does ("flaky", "bad")."""
    stages = {}
    for name, (command, needs) in TOY.items():
        behaviour = behaviours.get(name)
        stages[name] = {
            "cmd": command.rsplit(" ", 1)[0] + f" {behaviour}" if behaviour else command,
            "deps": [f"made/{need}" for need in needs],
            "outs": [f"made/{name.replace('@', '-')}"],
            "params": ["toy.rate"] if name == "ingest" else [],
        }
    grouped = {name: stage for name, stage in stages.items() if "@" not in name}
    grouped["transfer"] = {
        "foreach": ["a", "b"],
        "do": {
            "cmd": "python toy_stage.py transfer-${item} plain",
            "deps": ["made/pretrain"],
            "outs": ["made/transfer-${item}"],
        },
    }
    return {"stages": grouped}


@dataclass
class Toy:
    """A project folder with the toy pipeline."""

    folder: Path
    log: Path
    env: dict[str, str] = field(default_factory=dict)

    def configure(self, tenths: int = 3, **behaviours: str) -> None:
        """Sets how long `pretrain` takes, in tenths of a second, and what other stages do."""
        (self.folder / ".work").mkdir(exist_ok=True)
        (self.folder / ".work/tenths").write_text(str(tenths))
        (self.folder / "dvc.yaml").write_text(yaml.safe_dump(toy_stages(**behaviours), sort_keys=False))

    def environment(self, **more: str) -> dict[str, str]:
        own = {
            "TOY_LOG": str(self.log),
            "DVC_SITE_CACHE_DIR": str(self.folder / ".site"),
            "OMP_NUM_THREADS": "1",
        }
        return {**environment(), **own, **self.env, **more}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell that starts the tests in the background has them ignore SIGINT, and all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Runs `python -m pipelines.run …` to its end; returns exit code and output."""
        process = self.start("pipelines.run", *arguments, **more)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def starts(self, stage: str) -> int:
        """Returns how often a stage was started."""
        counted = self.folder / ".work" / f"{stage}.starts"
        return len(counted.read_text()) if counted.exists() else 0

    def logged(self, word: str) -> list[str]:
        """Returns the stages that wrote `word` ("begin", "end") into the log, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split()[2] for line in lines if line.split()[1] == word]

    def processes(self) -> list[psutil.Process]:
        """Returns the running processes of stages (zombies included), whatever their parent is."""
        found = []
        for process in psutil.process_iter():
            try:
                if "toy_stage.py" in " ".join(process.cmdline()) and process.cwd() == str(self.folder):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def make_toy(folder: Path) -> Toy:
    for name in ("fra", "pipelines"):
        copy_code(ROOT / name, folder / name)
    for name in ("prefect.yaml", "prefect.toml", "tests/support/toy_stage.py"):
        shutil.copy2(ROOT / name, folder / Path(name).name)
    (folder / "params.yaml").write_text("dataset: {root: null}\ntoy: {rate: 1}\n")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    made = Toy(folder, folder / ".work/log")
    made.configure()
    commit(folder)
    return made


@dataclass
class Served:
    """A running `make serve`, and requests to its server."""

    url: str
    toy: Toy
    process: subprocess.Popen[str]
    log: Path
    alerts: list[dict[str, Any]]
    password: tuple[str, str] | None = None

    def post(self, path: str, **body: Any) -> Any:
        return self.request("POST", path, body)

    def get(self, path: str) -> Any:
        return self.request("GET", path, None)

    def request(self, method: str, path: str, body: Any) -> Any:
        """Sends a request, again if the server is busy (503), as Prefect's own client does."""
        for pause in (0.5, 1, 2, 4, 0):
            answer = httpx.request(method, f"{self.url}{path}", json=body, timeout=120, auth=self.password)
            if answer.status_code != 503:
                break
            time.sleep(pause)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def flow_runs(self, **filters: Any) -> list[dict[str, Any]]:
        return list(self.post("/flow_runs/filter", flow_runs=filters, sort="START_TIME_ASC"))

    def flow_run(self, run: str) -> dict[str, Any]:
        return dict(self.get(f"/flow_runs/{run}"))

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        found = self.post("/task_runs/filter", task_runs={"flow_run_id": {"any_": [run]}})
        return {task["name"]: task for task in found}

    def children(self, run: str) -> list[dict[str, Any]]:
        return self.flow_runs(parent_flow_run_id={"any_": [run]})

    def launch(self, deployment: str, **parameters: Any) -> str:
        found = self.get(f"/deployments/name/{deployment}")
        return str(self.post(f"/deployments/{found['id']}/create_flow_run", parameters=parameters)["id"])

    def ended(self, run: str, seconds: float = 120) -> dict[str, Any]:
        """Waits for the end of a run and returns it."""

        def over() -> dict[str, Any] | None:
            found = self.flow_run(run)
            return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return dict(until(over, seconds, f"the end of run {run}"))

    def logs(self, run: str) -> str:
        """Returns the log of a run and its tasks."""
        filters = {"flow_run_id": {"any_": [run]}}
        found: list[dict[str, Any]] = []
        while page := self.post(
            "/logs/filter", logs=filters, sort="TIMESTAMP_ASC", limit=200, offset=len(found)
        ):
            found += page
        return "\n".join(line["message"] for line in found)

    def worker(self, pool: str = "local") -> psutil.Process:
        """Returns the process of the worker itself, not that of its supervisor."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            line = process.cmdline()
            if "worker" in line and pool in line and "pipelines.orchestration.supervise" not in line:
                return process
        raise AssertionError(f"no worker of {pool}")


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Waits until `condition()` is true and returns its value; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook, which answers other requests, too: its address, and the list of what was posted to it."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/alert", received
    finally:
        listener.shutdown()


@contextmanager
def serving(toy: Toy, host: str = "127.0.0.1", **settings: str) -> Iterator[Served]:
    """Server, workers and deployments of a toy pipeline; no process of it may be left at the end."""
    port = free_port()
    log = toy.folder / ".work/serve.log"
    with log.open("w") as output, receiver() as (webhook, alerts):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.serve", "--host", host, "--port", str(port)],
            cwd=toy.folder,
            env=toy.environment(FRA_ALERT_URL=webhook, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        toy.env["PREFECT_API_URL"] = f"http://{host}:{port}/api"
        try:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                return "\nPrefect: " in f"\n{log.read_text()}"

            until(ready, 300, f"make serve; see {log}")
            yield Served(toy.env["PREFECT_API_URL"], toy, process, log, alerts)
        finally:
            below = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert not [process for process in below if process.is_running()], "make serve left processes behind"
