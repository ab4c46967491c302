"""Traces an artifact back to what it was made from: as plain data, or as a tree for the terminal.

The page with a graph is in `pipelines.lineage.page`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.tree import Tree

from fra.files import read_parquet
from pipelines.lineage import approval, record
from pipelines.lineage.record import metadata
from pipelines.repo import experiments, git
from pipelines.repo.hashes import CACHE, files_of, folder_digest, md5, object_path
from pipelines.repo.lock import LineageError, Stage, above, ancestry, artifacts, contains, maker, read

SECTIONS = {
    "alignment": "transfer@alignment",
    "expression": "transfer@expression",
    "attributes": "transfer@attributes",
    "verification": "transfer@verification",
    "training": "pretrain",
    "regions": "pretrain",
    "faces": "pretrain",
    "data": "validate",
}
"""Sections of the report page, and the stage whose results they show: `artifacts/report/index.html#alignment`."""


def trace(artifact: str, root: Path = Path()) -> dict[str, Any]:
    """Everything that an artifact was made from, as plain data.

    Args:
        artifact: a path in the workspace; a part of one after `#` (a metric of a JSON file, a section of the report);
            or any file: a copy of weights elsewhere is found by its content in this run or an experiment, or else
            its own metadata are returned.
        root: the project.

    Raises:
        LineageError: the artifact, or the part after `#`, is in no run.
    """
    path, _, part = artifact.partition("#")
    inside = relative(path, root)
    stages = read(root)
    if inside is not None and (made := maker(stages, inside)):
        stage, out = made
        source = part_of(stages, stage, inside, part, root) if part else stage
        return {
            "artifact": artifact,
            "md5": stage.outs[out],
            "run": "workspace",
            **origin(stages, source, root),
        }
    file = Path(path)
    if not file.is_file():
        raise LineageError(
            f"{artifact}: neither an artifact of this project nor a file; artifacts are: {artifacts(stages)}"
        )
    if part:
        raise LineageError(f"{artifact}: only artifacts in the workspace have parts; leave out #{part}")
    digest = md5(file)
    history = [(run.name, run.stages()) for run in experiments.runs_with_object(digest, root)]
    for name, known in [("workspace", stages), *history]:
        for stage in known.values():
            if digest in stage.outs.values():
                return {"artifact": artifact, "md5": digest, "run": name, **origin(known, stage, root)}
    if file.suffix == ".safetensors":
        try:
            content = metadata(file)
        except Exception as error:
            raise LineageError(f"{artifact}: weights without readable provenance ({error})") from None
        return {"artifact": artifact, "md5": digest, "run": None, "metadata": content}
    raise LineageError(f"{artifact}: no run in this project wrote this content (MD5 {digest})")


def part_of(stages: dict[str, Stage], stage: Stage, path: str, part: str, root: Path) -> Stage:
    """The stage that made a part of an artifact: of the report the stage of the section, of JSON the stage itself.

    Raises:
        LineageError: the artifact has no such part.
    """
    if stage.name == "report" and path.endswith(".html"):
        sections = {name: made for name, made in SECTIONS.items() if made in stages}
        if part not in sections:
            raise LineageError(f"{path}: no section {part!r}; sections are: {', '.join(sections)}")
        return stages[sections[part]]
    if not path.endswith(".json"):
        raise LineageError(f"{path}: only JSON files and the report have parts; leave out #{part}")
    values = content_of(stage, path, root)
    for number, name in enumerate(names := part.split(".")):
        rest = ".".join(names[number:])
        if isinstance(values, dict) and rest in values:
            return stage  # a key with a dot in it
        if not isinstance(values, dict) or name not in values:
            known = ", ".join(map(str, values)) if isinstance(values, dict) else "none"
            raise LineageError(
                f"{path}: no {part!r} in it: {'.'.join(names[: number + 1])!r} is missing; there are: {known}"
            )
        values = values[name]
    return stage


def content_of(stage: Stage, path: str, root: Path) -> Any:
    """A JSON artifact, from the workspace or else from DVC's cache. Raises `LineageError`."""
    stored = object_path(root / CACHE, stage.outs.get(path, "missing"))
    file = next((file for file in (root / path, stored) if file.is_file()), None)
    if file is None:
        raise LineageError(f"{path}: missing: run `dvc checkout`")
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise LineageError(f"{path}: not JSON ({error})") from None


def relative(path: str, root: Path) -> str | None:
    """`path` relative to the project; None where it is outside of it."""
    base = root.resolve()
    here = (base / path, Path.cwd() / path)  # as dvc.yaml names it, or relative to the current folder
    absolute = next((place for place in here if place.exists()), here[0]).resolve()
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else None


def origin(stages: dict[str, Stage], last: Stage, root: Path) -> dict[str, Any]:
    """The stages that led to an artifact, the last one last, with their details; validation results and images."""
    ancestors = ancestry(stages, next(iter(last.outs)))
    return {
        "made_by": last.name,
        "stages": {name: describe(stage, ancestors, root) for name, stage in ancestors.items()},
        "verdicts": [
            verdict(path, root)
            for stage in ancestors.values()
            for path in stage.outs
            if path.endswith("verdict.json")
        ],
        "images": [
            images(path, root)
            for stage in ancestors.values()
            for path in stage.outs
            if "data/manifest/" in path
        ],
    }


