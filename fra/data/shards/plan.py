"""Plans shards: which record belongs to which shard, and a fingerprint of what each shard is made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fra.data.datasets.records import SPLITS
from fra.data.shards.tar import ShardJob

NESTED = ("landmarks", "box", "span", "content", "face.box", "face.points", "face.transform")
"""Columns of the records that hold lists or bytes instead of plain values."""
MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd multiplier (2^64 divided by the golden ratio) that makes a sum of hashes depend on their order."""


def shuffle_ranks(keys: Iterable[str]) -> NDArray[np.uint64]:
    """A number per key by which to sort in a shuffled order: the first eight bytes of its SHA-256."""
    digests = (hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8] for key in keys)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def rows_of(keys: pd.Series, table: pd.Series) -> NDArray[np.int64]:
    """The row of each key among the keys of `table`, or -1 where it is missing."""
    found = pc.index_in(pa.array(keys, pa.large_string()), value_set=pa.array(table, pa.large_string()))
    return np.asarray(found.fill_null(-1), dtype=np.int64)


def shard_numbers(shards: pd.Series, split: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number in the name of each record's shard, or -1 where it has none or one of another split."""
    codes, names = pd.factorize(shards)
    found = [re.fullmatch(r"(\w+)-(\d{6,})\.tar", str(name)) for name in names]
    splits = np.array([SPLITS.index(part[1]) if part else -1 for part in found] + [-1])
    numbers = np.array([int(part[2]) if part else -1 for part in found] + [-1], dtype=np.int64)
    return np.where(splits[codes] == split, numbers[codes], np.int64(-1))


def plan(records: pd.DataFrame, images_per_shard: int, before: pd.Series) -> pd.DataFrame:
    """Assigns each record to a shard; returns the records sorted by split, shard and a hash of the key.

    A record that the previous manifest has stays in its shard. New records fill the last shard of their split, and
    then new shards.

    Args:
        records: With the column `last`: the record's row in the previous manifest, or -1.
        images_per_shard: The largest number of records in a shard.
        before: The shards of the previous manifest's rows, which are in the order that this function returns.

    Returns:
        The records with the column `shard`.
    """
    split = pd.Categorical(records["split"], SPLITS).codes.astype(np.int64)
    last_row = records["last"].to_numpy(np.int64)
    number = shard_numbers(before.reindex(last_row), split)
    mixed = number < 0  # records of shards that get new ones; the others keep the previous manifest's order
    for code in range(len(SPLITS)):
        new = np.flatnonzero((split == code) & (number < 0))
        new = new[np.argsort(shuffle_ranks(records["key"].iloc[new]), kind="stable")]
        old = number[(split == code) & (number >= 0)]
        last = int(old.max(initial=0))
        start = last * images_per_shard + min(int((old == last).sum()), images_per_shard)
        number[new] = (start + np.arange(len(new))) // images_per_shard
        mixed |= (split == code) & (number == start // images_per_shard)
    order = last_row.astype(np.uint64)
    order[mixed] = shuffle_ranks(records["key"][mixed])
    rank = np.lexsort((order, number, split))
    shards, of_record = np.unique(split[rank] * 10**12 + number[rank], return_inverse=True)
    names = [f"{SPLITS[shard // 10**12]}-{shard % 10**12:06d}.tar" for shard in shards.tolist()]
    return records.iloc[rank].assign(shard=pd.array(np.array(names, dtype=object)[of_record], dtype="string"))


def to_bytes(value: Any) -> bytes:
    """A nested value (a list of numbers, bytes, or None) as bytes to hash."""
    if value is None or isinstance(value, bytes):
        return value or b""
    return np.asarray(value, np.float64).tobytes()


def row_hashes(records: pd.DataFrame) -> NDArray[np.uint64]:
    """A hash per record (N,) of everything that its shard or the manifest takes from it."""
    names = (records["key"] + "\0" + records["source"]).to_numpy(object)
    plain = records.drop(columns=["key", "source", *(name for name in NESTED if name in records)])
    hashes = pd.util.hash_pandas_object(plain, index=False).to_numpy(np.uint64) * MIX
    hashes += pd.util.hash_array(names, categorize=False)
    for name in NESTED:
        if name in records and records[name].notna().any():
            digests = b"".join(
                hashlib.blake2b(to_bytes(value), digest_size=8).digest() for value in records[name]
            )
            hashes = hashes * MIX + np.frombuffer(digests, dtype=np.uint64)
    return np.asarray(hashes, dtype=np.uint64)


def fingerprint(hashes: NDArray[np.uint64], keep_metadata: bool) -> str:
    """A hash of what a shard is made from: its records' hashes in order, and how metadata is treated."""
    return hashlib.sha256(hashes.tobytes() + bytes([keep_metadata])).hexdigest()


def jobs_of(planned: pd.DataFrame, root: Path, out: Path, state: Path, keep_metadata: bool) -> list[ShardJob]:
    """One job per shard. `planned` is sorted by shard and has the columns `hash` and `reproducible`."""
    names = planned["shard"].to_numpy(object)
    changes = np.flatnonzero(names[1:] != names[:-1]) + 1
    bounds = [0, *changes.tolist(), len(names)] if len(names) else []
    jobs = []
    hashes, reproducible = planned["hash"].to_numpy(np.uint64), planned["reproducible"].to_numpy(bool)
    for start, end in pairwise(bounds):
        mark, rows = fingerprint(hashes[start:end], keep_metadata), planned.iloc[start:end]
        jobs.append(
            ShardJob(
                str(names[start]),
                rows,
                mark,
                bool(reproducible[start:end].all()),
                keep_metadata,
                root,
                out,
                state,
            )
        )
    return jobs
