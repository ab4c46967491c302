"""The import rules: data flows one way, and each room knows only what it may know."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.closure import STAGES, closure, code_of

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "fra": {"pipelines", "prefect", "dvc", "hydra", "omegaconf"},
    "fra/data": {"fra.method", "fra.train", "fra.transfer", "fra.quality", "fra.report"},
    "fra/method": {"fra.data", "fra.train", "fra.transfer", "fra.quality", "fra.report"},
    "fra/train": {"fra.transfer", "fra.quality", "fra.report"},
    "fra/transfer": {"fra.train.pretrain", "fra.quality", "fra.report", "fra.inference"},
    "fra/quality": {"fra.method", "fra.train", "fra.transfer", "fra.report", "torch"},
}
ONLY = {"ffcv": "fra/data", "webdataset": "fra/data", "great_expectations": "fra/quality"}


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    """CPython 3.11 counts wrongly how deep it is in a tree where collecting garbage makes another one meanwhile."""
    gc.disable()
    yield
    gc.enable()


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize(("room", "forbidden"), FORBIDDEN.items())
def test_a_room_does_not_know_what_it_must_not(room: str, forbidden: set[str]) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    broken = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        for package in forbidden
        if below(name, package)
    }
    assert not broken


@pytest.mark.parametrize(("package", "room"), ONLY.items())
def test_a_format_is_known_in_one_room_only(package: str, room: str) -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in ("fra", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        if any(below(name, package) for name in imports(path))
    }
    assert users
    assert all(user.startswith(f"{room}/") for user in users), users


def test_flows_meet_through_files_only() -> None:
    for stage in STAGES:
        others = {f"pipelines.{other}" for other in STAGES if other != stage}
        assert not imports(ROOT / "pipelines" / f"{stage}.py") & others


def declared(stage: str) -> list[str]:
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    deps = definition.get("do", definition)["deps"]
    return [path for path in deps if path.startswith("fra/")]


@pytest.mark.parametrize("stage", STAGES)
def test_declared_code_equals_the_import_closure(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert declared(stage) == code_of(stage), "run `python -m pipelines.closure` and mend dvc.yaml"


def test_a_labelled_set_depends_on_the_code_of_its_three_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    steps = (code_of(stage) for stage in ("ingest", "shard", "validate"))
    assert declared("benchmark") == sorted({path for step in steps for path in step})


def test_the_closure_is_what_python_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The static closure covers every file of `fra` that a fresh interpreter loads for a stage."""
    import subprocess
    import sys

    monkeypatch.chdir(ROOT)
    program = (
        "import sys, pipelines.transfer\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'fra'], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {Path(line).relative_to(ROOT) for line in done.stdout.split()}
    assert len(loaded) > 5
    assert loaded <= closure("pipelines.transfer")
