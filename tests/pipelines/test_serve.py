"""`make serve` with a toy pipeline: real server, real workers, real kills."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from support.serving import Served, commit, free_port, make_toy, serving, until

from pipelines.orchestration.server import answers

pytestmark = pytest.mark.slow

ALL = ["ingest", "pretrain", "transfer-a", "transfer-b", "zreport"]


@pytest.fixture
def fresh(served: Served) -> Iterator[Served]:
    """The toy pipeline as if never run; afterwards nothing of it runs, however the test ended."""
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
    until(lambda: not toy.processes(), 60, "the end of what the test left")


def seconds(run: dict) -> float:
    """From being picked up to the end."""
    start, end = (datetime.fromisoformat(run[name]) for name in ("start_time", "end_time"))
    return (end - start).total_seconds()


def test_a_run_and_what_it_shows(fresh: Served) -> None:
    fresh.toy.configure(tenths=70)
    run = fresh.launch("run/nightly")
    ended = fresh.ended(run)
    assert ended["state_name"] == "Completed", fresh.said(run)
    assert fresh.toy.worked("begin") in (ALL, [*ALL[:2], "transfer-b", "transfer-a", ALL[-1]])
    tasks = fresh.tasks(run)
    assert {task["state_name"] for task in tasks.values()} == {"Completed"}
    below = {child["parent_task_run_id"]: child for child in fresh.children(run)}
    for name in ("ingest", "pretrain", "transfer@a", "transfer@b", "zreport"):
        assert below[tasks[name]["id"]]["name"] == name  # the stage's own flow run, under its task
        assert below[tasks[name]["id"]]["state_name"] == "Completed"
    assert "pretrain is done" in fresh.said(run)
    assert "pretrain is done" in fresh.said(below[tasks["pretrain"]["id"]]["id"])
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


def test_failure_is_told_and_not_tried_again(fresh: Served) -> None:
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


def test_what_can_pass_is_tried_again(fresh: Served) -> None:
    fresh.toy.configure(ingest="flaky")
    run = fresh.launch("run/nightly", targets=["ingest"])
    assert fresh.ended(run)["state_name"] == "Completed"
    assert fresh.tasks(run)["ingest"]["run_count"] == 2


def test_timeout(fresh: Served) -> None:
    fresh.toy.configure(tenths=600)
    run = fresh.launch("run/nightly", timeouts={"pretrain": 6})
    ended = fresh.ended(run)
    assert ended["state_name"] == "Failed"
    assert "timeout" in ended["state"]["message"]
    assert fresh.toy.processes() == []


def begun(served: Served) -> None:
    until(lambda: "pretrain" in served.toy.worked("begin"), 60, "pretrain begins")
    time.sleep(1)


def test_cancel(fresh: Served) -> None:
    """From the click to nothing left: at most 30 s, the work saved."""
    fresh.toy.configure(tenths=6000)
    run = fresh.launch("run/nightly")
    begun(fresh)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    fresh.post(f"/flow_runs/{run}/set_state", state=state)
    clicked = time.monotonic()
    assert fresh.ended(run)["state_name"] == "Cancelled"
    until(lambda: not fresh.toy.processes(), 30 - (time.monotonic() - clicked), "the end of every process")
    assert (fresh.toy.folder / ".work/pretrain.saved").is_file()
    assert {child["state_type"] for child in fresh.children(run)} == {"COMPLETED", "CANCELLED"}


@pytest.mark.parametrize("whom", ["worker", "all"])
def test_kill_9_of_the_worker(fresh: Served, whom: str) -> None:
    """The same run is finished by the worker that is started again, from where it was saved."""
    fresh.toy.configure(tenths=60)
    run = fresh.launch("run/nightly")
    begun(fresh)
    worker = fresh.worker()
    flow = next(child for child in worker.children() if "prefect.engine" in " ".join(child.cmdline()))
    doomed = [worker, flow] if whom == "all" else [worker]
    below = worker.children(recursive=True)
    for process in doomed:
        os.kill(process.pid, signal.SIGKILL)
    ended = fresh.ended(run)
    assert ended["state_name"] == "Completed", ended
    assert "continuing at" in fresh.said(run)
    assert fresh.toy.worked("end")[:3] == ["ingest", "pretrain", "pretrain"]  # stopped once, then finished
    assert sorted(fresh.toy.worked("begin")) == sorted([*ALL, "pretrain"])
    assert not [process for process in below if process.is_running()]
    unfinished = fresh.flow_runs(state={"type": {"any_": ["RUNNING", "CANCELLING"]}})
    assert unfinished == []


def test_server_away_in_the_middle(fresh: Served) -> None:
    """The stage finishes and is cached; the next run says so."""
    fresh.toy.configure(tenths=80)
    run = fresh.launch("run/nightly")
    begun(fresh)
    server = next(
        child
        for child in psutil.Process(fresh.process.pid).children(recursive=True)
        if "server" in child.cmdline() and "pipelines.orchestration.supervise" not in child.cmdline()
    )
    server.kill()
    until(lambda: "pretrain" in fresh.toy.worked("end"), 60, "the end of pretrain")
    assert fresh.toy.starts("pretrain") == 1
    until(lambda: answers(fresh.url), 60, "the server's return")
    assert fresh.ended(run, 150)["state_type"] in ("COMPLETED", "CRASHED", "FAILED")
    again = fresh.launch("run/nightly")
    assert fresh.ended(again)["state_name"] == "Completed"
    assert fresh.tasks(again)["pretrain"]["state_name"] == "Cached"
    assert fresh.toy.starts("pretrain") == 1


def test_never_two_pretrainings(fresh: Served, tmp_path) -> None:
    """Two folders, one GPU: the second waits for the first."""
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


def test_others_are_let_in_by_password_alone(tmp_path: Path) -> None:
    """Bound wider than 127.0.0.1, the server asks for one, and the run's own processes know it."""
    toy = make_toy(tmp_path)
    refused = toy.start("pipelines.serve", "--host", "127.0.0.2", "--port", str(free_port()))
    said, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "set PREFECT_SERVER_API_AUTH_STRING=user:password" in said
    with serving(toy, "127.0.0.2", PREFECT_SERVER_API_AUTH_STRING="anna:secret") as served:
        assert httpx.post(f"{served.url}/flow_runs/filter", json={}).status_code == 401
        served.password = ("anna", "secret")
        run = served.launch("run/nightly", targets=["ingest"])
        assert served.ended(run)["state_name"] == "Completed", served.said(run)


