"""The record of a stage: what dvc.lock does not say of its run, and what it says, written down a second time.

One small file a stage: the commit of the code, the environment, the modules that ran, and the command, parameters,
inputs and outputs. `fra lineage verify` compares it with dvc.lock.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from fra.files import write_json
from pipelines import params
from pipelines.repo import git
from pipelines.repo.definition import Definition, definitions, lookup
from pipelines.repo.hashes import Hashes, md5

FOLDER = Path("artifacts/lineage")
VERSIONED = ("fra", "pipelines", "dvc.yaml", "data/orl", "data/synthetic")
"""What must be as in the commit for a stage to run the code of the commit."""
LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "ffcv",
    "webdataset",
    "great-expectations",
    "scikit-learn",
    "dvc",
    "prefect",
)


def code() -> dict[str, Any]:
    """The commit of the code, and whether the code differs from it; nulls outside of git."""
    head = git.head()
    if head is None:
        return {"commit": None, "modified": None}
    changed = git.text("status", "--porcelain", "--", *VERSIONED, ":!pipelines/conf/project.yaml")
    return {"commit": head, "modified": bool(changed)}


def environment() -> dict[str, Any]:
    """Python, the libraries that affect results, the hash of requirements.lock. No host or user names.

    CUDA and the device are recorded by stages that imported torch, null by the others.
    """
    lock = Path("requirements.lock")
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": {name: installed(name) for name in LIBRARIES},
        "cuda": torch.version.cuda if torch is not None and on_gpu else None,
        "device": None if torch is None else torch.cuda.get_device_name() if on_gpu else "cpu",
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def modules(code: Iterable[str]) -> dict[str, str]:
    """The MD5 of each file of `pipelines`, and of the folders and files `code`, that this process imported, by path."""
    root = Path.cwd()
    loaded = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
    files = {Path(str(file)) for file in loaded}
    own = [root / path for path in ("pipelines", *code)]
    return {
        file.relative_to(root).as_posix(): md5(file)
        for file in sorted(files)
        if file.is_file() and any(file.is_relative_to(path) for path in own)
    }


def provenance(params: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    """The provenance inside a weights file: code, parameters, environment, and inputs by SHA-256.

    Absolute paths are shortened to their last name, since weights are given away.
    """
    named = {without_folders(name): digest for name, digest in inputs.items()}
    return {
        "code": code(),
        "params": without_folders(params),
        "environment": environment(),
        "inputs": named,
    }


def without_folders(value: Any) -> Any:
    """A value of parameters in which absolute paths are shortened to their last name."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def metadata(weights: Path) -> dict[str, Any]:
    """The metadata of a weights file of this project, with its `provenance`. Raises `KeyError` where it has none."""
    from safetensors import safe_open  # imported here, as most stages do not need it

    with safe_open(str(weights), framework="numpy") as opened:
        return dict(json.loads((opened.metadata() or {})["fra"]))


def path_of(stage: str) -> Path:
    """The path of a stage's record; that of "transfer@expression" is transfer-expression.json."""
    return FOLDER / f"{stage.replace('@', '-')}.json"


def read(stage: str, root: Path = Path()) -> dict[str, Any]:
    """Reads the record of a stage.

    Raises:
        FileNotFoundError: the stage has none.
        ValueError: the file is not a record.
    """
    text = (root / path_of(stage)).read_text(encoding="utf-8")
    try:
        content: dict[str, Any] = json.loads(text)
        texts, mappings = ("stage", "command", "params"), ("code", "environment", "modules", "outs")
        shape = dict.fromkeys(texts, str) | dict.fromkeys(mappings, dict) | {"deps": list}
        wrong = [key for key, kind in shape.items() if not isinstance(content.get(key), kind)]
        wrong += [key for key in ("commit", "modified") if key not in content["code"]]
        wrong += ["lock"] if "lock" not in content["environment"] else []
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        raise ValueError("not a record: `dvc repro -f` writes it again") from None
    if wrong:
        raise ValueError(f"not a record ({', '.join(wrong)} missing): `dvc repro -f` writes it again")
    return content


def definition_of(stage: str) -> Definition:
    """The stage as dvc.yaml defines it; an empty definition where it is not in dvc.yaml or that cannot be read."""
    try:
        return definitions(Path("dvc.yaml").read_text(encoding="utf-8"), params.read())[stage]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return Definition("", (), (), ())


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of parameters: a record shows that they changed, and has no paths of the machine in it."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write(stage: str) -> None:
    """Writes the record of a stage that has just run. It has no times: equal runs give equal records."""
    defined, record = definition_of(stage), path_of(stage)
    values = params.read() if defined.params else {}
    hashes = Hashes(Path())
    outs = {path: hashes.of(path) for path in defined.outs if path != record.as_posix()}
    content = {
        "stage": stage,
        "command": defined.command,
        "code": code(),
        "environment": environment(),
        "modules": modules(path for path in defined.deps if path.startswith("fra/")),
        "params": digest_of({key: lookup(values, key) for key in defined.params}),
        "deps": sorted(set(defined.deps)),
        "outs": {path: digest for path, digest in outs.items() if digest is not None},
    }
    write_json(content, record)
