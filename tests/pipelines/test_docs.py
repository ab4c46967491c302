"""Every command in the README and the docs exists; those that can run here are run."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import click
import pytest
import typer
from support.workspace import ROOT, few_faces, run

from pipelines import params
from pipelines.cli.main import app

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("fra", "dvc", "make", "python", "prefect", "torchrun", "openssl", "pre-commit")
NOT_RUN = {
    "fra bench": "takes minutes; tests/bench",
    "fra import-weights": "needs another checkpoint; tests/weights makes them",
    "fra transfer baseline": "needs an experiment of that name; tests/pipelines",
    "fra transfer pool": "needs several pre-trainings; tests/transfer/test_aggregate.py",
    "fra transfer ruler": "takes minutes, and needs files of trainings; tests/test_ruler.py",
    "fra transfer forest seeds/": "needs a comparison of seeds; tests/test_ruler.py",
    "fra curate faces.arrow --rule balanced --count 10000": "needs as many faces; tests/gallery/test_curate.py",
    "fra export onnx": "tests/inference/test_export.py",
    "fra push": "needs an account; tests/inference/test_huggingface.py",
}
FACES = re.compile("/path/to/(faces|photos)")


def commands() -> list[tuple[str, str]]:
    """Page and command of every line of a shell block that begins with one of `PROGRAMS`."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if language:
                continue
            for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
                for part in re.split(r"; | && ", re.split(r"\s+#\s|\s{4,}", line)[0]):
                    if part.split(" ")[0] in PROGRAMS:
                        found.append((page.name, part.strip()))
    return found


COMMANDS = commands()


def test_the_docs_have_commands() -> None:
    assert len(COMMANDS) > 40
    assert {page for page, _ in COMMANDS} >= {
        "README.md",
        "experiments.md",
        "orchestration.md",
        "transfer.md",
    }


@pytest.mark.parametrize("command", sorted({command for _, command in COMMANDS}))
def test_a_command_exists(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "fra":
        context = click.Context(typer.main.get_command(app))
        group = context.command
        rest = words[1:]
        while isinstance(group, click.Group):
            found = group.get_command(context, rest.pop(0))
            assert found is not None
            group = found
        group.make_context("fra", rest)  # fails for an unknown option or a missing argument
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    elif words[0] == "make":
        targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    else:
        assert shutil.which(words[0]) or words[0] == "pre-commit"


def test_parameters_in_the_docs_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("balanced.txt", "exclude.csv"):
        Path(name).touch()
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "pipelines/conf", conf)
    lines = {command for _, command in COMMANDS if command.startswith("python -m pipelines.params")}
    assert len(lines) > 4
    for line in sorted(lines):
        print(line)
        overrides = [word for word in shlex.split(line)[3:] if word != "--add"]
        params.choose(overrides, tmp_path / "params.yaml", conf)


def test_messages_in_troubleshooting_are_in_the_code() -> None:
    """Every part of a quoted message between variable parts ("…"), which are fields of templates in the code."""
    page = (ROOT / "docs/guides/troubleshooting.md").read_text(encoding="utf-8")
    table = page.partition("## Messages of FRA")[2].partition("\n## ")[0]
    messages = [
        message
        for row in table.splitlines()
        if row.startswith("| `")
        for message in re.findall("`([^`]+)`", row.split(" | ")[0])
    ]
    sources = [
        path.read_text("utf-8") for room in ("fra", "pipelines") for path in (ROOT / room).rglob("*.py")
    ]
    joined = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))  # texts over several lines
    code = re.sub(r"\{[^{}\n]*\}|%[.\d]*[sdf]", "…", joined)
    system = [os.strerror(number) for number in (errno.EADDRINUSE, errno.ENOSPC, errno.EROFS, errno.EACCES)]
    parts = [(message, part.strip(" ,;")) for message in messages for part in re.split("…|: ", message)]
    fixed = [(message, part) for message, part in parts if " " in part]
    assert len(messages) > 20
    assert {message for message, _ in fixed} == set(messages)
    assert [(message, part) for message, part in fixed if part not in code and part not in system] == []


@pytest.mark.slow
def test_fra_commands_in_the_docs_run(workspace: Path) -> None:
    """In the order of the pages, in a workspace in which the pipeline has run. The tutorial has a test of its own."""
    faces = few_faces(workspace / "faces")
    (workspace / "face.jpg").write_bytes((faces / "s1/1.pgm").read_bytes())
    shutil.copytree(ROOT / "docs/results/evidence", workspace / "docs/results/evidence")
    lines = [command for page, command in COMMANDS if command.startswith("fra ") and page != "tutorial.md"]
    assert len(lines) > 8
    for line in dict.fromkeys(lines):
        if line.startswith(tuple(NOT_RUN)):
            continue
        if other := re.search(r"data/baselines/(image_level|theirs)\.safetensors", line):
            shutil.copy(workspace / "artifacts/pretrain/backbone.safetensors", workspace / other[0])
        words = shlex.split(FACES.sub(str(faces), line))
        if words[1] == "atlas":
            words.append("--no-serve")  # it would show the map until Ctrl-C
        done = run(workspace, sys.executable, "-m", "pipelines.cli", *words[1:])
        assert done.returncode == 0, f"{line}: {done.stdout}"


@pytest.mark.parametrize("package", ["fra", "pipelines"])
def test_the_page_on_architecture_has_the_layers_of_the_contracts(package: str) -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = [
        contract["layers"]
        for contract in contracts
        if contract["type"] == "layers" and contract["name"].startswith(f"{package}:")
    ]
    contract = [{name.strip().removeprefix(f"{package}.") for name in layer.split("|")} for layer in layers]
    page = (ROOT / "docs/reference/architecture.md").read_text(encoding="utf-8")
    table = page.partition(f"| Layer of `{package}` |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == contract