def test_new_images_start_a_run(fresh: Served) -> None:
    """Whoever sends the event `fra.data.new` starts the deployment on-new-data."""
    deployment = fresh.get("/deployments/name/run/on-new-data")["id"]
    resource = {"prefect.resource.id": "fra.data.folder"}
    event = {"id": str(uuid4()), "event": "fra.data.new", "resource": resource, "payload": {}}
    fresh.ask("POST", "/events", [event | {"occurred": datetime.now().astimezone().isoformat()}])
    found = until(lambda: fresh.flow_runs(deployment_id={"any_": [deployment]}), 30, "a run of on-new-data")
    assert fresh.ended(found[0]["id"])["state_name"] == "Completed"


def test_the_sensor_sees_new_images_once(fresh: Served, tmp_path: Path) -> None:
    """Of a folder of the user's own; the run that it starts lists the folder again, though DVC sees no change."""
    deployment = fresh.get("/deployments/name/run/on-new-data")["id"]
    before = len(fresh.flow_runs(deployment_id={"any_": [deployment]}))
    params = fresh.toy.folder / "params.yaml"
    kept = params.read_text()
    (tmp_path / "face.jpg").write_bytes(b"a face")
    params.write_text(f"dataset: {{root: {tmp_path}}}\ntoy: {{rate: 1}}\n")
    try:
        looks = [fresh.ended(fresh.launch("sensor/sensor", settle=0.5)) for _ in range(2)]
        assert [look["state"]["message"] for look in looks] == ["New images.", "Nothing new."]
        found = until(
            lambda: fresh.flow_runs(deployment_id={"any_": [deployment]})[before:], 30, "a run of on-new-data"
        )
        assert len(found) == 1
        assert fresh.ended(found[0]["id"])["state_name"] == "Completed"
        assert fresh.toy.starts("ingest") == 1
    finally:
        params.write_text(kept)


def test_sweep(fresh: Served) -> None:
    """Two experiments on the pool "gpu", their figures side by side; the workspace stays as it was."""
    assert fresh.toy.run("ingest")[0] == 0
    commit(fresh.toy.folder)
    params = (fresh.toy.folder / "params.yaml").read_text()
    run = fresh.launch("sweep/sweep", grid=["toy.rate=2,3"], targets=["ingest"], jobs=2)
    assert fresh.ended(run, 180)["state_name"] == "Completed", fresh.said(run)
    shown = fresh.post("/artifacts/filter", flow_runs={"id": {"any_": [run]}})
    assert [(row["set"], row["state"]) for row in json.loads(shown[0]["data"])] == [
        ("toy.rate=2", "Success"),
        ("toy.rate=3", "Success"),
    ]
    assert (fresh.toy.folder / "params.yaml").read_text() == params
