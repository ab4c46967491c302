"""The code of a stage: every file of `fra/` that importing `pipelines.<stage>` may run.

One definition for two uses: the `deps` of dvc.yaml must cover it (a test checks that), and its hash names the folder
of a run's checkpoints, so that a run never continues a checkpoint of other code.

Modules of `pipelines/` are wiring and are not part of it: an edit there re-runs no stage.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

LAZY = Path("fra/__init__.py")
"""Defines only `fra.load`, which no stage calls."""


def code_files(stage: str) -> list[Path]:
    """The files of `fra/` that a stage runs, sorted, with the templates and released weights in their folders."""
    modules = {path for path in import_closure(f"pipelines.{stage}") if path.parts[0] == "fra"} - {LAZY}
    folders = {path.parent for path in modules}
    data = {path for folder in folders for path in folder.glob("templates/*")}
    if Path("fra/weights/released.py") in modules:
        data |= set(Path("fra/weights").glob("*.safetensors"))
    return sorted(path for path in modules | data if not is_docstring(path))


def code_hash(stage: str) -> str:
    """SHA-256 over names and contents of `code_files(stage)`."""
    return _hash_of(code_files(stage))


def module_hash(module: str) -> str:
    """SHA-256 over names and contents of the files of this project that importing a module may run."""
    return _hash_of(sorted(path for path in import_closure(module) if not is_docstring(path)))


def _hash_of(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def import_closure(module: str) -> set[Path]:
    """The files of this project that importing `module` may run, directly or not, including its parent packages."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        path = source_file(name)
        if path is not None and path not in found:
            found.add(path)
            waiting += imported_names(path)
    return found


def source_file(module: str) -> Path | None:
    """The file of a module of this project, or None."""
    base = Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported_names(path: Path) -> set[str]:
    """Every module name that a file imports; `from a import b` counts as `a` and as `a.b`, which may be a module.

    Of a package's `__init__.py` only imports at the top level count: those inside functions run when they are called.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if path.name == "__init__.py" else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_docstring(path: Path) -> bool:
    """Whether a Python file holds nothing but a docstring, as most `__init__.py` do."""
    if path.suffix != ".py":
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
