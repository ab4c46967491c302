"""The impact of an image or a person: everything that was made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fra.files import read_parquet
from pipelines.project import paths
from pipelines.repo import experiments as history
from pipelines.repo.hashes import CACHE, object_path
from pipelines.repo.lock import LineageError, below, read


def find(root: Path, column: str, value: str) -> dict[str, pd.DataFrame]:
    """The rows of each data set whose `column` ("key" or "person") is `value`, by the name of the data set.

    Raises:
        LineageError: no manifest has such a row.
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


def impact(column: str, value: str, root: Path = Path()) -> dict[str, Any]:
    """Everything that was made from an image (column "key") or a person (column "person"), as plain data.

    These are the shard and beton that contain the image, and the outputs of all stages that read files of its data set.
    An experiment counts where its own manifest has the image, or is no longer in DVC's cache.

    Raises:
        LineageError: no data set has the image or person.
    """
    stages = read(root)
    answer: dict[str, Any] = {column: value, "datasets": {}}
    for name, rows in find(root, column, value).items():
        written = paths.of_dataset(name)
        makers = [stage for stage in stages.values() if set(stage.outs) & set(written)]
        dependent = makers + below(stages, written)
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
    """The experiments and branches whose manifest of a data set has the image or person, with their artifacts."""
    path = paths.manifest(name).as_posix()
    affected: dict[str, bool] = {}
    found = []
    for run in history.runs(root):
        if path.encode() not in run.lock:
            continue
        stages = run.stages()
        digest = next((stage.outs[path] for stage in stages.values() if path in stage.outs), None)
        if digest is None:
            continue
        if digest not in affected:
            stored = object_path(root / CACHE, digest)
            # Without the manifest the experiment may have used the image, so it is named.
            affected[digest] = not stored.is_file() or bool((read_parquet(stored)[column] == value).any())
        if affected[digest]:
            artifacts = {path: digest} | {
                out: made for stage in below(stages, [path]) for out, made in stage.outs.items()
            }
            found.append({"run": run.name, "commit": run.commit, "artifacts": artifacts})
    return found
