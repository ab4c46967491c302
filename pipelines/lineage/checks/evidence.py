"""What artifacts say of themselves and of each other, compared with dvc.lock and with the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fra.files import sha256, sha256_each
from fra.validation.verdict import ValidationFailed
from fra.validation.verdict import read as read_verdict
from pipelines.lineage import record
from pipelines.lineage.problem import Problem
from pipelines.project import paths
from pipelines.repo import git
from pipelines.repo.hashes import Hashes
from pipelines.repo.lock import Stage


def records(stages: dict[str, Stage], root: Path, hashes: Hashes, complete: bool) -> Iterator[Problem]:
    """Each stage's record: complete, and the same parameters, inputs, outputs and code as dvc.lock and the files."""
    for stage in stages.values():
        path = record.path_of(stage.name).as_posix()
        if path not in stage.outs:
            yield Problem("dvc.lock", f"{stage.name} does not write its record {path}")
            continue
        if not (root / path).is_file():
            continue  # `workspace` reports it
        try:
            content = record.read(stage.name, root)
        except ValueError as error:
            yield Problem(path, str(error))
            continue
        outs = {out: digest for out, digest in stage.outs.items() if out != path}
        for out in sorted(outs.keys() | content["outs"].keys()):
            if outs.get(out) != content["outs"].get(out):
                yield Problem(
                    out,
                    f"dvc.lock has another hash than {path}, which {stage.name} wrote",
                    f"{outs.get(out)}, {content['outs'].get(out)}",
                )
        if set(stage.deps) != set(content["deps"]):
            odd = ", ".join(sorted(set(stage.deps) ^ set(content["deps"])))
            yield Problem("dvc.lock", f"{stage.name} read other files than {path} says: {odd}")
        if content["command"] != stage.command:
            yield Problem(
                "dvc.lock", f"{stage.name} ran `{content['command']}` by {path}, dvc.lock has another command"
            )
        if record.digest_of(stage.params) != content["params"]:
            yield Problem("dvc.lock", f"{stage.name} ran with other parameters than dvc.lock has, by {path}")
        lock = content["environment"]["lock"]
        if lock is not None and hashes.sha256("requirements.lock") != lock:
            yield Problem("requirements.lock", f"not the libraries that {stage.name} ran with")
        for module, digest in content["modules"].items():
            if hashes.of(module) != digest:
                yield Problem(
                    module,
                    "not the code that stages ran with, by their records; `dvc repro -f` runs them again",
                )
    if complete:
        known = {record.path_of(name) for name in stages}
        for file in sorted((root / record.FOLDER).glob("*.json")):
            if file.relative_to(root) not in known:
                yield Problem(
                    file.relative_to(root).as_posix(), "the record of a stage that dvc.lock does not have"
                )


