"""`make serve` with a toy pipeline: a real server, real workers, processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from support.serving import Served, commit, free_port, make_toy, serving, until

from pipelines.orchestration.server import answers
from pipelines.serve import POOLS, install_pools

pytestmark = pytest.mark.slow

ALL = ["ingest", "pretrain", "transfer-a", "transfer-b", "zreport"]


@pytest.fixture
def fresh(served: Served) -> Iterator[Served]:
    """The toy pipeline as before its first run; after the test no process of it is left."""
    toy = served.toy
    toy.configure()
    for name in ("made", ".dvc/cache"):
        for path in sorted((toy.folder / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    for path in (toy.folder / "dvc.lock", *(toy.folder / ".work").glob("*.s[ta]*"), toy.log):
        path.unlink(missing_ok=True)
    yield served
    for run in served.flow_runs(state={"type": {"any_": ["PENDING", "RUNNING"]}}):
        served.post(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    until(lambda: not toy.processes(), 60, "the end of the stages that the test left")


def seconds(run: dict) -> float:
    """Returns the duration of a run from its start."""
    start, end = (datetime.fromisoformat(run[name]) for name in ("start_time", "end_time"))
    return (end - start).total_seconds()


def test_run_shows_tasks_stages_logs_and_artifacts(fresh: Served) -> None:
    fresh.toy.configure(tenths=70)
    run = fresh.launch("run/nightly")
    ended = fresh.ended(run)
    assert ended["state_name"] == "Completed", fresh.logs(run)
    assert fresh.toy.logged("begin") in (ALL, [*ALL[:2], "transfer-b", "transfer-a", ALL[-1]])
    tasks = fresh.tasks(run)
    assert {task["state_name"] for task in tasks.values()} == {"Completed"}
    below = {child["parent_task_run_id"]: child for child in fresh.children(run)}
    for name in ("ingest", "pretrain", "transfer@a", "transfer@b", "zreport"):
        assert below[tasks[name]["id"]]["name"] == name  # the stage's own flow run, under its task
        assert below[tasks[name]["id"]]["state_name"] == "Completed"
    assert "pretrain is done" in fresh.logs(run)
    assert "pretrain is done" in fresh.logs(below[tasks["pretrain"]["id"]]["id"])
    shown = {
        found["key"]: found for found in fresh.post("/artifacts/filter", flow_runs={"id": {"any_": [run]}})
    }
    assert {"made", "progress-pretrain"} <= shown.keys()
    assert "made/zreport" in shown["made"]["data"]

    again = fresh.launch("run/nightly")
    ended = fresh.ended(again)
    assert {task["state_name"] for task in fresh.tasks(again).values()} == {"Cached"}
    assert fresh.children(again) == []
    assert seconds(ended) < 15


def test_failure_calls_the_webhook_and_is_not_retried(fresh: Served) -> None:
    fresh.toy.configure(ingest="bad")
    run = fresh.launch("run/nightly")
    ended = fresh.ended(run)
    assert ended["state_name"] == "Failed"
    assert "a parameter is wrong" in ended["state"]["message"]
    assert fresh.toy.starts("ingest") == 1
    alert = until(
        lambda: [found for found in fresh.alerts if ended["name"] in found["text"]], 20, "the webhook's call"
    )
    assert "a parameter is wrong" in alert[0]["text"]
    assert run in alert[0]["url"]


def test_transient_error_is_retried(fresh: Served) -> None:
    fresh.toy.configure(ingest="flaky")
    run = fresh.launch("run/nightly", targets=["ingest"])
    assert fresh.ended(run)["state_name"] == "Completed"
    assert fresh.tasks(run)["ingest"]["run_count"] == 2


def test_stage_that_exceeds_its_timeout_fails(fresh: Served) -> None:
    fresh.toy.configure(tenths=600)
    run = fresh.launch("run/nightly", timeouts={"pretrain": 6})
    ended = fresh.ended(run)
    assert ended["state_name"] == "Failed"
    assert "timeout" in ended["state"]["message"]
    assert fresh.toy.processes() == []


def wait_for_pretrain(served: Served) -> None:
    """Waits until `pretrain` has run for a second."""
    until(lambda: "pretrain" in served.toy.logged("begin"), 60, "pretrain begins")
    time.sleep(1)


def test_cancelled_run_saves_and_ends_within_30_s(fresh: Served) -> None:
    fresh.toy.configure(tenths=6000)
    run = fresh.launch("run/nightly")
    wait_for_pretrain(fresh)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    fresh.post(f"/flow_runs/{run}/set_state", state=state)
    cancelled = time.monotonic()
    assert fresh.ended(run)["state_name"] == "Cancelled"
    until(lambda: not fresh.toy.processes(), 30 - (time.monotonic() - cancelled), "the end of every process")
    assert (fresh.toy.folder / ".work/pretrain.saved").is_file()
    assert {child["state_type"] for child in fresh.children(run)} == {"COMPLETED", "CANCELLED"}


def kill_worker(served: Served, *, with_flow: bool, pool: str = "local") -> list[psutil.Process]:
    """Kills the worker of a pool with -9, and its flow's process too; returns all processes below the worker."""
    worker = served.worker(pool)
    below = worker.children(recursive=True)
    flow = next(child for child in below if "prefect.engine" in " ".join(child.cmdline()))
    for process in [worker, flow] if with_flow else [worker]:
        os.kill(process.pid, signal.SIGKILL)
    return below


