"""What `fra lineage verify` cannot see, or did not check, in the present workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipelines.lineage import approval, in_toto, record
from pipelines.project import paths
from pipelines.project.dataset import read_withdrawal, withdrawal_files
from pipelines.repo import git
from pipelines.repo.lock import LOCK, Stage


def limits(
    stages: dict[str, Stage],
    root: Path,
    runs: dict[str, list[Stage]],
    remote: Path | None,
    public_key: Path | None,
) -> list[str]:
    """One line for each thing that was not checked; `runs` are the recorded runs of each stage."""
    return [
        *history(root),
        *unrecorded(stages, runs),
        *uncommitted_code(stages, root),
        *signature(stages, root, public_key),
        *names(root),
        *([] if remote else ["objects in DVC remotes: name a remote folder with --remote"]),
        *sources(stages),
    ]


def history(root: Path) -> Iterator[str]:
    """Whether dvc.lock is in git."""
    head = git.head(root)
    if head is None:
        yield "a workspace rewritten as a whole (artifacts, records, dvc.lock, cache): dvc.lock is in no git repository"
        return
    for name in (LOCK.as_posix(), "dvc.yaml", "params.yaml"):
        committed, file = git.show("HEAD", name, root), root / name
        if committed is None or not file.is_file() or committed != file.read_bytes():
            yield f"{name}: differs from commit {head[:12]}, so git does not confirm it; commit it"
    if not git.text("log", "-1", "--format=%G?", root=root).startswith(("G", "U")):
        yield f"who made commit {head[:12]}: it has no valid signature, and git's history can be rewritten"


def unrecorded(stages: dict[str, Stage], runs: dict[str, list[Stage]]) -> Iterator[str]:
    """Stages without a recorded run."""
    missing = [name for name in stages if not runs[name]]
    if missing:
        yield f"the hashes of {', '.join(missing)} in dvc.lock: neither DVC's run cache nor git has a run to compare"


def uncommitted_code(stages: dict[str, Stage], root: Path) -> Iterator[str]:
    """Stages whose code was in no commit."""
    found = []
    for name in stages:
        try:
            code = record.read(name, root)["code"]
        except (OSError, ValueError):
            continue  # reported as a problem
        if code["commit"] is None or code["modified"]:
            found.append(name)
    if found:
        yield f"which commit the code was, for {', '.join(found)}: by their records it was in none"


def signature(stages: dict[str, Stage], root: Path, public_key: Path | None) -> Iterator[str]:
    """Whether the signature of the statement about the backbone was checked."""
    if public_key is not None or not any(
        paths.BACKBONE.as_posix() in stage.outs for stage in stages.values()
    ):
        return
    file = root / paths.STATEMENT
    if not file.is_file():
        yield "who made the backbone: there is no signed statement; `fra lineage attest --key KEY.pem` writes one"
    elif is_signed(file):
        yield f"the signature of {paths.STATEMENT}: give --public-key"
    else:
        yield f"who made the backbone: {paths.STATEMENT} is not signed"


def is_signed(statement: Path) -> bool:
    """Whether a statement is in an envelope with signatures, valid or not."""
    try:
        return bool(json.loads(statement.read_bytes()).get("payloadType") == in_toto.PAYLOAD)
    except (ValueError, AttributeError):
        return False


def names(root: Path) -> Iterator[str]:
    """The people named in approvals and withdrawals."""
    for file in sorted((root / paths.APPROVED).glob("*.json")):
        try:
            by = approval.read(file)["signed_off_by"]
        except ValueError:
            continue  # reported as a problem
        yield f"{file.relative_to(root)}: that {by} gave this approval; it is not signed"
    for file in withdrawal_files(root):
        try:
            by = read_withdrawal(file)["signed_off_by"]
        except ValueError:
            continue
        yield f"{file.relative_to(root)}: that {by} authorised this withdrawal; it is not signed"


def sources(stages: dict[str, Stage]) -> Iterator[str]:
    """Folders of images that are not part of the project."""
    for stage in stages.values():
        for key, values in stage.params.items():
            if (
                isinstance(values, dict)
                and values.get("root")
                and stage.name.startswith(("ingest", "benchmark"))
            ):
                yield f"the original images of {values.get('name', key)}: their folder is not versioned by DVC"