def code(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """The code that dvc.lock names compared with the commit that the stage's record names, file by file."""
    for stage in stages.values():
        path = record.path_of(stage.name)
        try:
            known = record.read(stage.name, root)["code"]
        except (OSError, ValueError):
            continue  # `workspace` and `records` report it
        commit = known["commit"]
        if commit is None or known["modified"]:
            continue  # `limits` lists it
        versioned = {path: made for path, made in stage.deps.items() if path.startswith(record.VERSIONED)}
        for dep, digest in versioned.items():
            committed = git.committed_digest(dep, commit, root)
            if committed is None:
                yield Problem(
                    path.as_posix(), f"commit {commit[:12]} is not in this repository, or lacks {dep}"
                )
                break
            if committed != digest:
                message = f"not the code of commit {commit[:12]}, with which {stage.name} ran by its record"
                for file in changed_files(dep, commit, root) or [dep]:
                    yield Problem(file, message)


def changed_files(path: str, commit: str, root: Path) -> list[str]:
    """The files at or below `path` that differ between a commit and the workspace."""
    committed = git.committed_files(path, commit, root)
    hashes = Hashes(root)
    hashes.read([path])
    return sorted(
        file
        for file in committed.keys() | hashes.files.keys()
        if committed.get(file) != hashes.files.get(file)
    )


def validation(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """Each validation result: passed, unedited, by the parameters of dvc.lock, and about the files that are present."""
    for stage in stages.values():
        for path in stage.outs:
            if Path(path).name != "verdict.json" or not (root / path).is_file():
                continue
            try:
                verdict = read_verdict(root / path)
            except ValidationFailed as error:
                yield Problem(path, str(error).removeprefix(f"{root / path}: "))
                continue
            if not verdict.success:
                yield Problem(path, f"the data did not pass: {'; '.join(verdict.reasons)}")
            limits = {
                "max_quarantined": verdict.limit,
                "max_without_face": verdict.limit_without_face,
            }
            recorded = stage.params.get("validate", {})
            for name, limit in limits.items():
                if recorded.get(name, limit) != limit:
                    yield Problem(path, f"was computed with {name} {limit}, dvc.lock has {recorded[name]}")
            folder = Path(path).parent
            written = {(folder / name).as_posix(): digest for name, digest in verdict.written.items()}
            known = dict(verdict.validated_files) | written
            now = sha256_each(file for file in map(root.joinpath, known) if file.is_file())
            for name, digest in known.items():
                if root / name not in now:
                    yield Problem(name, f"missing; {path} names it")
                elif now[root / name] != digest:
                    yield Problem(name, f"not the bytes that {path} names")


def shards(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """The tar files of each set of shards compared with its index.json."""
    for stage in stages.values():
        for path in stage.outs:
            index = root / path / "index.json"
            if not path.startswith("data/shards/") or not index.is_file():
                continue
            try:
                splits = json.loads(index.read_text(encoding="utf-8"))["splits"].values()
                listed = {shard["name"]: shard["sha256"] for split in splits for shard in split["shards"]}
            except (ValueError, KeyError, TypeError, AttributeError):
                yield Problem(f"{path}/index.json", "not an index of shards")
                continue
            files = {file.name: file for file in index.parent.iterdir() if file.name != "index.json"}
            for name in sorted(files.keys() - listed.keys()):
                yield Problem(f"{path}/{name}", f"not in {path}/index.json")
            for name in sorted(listed.keys() - files.keys()):
                yield Problem(f"{path}/{name}", f"missing; {path}/index.json names it")
            digests = sha256_each(files[name] for name in listed.keys() & files.keys())
            for file, digest in digests.items():
                if digest != listed[file.name]:
                    yield Problem(f"{path}/{file.name}", f"not the bytes that {path}/index.json names")


def weights(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """Weights files: their own SHA-256, and their provenance compared with dvc.lock and the data."""
    from fra.weights.files import read_weights  # imports torch

    for stage in stages.values():
        for path in stage.outs:
            file = root / path
            if file.suffix != ".safetensors" or not file.is_file():
                continue
            try:
                provenance = record.metadata(file)["provenance"]
            except (SafetensorError, KeyError, ValueError, OSError) as error:
                yield Problem(path, f"has no provenance that can be read ({error})")
                continue
            try:
                read_weights(file)
            except ValueError as error:
                yield Problem(path, str(error).removeprefix(f"{file}: "))
            for section, values in provenance.get("params", {}).items():
                if section in stage.params and record.without_folders(stage.params[section]) != values:
                    yield Problem(path, f"its metadata name other `{section}` parameters than dvc.lock")
            for name, digest in provenance.get("inputs", {}).items():
                source = root / name
                if source.is_file() and sha256(source) != digest:
                    yield Problem(path, f"its metadata name another {name} than the one in the workspace")


def metrics(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """The metrics of each task computed again from its predictions, as `fra transfer recompute` does."""
    from fra.transfer.recompute import differences  # imports scikit-learn

    for stage in stages.values():
        if not stage.name.startswith("transfer@"):
            continue
        task = stage.name.removeprefix("transfer@")
        folder = root / paths.TRANSFER / task
        try:
            found = differences(task, folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield Problem(f"{paths.TRANSFER / task}", f"its metrics cannot be computed again ({error})")
            continue
        for line in found:
            subject, _, message = line.removeprefix(f"{root}/").partition(": ")
            yield Problem(subject, "not what the stored predictions give", message)


def seeds(stages: dict[str, Stage], root: Path) -> Iterator[Problem]:
    """The number of seeds in each task's results compared with the parameter in dvc.lock."""
    from fra.files import read_parquet

    for stage in stages.values():
        wanted = stage.params.get("transfer", {})
        file = root / paths.TRANSFER / stage.name.removeprefix("transfer@") / "predictions.parquet"
        if not isinstance(wanted, dict) or "seeds" not in wanted or not file.is_file():
            continue
        try:
            table: Any = read_parquet(file)
        except ValueError as error:
            yield Problem(file.relative_to(root).as_posix(), str(error).removeprefix(f"{file}: "))
            continue
        if "seed" in table and table["seed"].nunique() != wanted["seeds"]:
            yield Problem(
                file.relative_to(root).as_posix(),
                f"has {table['seed'].nunique()} seeds, dvc.lock has transfer.seeds {wanted['seeds']}",
            )
