"""From an image or a person forward: everything that was made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import read_parquet
from pipelines.lineage.verify import object_path
from pipelines.repo import experiments as history
from pipelines.repo.lock import LineageError, below, read


def find(root: Path, column: str, value: str) -> dict[str, pd.DataFrame]:
    """The rows of each data set whose `column` ("key" or "person") is `value`, by the set's name.

    Raises:
        LineageError: no manifest has one.
    """
    found = {}
    examples: list[str] = []
    for manifest in sorted((root / "data/manifest").glob("*.parquet")):
        table = read_parquet(manifest, columns=["key", "person", "split", "shard", "index"])
        rows = table[table[column] == value]
        examples += [str(example) for example in table[column].dropna().unique()[:3]]
        if len(rows):
            found[manifest.stem] = rows
    if not found:
        known = f" (such as {', '.join(examples)})" if examples else ": there is no manifest"
        raise LineageError(f"no data set has an image with {column} {value!r}{known}")
    return found


def made_from(column: str, value: str, root: Path = Path()) -> dict[str, Any]:
    """Everything made from an image (column "key") or a person ("person"), as plain data.

    A split's shard and beton hold the image; stages that read the set's files made the rest. Experiments count where
    their own manifest, as far as DVC's cache has it, holds the image too.

    Raises:
        LineageError: no data set has it.
    """
    stages = read(root)
    answer: dict[str, Any] = {column: value, "datasets": {}}
    for name, rows in find(root, column, value).items():
        written = [f"data/{kind}/{name}" for kind in ("raw", "shards", "beton")] + [
            f"data/manifest/{name}.parquet"
        ]
        dependent = [stage for stage in stages.values() if set(stage.outs) & set(written)] + below(
            stages, written
        )
        answer["datasets"][name] = {
            "images": sorted(rows["key"]),
            "shards": sorted(f"data/shards/{name}/{shard}" for shard in rows["shard"].dropna().unique()),
            "betons": sorted(f"data/beton/{name}/{split}.beton" for split in rows["split"].unique()),
            "stages": list(dict.fromkeys(stage.name for stage in dependent)),
            "artifacts": {path: digest for stage in dependent for path, digest in sorted(stage.outs.items())},
            "experiments": experiments(name, column, value, root),
        }
    return answer


def experiments(name: str, column: str, value: str, root: Path) -> list[dict[str, Any]]:
    """The runs in history whose manifest of the set holds the image, with their artifacts."""
    path = f"data/manifest/{name}.parquet"
    holds: dict[str, bool] = {}
    found = []
    for run in history.runs(root):
        if path.encode() not in run.lock:
            continue
        stages = run.stages()
        digest = next((stage.outs[path] for stage in stages.values() if path in stage.outs), None)
        if digest is None:
            continue
        if digest not in holds:
            stored = object_path(root / ".dvc/cache", digest)
            # a manifest that is no longer in the cache may have held it: rather name one run too many
            holds[digest] = not stored.is_file() or bool((read_parquet(stored)[column] == value).any())
        if holds[digest]:
            wanted = {path: digest} | {
                out: made for stage in below(stages, [path]) for out, made in stage.outs.items()
            }
            found.append({"run": run.name, "commit": run.commit, "artifacts": wanted})
    return found
