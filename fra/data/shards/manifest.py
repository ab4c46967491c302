"""The manifest and index.json: what the shards of a data set contain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from fra.data.shards.plan import APART, rows_of
from fra.data.shards.tar import FOUND

COLUMNS = ("key", "split", "person", *FOUND, "source", "shard", "index", "error")
"""The manifest's columns; labels, measures and landmarks follow."""


def facts_of(listed: pd.DataFrame, before: pd.DataFrame, entries: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """What is known of each record's bytes: from the shard that was written, else from its row in the last manifest."""
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
    """The manifest: records and what was found in their bytes, in shard order, then those that were refused by key;
    `index` counts within a split."""
    listed = listed.reset_index(drop=True)
    facts = facts_of(listed, before, entries)
    if "span" in listed:  # a tar is told by its name: its folder or server is nobody's business
        tars = listed["source"].map(lambda url: PurePosixPath(urlsplit(url).path).name)
        listed = listed.assign(source=listed["source"].mask(listed["span"].notna(), tars))
    table = listed.drop(columns=[*FOUND, *APART[1:]], errors="ignore")
    table = table.assign(**{name: facts[name].array for name in (*FOUND, "error")})
    told = table["key"].isin(list(refused))
    table.loc[told, "error"] = [refused[key] for key in table.loc[told, "key"]]
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
    labels = [name for name in table.columns if name.startswith(("label.", "measure."))]
    return table.astype({**whole, "mode": "string", "sha256": "string", "error": "string"})[
        [*COLUMNS, *labels, "landmarks"]
    ]


def index(table: pd.DataFrame, shards: dict[str, dict[str, Any]], images_per_shard: int) -> dict[str, Any]:
    """What `index.json` says: of each split its images and its shards, with size and SHA-256."""
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
