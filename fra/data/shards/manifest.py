"""The manifest and `index.json`: lists of what the shards of a data set contain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from fra.data.shards.plan import rows_of
from fra.data.shards.tar import FILE_COLUMNS

COLUMNS = ("key", "split", "person", *FILE_COLUMNS, "source", "shard", "index", "error")
"""The manifest's first columns; labels, groups, measures, what is known of the photograph, and landmarks follow."""
OPTIONAL = ("label.", "group.", "measure.", "photo.", "face.")
"""Prefixes of the columns that a data set may have."""


def file_properties(
    listed: pd.DataFrame, before: pd.DataFrame, entries: dict[str, dict[str, Any]]
) -> pd.DataFrame:
    """The `FILE_COLUMNS` and `error` of each record: from the shard just written, else from the previous manifest."""
    found = [
        pd.DataFrame(entry["found"]).astype({"key": "string", "error": "string"})
        for entry in entries.values()
    ]
    if not found:
        return before.reindex(listed["last"])
    fresh = pd.concat(found, ignore_index=True)
    row = rows_of(listed["key"], fresh["key"])
    if not len(before):
        return fresh.reindex(row)
    everything = pd.concat([fresh, before], ignore_index=True)
    last = listed["last"].to_numpy(np.int64)
    return everything.reindex(np.where(row >= 0, row, np.where(last >= 0, last + len(fresh), -1)))


def assemble(
    listed: pd.DataFrame,
    before: pd.DataFrame,
    entries: dict[str, dict[str, Any]],
    refused: Mapping[str, str],
) -> pd.DataFrame:
    """The manifest's table.

    Args:
        listed: The records, in shard order.
        before: The previous manifest.
        entries: What was remembered of each shard that was just written.
        refused: Images that cannot be decoded, with the reason.

    Returns:
        One row per record: those in a shard in the shards' order, then the others by key. `index` counts the images
        of a split; it is -1 for an image in no shard.
    """
    listed = listed.reset_index(drop=True)
    properties = file_properties(listed, before, entries)
    if "span" in listed:  # keep only the tar's name: its folder or server is private
        tars = listed["source"].map(lambda url: PurePosixPath(urlsplit(url).path).name)
        listed = listed.assign(source=listed["source"].mask(listed["span"].notna(), tars))
    if "photo.video" in listed:  # a frame: its video says more than the tar of frames
        listed = listed.assign(source=listed["photo.video"].fillna(listed["source"]))
    table = listed.assign(**{name: properties[name].array for name in (*FILE_COLUMNS, "error")})
    is_refused = table["key"].isin(list(refused))
    table.loc[is_refused, "error"] = [refused[key] for key in table.loc[is_refused, "key"]]
    if "photo.problem" in table:  # nothing was cropped: the photograph's own bytes are listed
        uncropped = table["photo.problem"].notna()
        table["sha256"] = table["sha256"].mask(uncropped, table["photo.sha256"])
        table["bytes"] = table["bytes"].mask(uncropped, listed["bytes"].fillna(0))
    bad = table["error"].notna()
    table.loc[bad, ["width", "height"]] = 0
    table.loc[bad, "mode"] = ""
    table["shard"] = table["shard"].astype("string").mask(bad)
    table = pd.concat([table[~bad], table[bad].sort_values("key")], ignore_index=True)
    sharded = table["shard"].notna()
    table["index"] = (
        (sharded.groupby(table["split"], sort=False).cumsum() - 1).where(sharded, -1).astype("int64")
    )
    whole = dict.fromkeys(("bytes", "width", "height"), "int64")
    known = [name for name in table.columns if name.startswith(OPTIONAL) and name != "photo.problem"]
    return table.astype({**whole, "mode": "string", "sha256": "string", "error": "string"})[
        [*COLUMNS, *known, "landmarks"]
    ]


def index(table: pd.DataFrame, shards: dict[str, dict[str, Any]], images_per_shard: int) -> dict[str, Any]:
    """The content of `index.json`: the number of images and the shards of each split, with size and SHA-256."""
    counts = table["shard"].dropna().value_counts()
    splits: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(map(str, counts.index)):
        sizes = {"bytes": shards[name]["bytes"], "sha256": shards[name]["sha256"]}
        splits.setdefault(name.rpartition("-")[0], []).append(
            {"name": name, "images": int(counts[name]), **sizes}
        )
    return {
        "images": int(counts.sum()),
        "images_per_shard": images_per_shard,
        "splits": {
            split: {"images": sum(entry["images"] for entry in entries), "shards": entries}
            for split, entries in splits.items()
        },
    }