def unfinished(served: Served) -> list[str]:
    """Returns the flow runs and task runs that the server shows as started but not ended."""
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    tasks = served.post("/task_runs/filter", task_runs={"state": states})
    return [found["name"] for found in [*served.flow_runs(state=states), *tasks]]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("age", "with_flow"), [(1, False), (1, True), (16, False), (70, False), (70, True), (200, True)]
)
def test_run_continues_once_after_kill_9_of_its_worker(fresh: Served, age: int, with_flow: bool) -> None:
    """`age` seconds after the run's first start: one further start finishes it, and nothing is left Running."""
    fresh.toy.configure(tenths=10 * age + 400)
    run = fresh.launch("run/nightly")
    until(lambda: "pretrain" in fresh.toy.logged("begin"), 120, "pretrain begins")
    started = datetime.fromisoformat(fresh.flow_run(run)["start_time"]).timestamp()
    time.sleep(max(1, started + age - time.time()))
    below = kill_worker(fresh, with_flow=with_flow)
    ended = fresh.ended(run, age + 300)
    assert ended["state_name"] == "Completed", ended
    assert ended["run_count"] == 2
    states = [state["name"] for state in fresh.get(f"/flow_run_states/?flow_run_id={run}")]
    assert states.count("Running") == 2
    assert "Crashed" not in states
    assert "continuing at" in fresh.logs(run)
    assert fresh.toy.logged("end")[:3] == ["ingest", "pretrain", "pretrain"]  # stopped once, then finished
    assert sorted(fresh.toy.logged("begin")) == sorted([*ALL, "pretrain"])
    assert not [process for process in below if process.is_running()]
    until(lambda: not unfinished(fresh), 60, "the end of every flow run and task run")


@pytest.mark.timeout(600)
def test_run_continues_once_if_worker_and_process_die_before_it_begins(fresh: Served) -> None:
    """It is Pending: Prefect sends no heartbeats yet, and its own rules never end it."""
    run = fresh.launch("run/nightly", targets=["ingest"])
    until(lambda: fresh.flow_run(run)["infrastructure_pid"], 60, "the process of the run")
    worker = fresh.worker()
    for process in [worker, *worker.children(recursive=True)]:
        process.kill()
    assert fresh.flow_run(run)["state_type"] == "PENDING"
    ended = fresh.ended(run, 300)
    assert ended["state_name"] == "Completed", ended
    assert ended["run_count"] == 1
    assert fresh.toy.starts("ingest") == 1
    until(lambda: not unfinished(fresh), 60, "the end of every flow run and task run")


def test_limits_of_existing_pools_are_set_at_each_start(fresh: Served) -> None:
    fresh.request("PATCH", "/work_pools/gpu", {"concurrency_limit": 7})
    with temporary_settings({PREFECT_API_URL: fresh.url}):
        install_pools()
    assert {pool["name"]: pool["concurrency_limit"] for pool in fresh.post("/work_pools/filter")} == POOLS