def describe(stage: Stage, ancestors: dict[str, Stage], root: Path) -> dict[str, Any]:
    """One stage as plain data.

    Args:
        stage: the stage.
        ancestors: the stages that led to the artifact, by name; `after` lists those whose outputs the stage read.
        root: the project.

    Returns:
        Its command, parameters and recorded code and environment; the MD5 of each file that it read, `ran` (its code,
        see `code_files`) and wrote.
    """
    try:
        known = record.read(stage.name, root)
    except (OSError, ValueError):
        known = {"code": None, "environment": None}
    return {
        "command": stage.command,
        "after": [other.name for other in above(ancestors, stage)],
        "code": known["code"],
        "environment": known["environment"],
        "params": dict(stage.params),
        "read": stage.data,
        "ran": code_files(stage, known["code"], root),
        "wrote": dict(stage.outs),
    }


def code_files(stage: Stage, code: dict[str, Any] | None, root: Path) -> dict[str, str]:
    """The MD5 of each code file of a stage, also where dvc.lock has only folders; `code` is the record of its commit.

    A folder's files are read from the workspace, or from the recorded commit, whichever has the hash in dvc.lock; where
    neither has, the folder itself and its hash are returned.
    """
    found: dict[str, str] = {}
    for path, digest in stage.code.items():
        files = {f"{path}/{name}": md5 for name, md5 in files_of(path, digest, root).items()}
        if not files and digest.endswith(".dir") and code and code["commit"]:
            committed = git.committed_files(path, code["commit"], root)
            entries = ((name.removeprefix(f"{path}/"), md5) for name, md5 in committed.items())
            files = committed if committed and folder_digest(entries) == digest else {}
        found |= files or {path: digest}
    return found


def verdict(path: str, root: Path) -> dict[str, Any]:
    """A validation result in brief, with its approval."""
    file = root / path
    if not file.is_file():
        return {"path": path, "success": None}
    content = json.loads(file.read_text(encoding="utf-8"))
    return {
        "path": path,
        **{key: content[key] for key in ("success", "rows", "quarantined", "limit", "reasons", "digest")},
        **{key: content.get(key, 0) for key in ("photographs", "without_face", "limit_without_face")},
        "approved": approval.find(content, root),
    }


def images(path: str, root: Path) -> dict[str, Any]:
    """A manifest in brief: how many images, of how many people, in which splits and shards."""
    file = root / path
    if not file.is_file():
        return {"manifest": path, "images": None}
    table = read_parquet(file, columns=["key", "split", "person", "shard"])
    return {
        "manifest": path,
        "images": len(table),
        "people": int(table["person"].nunique()),
        "splits": {
            str(split): int(count) for split, count in table["split"].value_counts().sort_index().items()
        },
        "shards": sorted(str(name) for name in table["shard"].dropna().unique()),
    }


def tree(origin: dict[str, Any]) -> Tree:
    """A trace as a tree for the terminal."""
    top = Tree(f"[bold]{origin['artifact']}[/]  MD5 {origin['md5']}")
    if "stages" not in origin:
        top.add("no run in this project wrote this content; its own metadata:")
        top.add(json.dumps(origin["metadata"], indent=2))
        return top
    if origin["run"] != "workspace":
        top.add(f"written in run {origin['run']}")
    shown: set[str] = set()
    made = {path for stage in origin["stages"].values() for path in stage["wrote"]}

    def grow(branch: Tree, name: str) -> None:
        stage = origin["stages"][name]
        if name in shown:
            branch.add(f"[bold]{name}[/] (above)")
            return
        shown.add(name)
        node = branch.add(f"[bold]{name}[/]  {stage['command']}")
        if stage["code"]:
            node.add(f"code {commit(stage['code'])}")
        if stage["environment"]:
            node.add(f"environment {environment(stage['environment'])}")
        for path, digest in stage["ran"].items():
            node.add(f"ran {path}  {digest}")
        for section, values in stage["params"].items():
            node.add(f"{section}: {json.dumps(values)}")
        for path, digest in stage["read"].items():
            if not any(contains(out, path) or contains(path, out) for out in made):
                node.add(f"read {path}  {digest}")
        for path, digest in stage["wrote"].items():
            node.add(f"wrote {path}  {digest}")
        for other in stage["after"]:
            grow(node, other)

    grow(top, origin["made_by"])
    for found in origin["verdicts"]:
        word = "passed" if found["success"] else "did not pass"
        signed = found.get("approved")
        by = f"approved by {signed['signed_off_by']} on {signed['date']}" if signed else "not approved"
        faceless = found.get("without_face")
        of_them = f", {faceless} of them photographs without a face" if faceless else ""
        top.add(
            f"validation {found['path']}: {word}; {found.get('quarantined')} of {found.get('rows')} "
            f"quarantined{of_them}; {by}"
        )
    for found in origin["images"]:
        top.add(
            f"images {found['manifest']}: {found['images']} of {found.get('people')} people, {found.get('splits')}"
        )
    return top


def commit(code: dict[str, Any]) -> str:
    """The commit of a record as text."""
    if code["commit"] is None:
        return "in no git repository"
    return str(code["commit"]) + (" with changes that are in no commit" if code["modified"] else "")


def environment(found: dict[str, Any]) -> str:
    """The environment of a record as text."""
    libraries = ", ".join(f"{name} {version}" for name, version in found["libraries"].items() if version)
    device = found["device"] or "no device"
    return f"Python {found['python']}, {libraries}; {device}, CUDA {found['cuda']}; lock {str(found['lock'])[:12]}"
