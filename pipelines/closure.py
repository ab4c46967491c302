"""Which files of `fra` a stage runs: the import closure of its module.

    python -m pipelines.closure    writes it into dvc.yaml's `deps`, which a test compares

Flows are wiring and not part of it: a comment in one re-runs nothing. What a package's `__init__` imports inside a
function is not followed either (`fra.load` is there for users, no stage calls it).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

GRAPH = Path("dvc.yaml")
STAGES = ("ingest", "shard", "validate", "pretrain", "transfer", "report")


def source_of(module: str) -> Path | None:
    """The file of a module of this project, or None."""
    base = Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported(path: Path) -> set[str]:
    """Every module name that a file imports; `from a import b` counts for a and, if it is a module, a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if path.name == "__init__.py" else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def closure(module: str) -> set[Path]:
    """The files of this project that importing `module` may run, with the packages above them."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        path = source_of(name)
        if path is not None and path not in seen:
            seen.add(path)
            waiting += imported(path)
    return seen


def code_of(stage: str) -> list[str]:
    """The files of `fra` that a stage depends on, sorted, with the templates beside them and the
    released weights that it can name; no empty packages."""
    files = {path for path in closure(f"pipelines.{stage}") if path.parts[0] == "fra" and has_code(path)}
    beside = {path for folder in {file.parent for file in files} for path in folder.glob("templates/*")}
    if Path("fra/released.py") in files:
        beside |= set(Path("fra/weights").glob("*.safetensors"))
    return sorted(path.as_posix() for path in files | beside)


def has_code(path: Path) -> bool:
    """Whether a file is more than a docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def mend(graph: str) -> str:
    """dvc.yaml's text with every stage's code dependencies as they are; all else stays as it is written."""
    code = {stage: code_of(stage) for stage in STAGES}
    code["benchmark"] = sorted({path for stage in ("ingest", "shard", "validate") for path in code[stage]})
    lines: list[str] = []
    stage = ""
    written: set[str] = set()
    for line in graph.splitlines():
        if found := re.fullmatch(r"  (\w+):", line):
            stage = found[1]
        if found := re.fullmatch(r"( +)- fra/\S+", line):
            if stage not in written:
                lines += [f"{found[1]}- {path}" for path in code[stage]]
                written.add(stage)
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    GRAPH.write_text(mend(GRAPH.read_text(encoding="utf-8")), encoding="utf-8")
