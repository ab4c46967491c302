"""dvc.lock compared with the workspace, with itself, and with dvc.yaml and params.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from pipelines import params
from pipelines.lineage import record
from pipelines.lineage.problem import Problem
from pipelines.repo import git
from pipelines.repo.definition import Definition, definitions, lookup
from pipelines.repo.hashes import Hashes
from pipelines.repo.lock import Stage
from pipelines.sections import ParamsError


def workspace(stages: dict[str, Stage], hashes: Hashes) -> Iterator[Problem]:
    """Files in the workspace compared with dvc.lock."""
    for stage in stages.values():
        for verb, files in (("read", stage.deps), ("wrote", stage.outs)):
            for path, expected in files.items():
                found = hashes.of(path)
                if found is None:
                    yield Problem(path, f"missing; {stage.name} {verb} it")
                elif found != expected:
                    yield Problem(
                        path, f"not what {stage.name} {verb}", f"MD5 {found}, dvc.lock has {expected}"
                    )


def chain(stages: dict[str, Stage]) -> Iterator[Problem]:
    """What one stage read compared with what another wrote, in dvc.lock alone."""
    for stage in stages.values():
        for path, digest in stage.data.items():
            for other in stages.values():
                written = other.outs.get(path)
                if written is not None and written != digest:
                    yield Problem(
                        "dvc.lock",
                        f"{stage.name} read {path} as {digest}, but {other.name} wrote it as {written}",
                    )


def graph(stages: dict[str, Stage], root: Path, complete: bool) -> Iterator[Problem]:
    """dvc.lock compared with dvc.yaml and params.yaml in the workspace. `complete`: dvc.lock must have every stage."""
    try:
        values = params.read(root / "params.yaml")
        defined = definitions((root / "dvc.yaml").read_text(encoding="utf-8"), values)
    except ParamsError as error:
        yield Problem("params.yaml", str(error).removeprefix(f"{root / 'params.yaml'}: "))
        return
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        yield Problem("params.yaml", f"does not fit dvc.yaml ({' '.join(str(error).split())})")
        return
    for name, definition in defined.items():
        stage = stages.get(name)
        if stage is None:
            if complete:
                yield Problem("dvc.lock", f"has no stage {name}, which dvc.yaml has: it did not run")
            continue
        for difference in differences(stage, definition, "dvc.yaml"):
            yield Problem("dvc.lock", difference)
        for key in definition.params:
            if lookup(stage.params, key) != lookup(values, key):
                yield Problem("params.yaml", f"{key} is not what {name} ran with")
    if complete:
        for name in stages.keys() - defined.keys():
            yield Problem("dvc.lock", f"has a stage {name}, which dvc.yaml does not have")


def differences(stage: Stage, definition: Definition, source: str) -> Iterator[str]:
    """How a stage of dvc.lock differs from its definition: command, inputs, outputs."""
    if stage.command != definition.command:
        yield f"{stage.name} ran `{stage.command}`, {source} has `{definition.command}`"
    for verb, locked, named in (
        ("reads", stage.deps, definition.deps),
        ("writes", stage.outs, definition.outs),
    ):
        if set(locked) != set(named):
            odd = ", ".join(sorted(set(locked) ^ set(named)))
            yield f"{stage.name} {verb} other files than {source} says: {odd}"


def committed_graph(stages: dict[str, Stage], root: Path, complete: bool) -> Iterator[Problem]:
    """dvc.lock compared with dvc.yaml of the commit that each stage's record names, where its code was unmodified."""
    try:
        values = params.read(root / "params.yaml")
    except ParamsError:
        return  # `graph` reports it
    for commit in sorted({commit for name in stages if (commit := record_commit(name, root))}):
        text = git.show(commit, "dvc.yaml", root)
        if text is None:
            continue  # `checks.code` reports it
        source = f"dvc.yaml of commit {commit[:12]}"
        try:
            defined = definitions(text.decode(), values)
        except (ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            continue  # a later params.yaml does not fit the older templates
        for name, definition in defined.items():
            if name not in stages:
                if complete:
                    yield Problem("dvc.lock", f"has no stage {name}, which {source} has")
            elif record_commit(name, root) == commit:
                for difference in differences(stages[name], definition, source):
                    yield Problem("dvc.lock", difference)


def record_commit(name: str, root: Path) -> str | None:
    """The commit whose code a stage ran, by its record; None where the code was in no commit."""
    try:
        code = record.read(name, root)["code"]
        return None if code["modified"] else code["commit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
