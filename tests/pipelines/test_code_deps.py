"""The code dependencies that dvc.yaml declares: they cover what each stage imports, and none is unused."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.workspace import ROOT

from pipelines.repo.code_deps import code_files, code_hash, import_closure

STAGES = ("ingest", "shard", "validate", "pretrain", "transfer", "report")
CODE = {stage: (stage,) for stage in STAGES} | {"benchmark": ("ingest", "shard", "validate")}
"""By stage of dvc.yaml: the modules of `pipelines` that its command runs."""


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CPython 3.11 miscounts the depth of a syntax tree where garbage collection makes another one meanwhile."""
    monkeypatch.chdir(ROOT)
    gc.disable()
    yield
    gc.enable()


def declared(stage: str) -> list[Path]:
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    return [Path(dep) for dep in definition.get("do", definition)["deps"] if dep.startswith("fra/")]


def run_by(stage: str) -> set[Path]:
    return {path for module in CODE[stage] for path in code_files(module)}


@pytest.mark.parametrize("stage", CODE)
def test_declared_code_covers_what_a_stage_imports(stage: str) -> None:
    folders = declared(stage)
    assert {path for path in run_by(stage) if not any(path.is_relative_to(dep) for dep in folders)} == set()


@pytest.mark.parametrize("stage", CODE)
def test_no_declared_dependency_is_unused(stage: str) -> None:
    files = run_by(stage)
    assert [dep for dep in declared(stage) if not any(path.is_relative_to(dep) for path in files)] == []


@pytest.mark.parametrize("stage", CODE)
def test_no_dependency_is_declared_twice(stage: str) -> None:
    folders = declared(stage)
    assert [
        dep for dep in folders if any(dep != other and dep.is_relative_to(other) for other in folders)
    ] == []


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("fra/data/datasets/adapters/celeba.py", {"ingest", "benchmark"}),
        ("fra/transfer/heads.py", {"transfer", "report"}),
        ("fra/method/losses.py", {"pretrain", "report"}),
    ],
)
def test_an_edit_concerns_these_stages(edited: str, stages: set[str]) -> None:
    found = {stage for stage in CODE if any(Path(edited).is_relative_to(dep) for dep in declared(stage))}
    assert found == stages


@pytest.mark.parametrize(
    "stage", ["ingest", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pretrain", "transfer"))]
)
def test_the_closure_is_what_python_loads(stage: str) -> None:
    program = (
        f"import sys, pipelines.{stage}\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'fra'], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {Path(line).relative_to(ROOT) for line in done.stdout.split()}
    assert len(loaded) > 5
    assert loaded <= import_closure(f"pipelines.{stage}")


def test_the_code_hash_of_a_stage_changes_with_its_code_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are named by it: nested modules and `fra/dist.py` count, benchmarks do not."""
    import shutil

    for folder in ("fra", "pipelines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    before = code_hash("pretrain")
    for name in ("fra/bench/training/step.py", "fra/data/datasets/adapters/orl.py", "fra/transfer/heads.py"):
        with (tmp_path / name).open("a") as file:
            file.write("# a comment\n")
    assert code_hash("pretrain") == before
    for name in ("fra/dist.py", "fra/data/loader/ffcv.py", "fra/method/losses.py"):
        with (tmp_path / name).open("a") as file:
            file.write("# a comment\n")
        after = code_hash("pretrain")
        assert after != before, name
        before = after
