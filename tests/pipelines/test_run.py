"""`python -m pipelines.run` without a server: order, skipped stages, retries, kill and continue, commit, push."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest
from support.serving import Toy, until

from pipelines.repo import graph

ALL = ["ingest", "pretrain", "transfer-a", "transfer-b", "zreport"]


def test_plan_is_the_graph_of_dvc(toy: Toy, monkeypatch) -> None:
    monkeypatch.chdir(toy.folder)
    plan = graph.read()
    assert [stage.name for stage in plan.stages] == [
        "ingest",
        "pretrain",
        "transfer@a",
        "transfer@b",
        "zreport",
    ]
    assert {stage.name: stage.needs for stage in plan.stages}["zreport"] == ("transfer@a", "transfer@b")
    assert all(stage.stale for stage in plan.stages)
    assert [stage.name for stage in graph.read(["transfer"]).stages] == [
        "ingest",
        "pretrain",
        "transfer@a",
        "transfer@b",
    ]


def test_stages_run_in_order_and_then_are_up_to_date(toy: Toy) -> None:
    """The first stage has a transient error at first, and is retried."""
    toy.configure(ingest="flaky")
    code, output = toy.run()
    assert code == 0, output
    assert toy.starts("ingest") == 2
    assert toy.logged("begin") == ALL
    code, output = toy.run()
    assert code == 0, output
    assert output.count("up to date") == len(ALL)
    assert toy.logged("begin") == ALL


@pytest.mark.slow
def test_removed_output_is_restored_from_the_cache(toy: Toy) -> None:
    assert toy.run()[0] == 0
    (toy.folder / "made/transfer-a").unlink()
    toy.log.unlink()
    code, output = toy.run()
    assert code == 0, output
    assert toy.logged("begin") == []
    assert (toy.folder / "made/transfer-a").is_file()


@pytest.mark.slow
def test_other_error_is_not_retried(toy: Toy) -> None:
    toy.configure(ingest="bad")
    code, output = toy.run("ingest")
    assert code == 1
    assert toy.starts("ingest") == 1
    assert output.strip().splitlines()[-1] == "error: ingest: a parameter is wrong"


def test_unknown_stage_is_reported_in_one_line(toy: Toy) -> None:
    code, output = toy.run("nonsense")
    assert code == 1
    assert "nonsense" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_after_kill_9_no_process_is_left_and_the_next_run_continues(toy: Toy) -> None:
    toy.configure(tenths=40)
    process = toy.start("pipelines.run")
    until(lambda: "pretrain" in toy.logged("begin"), 40, "pretrain begins")
    time.sleep(1)
    below = psutil.Process(process.pid).children(recursive=True)
    assert toy.processes()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # The next run starts at once: it must wait until the first one's stage has saved and ended.
    code, output = toy.run()
    assert code == 0, output
    assert "continuing at" in output
    assert not [one for one in below if one.is_running()]
    ends = toy.logged("end")
    assert ends == ["ingest", "pretrain", *ALL[1:]]
    assert toy.logged("begin") == ends  # never two at the same time


def test_ctrl_c_lets_the_stage_save(toy: Toy) -> None:
    toy.configure(tenths=100)
    process = toy.start("pipelines.run")
    until(lambda: "pretrain" in toy.logged("begin"), 40, "pretrain begins")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    until(lambda: not toy.processes(), 30, "the end of the stage, which saves first")
    assert (toy.folder / ".work/pretrain.saved").is_file()


@pytest.mark.slow
def test_second_run_waits_for_the_first(toy: Toy) -> None:
    toy.configure(tenths=20)
    first, second = toy.start("pipelines.run"), toy.start("pipelines.run")
    output = first.communicate(timeout=90)[0], second.communicate(timeout=90)[0]
    assert (first.returncode, second.returncode) == (0, 0), output
    assert toy.logged("begin") == ALL  # the second run found everything up to date
    assert "is running in this folder" in "".join(output)
    status = subprocess.run(
        ["dvc", "status"], cwd=toy.folder, env=toy.environment(), capture_output=True, text=True
    )
    assert "up to date" in status.stdout, status


@pytest.mark.slow
def test_commit_contains_results_only(toy: Toy) -> None:
    (toy.folder / "unrelated").write_text("staged\n")

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=toy.folder, capture_output=True, text=True, check=True)
        return done.stdout

    git("add", "unrelated")
    code, output = toy.run("ingest", "--commit")
    assert code == 0, output
    assert git("log", "-1", "--format=%s") == "Results of a pipeline run\n"
    assert git("show", "--name-only", "--format=", "HEAD") == "dvc.lock\n"
    assert git("diff", "--cached", "--name-only") == "unrelated\n"


@pytest.mark.slow
def test_outputs_are_pushed_to_the_remote(toy: Toy) -> None:
    remote = toy.folder.parent / "remote"
    subprocess.run(
        ["dvc", "remote", "add", "-d", "remote", str(remote)],
        cwd=toy.folder,
        env=toy.environment(),
        check=True,
    )
    code, output = toy.run("ingest")
    assert code == 0, output
    assert [path for path in remote.rglob("*") if path.is_file()]
