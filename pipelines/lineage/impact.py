"""The impact of an image or a person: everything that was made from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from fra.data.datasets.key_lists import LEFT_OUT
from fra.files import read_parquet, sha256
from pipelines.project import paths
from pipelines.repo import experiments as history
from pipelines.repo.hashes import CACHE, object_path
from pipelines.repo.lock import LineageError, below, read

COLUMNS = ("key", "person", "split", "shard", "index", "source", "sha256", "photo.sha256")


@dataclass(frozen=True)
class Subject:
    """An image or a person.

    Attributes:
        column: "key" for an image, "person" for a person.
        value: The person; or the image's key, its path below `dataset.root`, or any file with its bytes. A photograph
            stands for all faces that were cropped out of it.
        digest: The SHA-256 of the file `value`, where it is one.
    """

    column: str
    value: str
    digest: str | None

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a manifest that show the image or person."""
        chosen = table[self.column] == self.value
        if self.column == "key":
            chosen |= table["source"] == self.value
        if self.digest is not None:
            for name in ("sha256", "photo.sha256"):
                chosen |= table[name] == self.digest if name in table else False
        return table[chosen.fillna(False)]


def subject_of(column: str, value: str) -> Subject:
    """The image (column "key") or person (column "person") of a name."""
    is_file = column == "key" and Path(value).is_file()
    return Subject(column, value, sha256(Path(value)) if is_file else None)


def read_rows(manifest: Path) -> pd.DataFrame:
    """The columns of a manifest that identify images and say where they are stored."""
    known = set(pq.read_schema(manifest).names)
    return read_parquet(manifest, columns=[name for name in COLUMNS if name in known])


def images(root: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields each data set's name and images: those of its manifest, and those lists leave out (without a split)."""
    manifests = {path.stem: path for path in (root / "data/manifest").glob("*.parquet")}
    left_out = {path.parent.name: path for path in (root / "data/raw").glob(f"*/{LEFT_OUT}")}
    for name in sorted(manifests | left_out):
        tables = [read_rows(files[name]) for files in (manifests, left_out) if name in files]
        yield name, pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)


def find(root: Path, subject: Subject) -> dict[str, pd.DataFrame]:
    """The rows of each data set that show an image or person, by the name of the data set.

    Raises:
        LineageError: no data set has such a row.
    """
    found = {}
    examples: list[str] = []
    for name, table in images(root):
        rows = subject.rows(table)
        examples += [str(example) for example in table[subject.column].dropna().unique()[:3]]
        if len(rows):
            found[name] = rows
    if not found:
        known = f" (such as {', '.join(examples)})" if examples else ": there is no manifest"
        raise LineageError(f"no data set has an image with {subject.column} {subject.value!r}{known}")
    return found


def impact(column: str, value: str, root: Path = Path()) -> dict[str, Any]:
    """Everything that was made from an image (column "key") or a person (column "person"), as plain data.

    These are the shard and beton that contain the image, and the outputs of all stages that read files of its data set;
    of images that lists of keys leave out (`left_out`), only the output of `ingest`. An experiment counts where its own
    manifest has the image, or is no longer in DVC's cache.

    Raises:
        LineageError: no data set has the image or person.
    """
    stages, subject = read(root), subject_of(column, value)
    answer: dict[str, Any] = {column: value, "datasets": {}}
    for name, rows in find(root, subject).items():
        listed = rows["split"].notna()
        written = paths.of_dataset(name) if listed.any() else [paths.raw(name).as_posix()]
        makers = [stage for stage in stages.values() if set(stage.outs) & set(written)]
        dependent = makers + below(stages, written) if listed.any() else makers
        artifacts = {path: digest for stage in dependent for path, digest in sorted(stage.outs.items())}
        if not listed.any():
            artifacts = {path: artifacts[path] for path in written if path in artifacts}
        answer["datasets"][name] = {
            "images": sorted(rows["key"]),
            "left_out": sorted(rows.loc[~listed, "key"]),
            "shards": sorted(f"data/shards/{name}/{shard}" for shard in rows["shard"].dropna().unique()),
            "betons": sorted(f"data/beton/{name}/{split}.beton" for split in rows["split"].dropna().unique()),
            "stages": list(dict.fromkeys(stage.name for stage in dependent)),
            "artifacts": artifacts,
            "experiments": experiments(name, subject, root),
        }
    return answer


def experiments(name: str, subject: Subject, root: Path) -> list[dict[str, Any]]:
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
            affected[digest] = not stored.is_file() or len(subject.rows(read_rows(stored))) > 0
        if affected[digest]:
            artifacts = {path: digest} | {
                out: made for stage in below(stages, [path]) for out, made in stage.outs.items()
            }
            found.append({"run": run.name, "commit": run.commit, "artifacts": artifacts})
    return found