def test_stage_waits_for_its_slot_while_the_server_restarts(fresh: Served) -> None:
    """Another run holds the only slot: without it, two would use one GPU."""
    limit = {"names": ["gpu"], "slots": 1}
    fresh.post("/v2/concurrency_limits/", name="gpu", limit=1)
    fresh.post("/v2/concurrency_limits/increment", **limit)
    try:
        stage = subprocess.Popen(
            [sys.executable, "toy_stage.py", "pretrain", "hold"],
            cwd=fresh.toy.folder,
            env=fresh.toy.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        waiting = {"name": {"any_": ["pretrain"]}, "state": {"type": {"any_": ["RUNNING"]}}}
        until(lambda: fresh.flow_runs(**waiting), 60, "the stage waits for its slot")
        time.sleep(2)
        away = time.monotonic() + 30  # longer than Prefect's client tries again
        while time.monotonic() < away:
            for process in server_processes(fresh):
                process.kill()
            time.sleep(0.5)
        until(lambda: answers(fresh.url), 90, "the server's return")
        time.sleep(10)
        assert stage.poll() is None
        assert fresh.toy.logged("begin") == []
    finally:
        fresh.post("/v2/concurrency_limits/decrement", **limit)
    output, _ = stage.communicate(timeout=120)
    assert stage.returncode == 0, output
    assert "waiting for the Prefect server" in output
    assert fresh.toy.logged("end") == ["pretrain"]
    found = fresh.flow_runs(name={"any_": ["pretrain"]})[-1]
    assert found["state_name"] == "Completed"


def server_processes(served: Served) -> list[psutil.Process]:
    """Returns the process of the server itself, if it runs now, not that of its supervisor."""
    found = []
    for child in psutil.Process(served.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line = child.cmdline()
            if "server" in line and "pipelines.orchestration.supervise" not in line:
                found.append(child)
    return found


def test_stage_finishes_while_the_server_is_away(fresh: Served) -> None:
    """Its outputs are cached, and the next run shows it as Cached."""
    fresh.toy.configure(tenths=80)
    run = fresh.launch("run/nightly")
    wait_for_pretrain(fresh)
    server_processes(fresh)[0].kill()
    until(lambda: "pretrain" in fresh.toy.logged("end"), 60, "the end of pretrain")
    assert fresh.toy.starts("pretrain") == 1
    until(lambda: answers(fresh.url), 60, "the server's return")
    assert fresh.ended(run, 150)["state_type"] in ("COMPLETED", "CRASHED", "FAILED")
    again = fresh.launch("run/nightly")
    assert fresh.ended(again)["state_name"] == "Completed"
    assert fresh.tasks(again)["pretrain"]["state_name"] == "Cached"
    assert fresh.toy.starts("pretrain") == 1


def test_two_pretrainings_never_run_at_the_same_time(fresh: Served, tmp_path) -> None:
    """Two project folders, one GPU: the second run waits for the first."""
    other = make_toy(tmp_path)
    other.env.update(fresh.toy.env)
    other.log = fresh.toy.log
    fresh.toy.configure(tenths=40)
    other.configure(tenths=40)
    first = fresh.toy.start("pipelines.run", "pretrain")
    second = other.start("pipelines.run", "pretrain")
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    words = [
        line.split()[1] for line in fresh.toy.log.read_text().splitlines() if line.split()[2] == "pretrain"
    ]
    assert words == ["begin", "end", "begin", "end"]


def test_server_on_another_address_requires_a_password(tmp_path: Path) -> None:
    """The processes of a run have it."""
    toy = make_toy(tmp_path)
    refused = toy.start("pipelines.serve", "--host", "127.0.0.2", "--port", str(free_port()))
    output, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "set PREFECT_SERVER_API_AUTH_STRING=user:password" in output
    with serving(toy, "127.0.0.2", PREFECT_SERVER_API_AUTH_STRING="anna:secret") as served:
        assert httpx.post(f"{served.url}/flow_runs/filter", json={}).status_code == 401
        served.password = ("anna", "secret")
        run = served.launch("run/nightly", targets=["ingest"])
        assert served.ended(run)["state_name"] == "Completed", served.logs(run)


def test_proxies_and_wrong_ends_of_the_address(tmp_path: Path) -> None:
    """In a network with a proxy, which cannot reach this machine; and PREFECT_API_URL as people write it."""
    proxy = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    toy = make_toy(tmp_path)
    with serving(toy, **proxy, NO_PROXY="", no_proxy="") as served:
        run = served.launch("run/nightly", targets=["ingest"])
        assert served.ended(run)["state_name"] == "Completed", served.logs(run)
        shown = len(served.flow_runs())
        for url in (served.url, served.url.removesuffix("/api"), f"{served.url}/"):
            code, output = toy.run("ingest", PREFECT_API_URL=url, **proxy)
            assert code == 0, output
            assert len(served.flow_runs()) == (shown := shown + 1), output


def test_event_of_new_images_starts_a_run(fresh: Served) -> None:
    """The event `fra.data.new` starts the deployment on-new-data."""
    deployment = fresh.get("/deployments/name/run/on-new-data")["id"]
    resource = {"prefect.resource.id": "fra.data.folder"}
    event = {"id": str(uuid4()), "event": "fra.data.new", "resource": resource, "payload": {}}
    fresh.request("POST", "/events", [event | {"occurred": datetime.now().astimezone().isoformat()}])
    found = until(lambda: fresh.flow_runs(deployment_id={"any_": [deployment]}), 30, "a run of on-new-data")
    assert fresh.ended(found[0]["id"])["state_name"] == "Completed"


def test_sensor_reports_new_images_once(fresh: Served, tmp_path: Path) -> None:
    """The run that it starts lists the user's own folder again, although DVC sees no change."""
    deployment = fresh.get("/deployments/name/run/on-new-data")["id"]
    before = len(fresh.flow_runs(deployment_id={"any_": [deployment]}))
    params = fresh.toy.folder / "params.yaml"
    kept = params.read_text()
    (tmp_path / "face.jpg").write_bytes(b"a face")
    params.write_text(f"dataset: {{root: {tmp_path}}}\ntoy: {{rate: 1}}\n")
    try:
        runs = [fresh.ended(fresh.launch("sensor/sensor", settle=0.5)) for _ in range(2)]
        assert [run["state"]["message"] for run in runs] == ["New images.", "Nothing new."]
        found = until(
            lambda: fresh.flow_runs(deployment_id={"any_": [deployment]})[before:], 30, "a run of on-new-data"
        )
        assert len(found) == 1
        assert fresh.ended(found[0]["id"])["state_name"] == "Completed"
        assert fresh.toy.starts("ingest") == 1
    finally:
        params.write_text(kept)


def test_sweep_runs_each_combination(fresh: Served) -> None:
    """Two experiments on the pool "gpu" and their metrics in one table; the workspace is unchanged."""
    assert fresh.toy.run("ingest")[0] == 0
    commit(fresh.toy.folder)
    params = (fresh.toy.folder / "params.yaml").read_text()
    run = fresh.launch("sweep/sweep", grid=["toy.rate=2,3"], targets=["ingest"], jobs=2)
    assert fresh.ended(run, 180)["state_name"] == "Completed", fresh.logs(run)
    shown = fresh.post("/artifacts/filter", flow_runs={"id": {"any_": [run]}})
    assert [(row["set"], row["state"]) for row in json.loads(shown[0]["data"])] == [
        ("toy.rate=2", "Success"),
        ("toy.rate=3", "Success"),
    ]
    assert (fresh.toy.folder / "params.yaml").read_text() == params


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("with_flow", [False, True])
def test_sweep_continues_once_after_kill_9_of_its_worker(fresh: Served, with_flow: bool) -> None:
    """In the middle of a stage of its first experiment: one further start runs both, and nothing is left."""
    assert fresh.toy.run("ingest")[0] == 0
    fresh.toy.configure(tenths=150)
    commit(fresh.toy.folder)
    fresh.toy.log.unlink()
    run = fresh.launch("sweep/sweep", grid=["toy.rate=2,3"], targets=["pretrain"])
    until(lambda: "pretrain" in fresh.toy.logged("begin"), 180, "pretrain begins")
    time.sleep(1)
    below = kill_worker(fresh, with_flow=with_flow, pool="gpu")
    ended = fresh.ended(run, 400)
    assert ended["state_name"] == "Completed", fresh.logs(run)
    assert ended["run_count"] == 2
    assert "Crashed" not in [state["name"] for state in fresh.get(f"/flow_run_states/?flow_run_id={run}")]
    shown = fresh.post("/artifacts/filter", flow_runs={"id": {"any_": [run]}})
    assert [row["state"] for row in json.loads(shown[0]["data"])] == ["Success", "Success"]
    assert not [process for process in below if process.is_running()]
    until(lambda: not unfinished(fresh), 60, "the end of every flow run and task run")
    left = [path for path in (fresh.toy.folder / ".dvc/tmp/exps").rglob("*") if path.name == "toy_stage.py"]
    assert left == []


def test_failed_sweep_gives_the_reason(fresh: Served) -> None:
    assert fresh.toy.run("ingest")[0] == 0
    fresh.toy.configure(ingest="bad")
    commit(fresh.toy.folder)
    ended = fresh.ended(fresh.launch("sweep/sweep", grid=["toy.rate=2,3"], targets=["ingest"]), 300)
    assert ended["state_name"] == "Failed"
    assert "2 of 2 experiments failed" in ended["state"]["message"]
    assert "(toy.rate=3): ingest: a parameter is wrong" in ended["state"]["message"]


def test_sweep_checks_all_combinations_first(fresh: Served) -> None:
    ended = fresh.ended(fresh.launch("sweep/sweep", grid=["toy.rate=2,3", "toy.speed=1"], targets=["ingest"]))
    assert ended["state_name"] == "Failed"
    assert "'toy.speed'" in ended["state"]["message"]
    assert fresh.toy.starts("ingest") == 0
