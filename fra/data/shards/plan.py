"""Which record goes into which shard, and what a shard is made from."""

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
from fra.data.shards.tar import Job

APART = ("landmarks", "box", "span", "content")
"""Columns of records that hold no plain values."""


MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd number with even bits: keeps hashes apart where they are added."""


def order_of(keys: Iterable[str]) -> NDArray[np.uint64]:
    """A number a key, which shuffles them: the first eight bytes of its SHA-256."""
    digests = (hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8] for key in keys)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def rows_of(keys: pd.Series, table: pd.Series) -> NDArray[np.int64]:
    """The row of each key among the keys of `table`, or -1."""
    found = pc.index_in(pa.array(keys, pa.large_string()), value_set=pa.array(table, pa.large_string()))
    return np.asarray(found.fill_null(-1), dtype=np.int64)


def numbers_of(shards: pd.Series, split: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each record's shard as far as it is one of the record's split, else -1."""
    codes, names = pd.factorize(shards)
    found = [re.fullmatch(r"(\w+)-(\d{6,})\.tar", str(name)) for name in names]
    splits = np.array([SPLITS.index(part[1]) if part else -1 for part in found] + [-1])
    numbers = np.array([int(part[2]) if part else -1 for part in found] + [-1], dtype=np.int64)
    return np.where(splits[codes] == split, numbers[codes], np.int64(-1))


def plan(records: pd.DataFrame, images_per_shard: int, before: pd.Series) -> pd.DataFrame:
    """The records with the column `shard`, in the order of splits, shards and, within one, a hash of the key.

    `before` is the shards of the last manifest's rows, which are in this same order, and the column `last` the
    record's row there or -1: it stays in its shard. Others fill up the last shard of their split and then new ones.
    """
    split = pd.Categorical(records["split"], SPLITS).codes.astype(np.int64)
    last_row = records["last"].to_numpy(np.int64)
    number = numbers_of(before.reindex(last_row), split)
    mixed = number < 0  # records of shards that get new ones; in the others, the order is known
    for code in range(len(SPLITS)):
        new = np.flatnonzero((split == code) & (number < 0))
        new = new[np.argsort(order_of(records["key"].iloc[new]), kind="stable")]
        old = number[(split == code) & (number >= 0)]
        last = int(old.max(initial=0))
        start = last * images_per_shard + min(int((old == last).sum()), images_per_shard)
        number[new] = (start + np.arange(len(new))) // images_per_shard
        mixed |= (split == code) & (number == start // images_per_shard)
    order = last_row.astype(np.uint64)
    order[mixed] = order_of(records["key"][mixed])
    rank = np.lexsort((order, number, split))
    shards, of_record = np.unique(split[rank] * 10**12 + number[rank], return_inverse=True)
    names = [f"{SPLITS[shard // 10**12]}-{shard % 10**12:06d}.tar" for shard in shards.tolist()]
    return records.iloc[rank].assign(shard=pd.array(np.array(names, dtype=object)[of_record], dtype="string"))


def content_of(value: Any) -> bytes:
    """The bytes of a list of numbers, of bytes, or of None."""
    if value is None or isinstance(value, bytes):
        return value or b""
    return np.asarray(value, np.float64).tobytes()


def row_hashes(records: pd.DataFrame) -> NDArray[np.uint64]:
    """A number a record that changes with anything that the manifest or its shard says of it."""
    names = (records["key"] + "\0" + records["source"]).to_numpy(object)
    plain = records.drop(columns=["key", "source", *(name for name in APART if name in records)])
    hashes = pd.util.hash_pandas_object(plain, index=False).to_numpy(np.uint64) * MIX
    hashes += pd.util.hash_array(names, categorize=False)
    for name in APART:
        if name in records and records[name].notna().any():
            digests = b"".join(
                hashlib.blake2b(content_of(value), digest_size=8).digest() for value in records[name]
            )
            hashes = hashes * MIX + np.frombuffer(digests, dtype=np.uint64)
    return np.asarray(hashes, dtype=np.uint64)


def fingerprint(hashes: NDArray[np.uint64], keep_metadata: bool) -> str:
    return hashlib.sha256(hashes.tobytes() + bytes([keep_metadata])).hexdigest()


def jobs_of(planned: pd.DataFrame, root: Path, out: Path, state: Path, keep_metadata: bool) -> list[Job]:
    """One job a shard. `planned` is in the shards' order, with the columns `hash` and `known`."""
    names = planned["shard"].to_numpy(object)
    changes = np.flatnonzero(names[1:] != names[:-1]) + 1
    bounds = [0, *changes.tolist(), len(names)] if len(names) else []
    jobs = []
    hashes, known = planned["hash"].to_numpy(np.uint64), planned["known"].to_numpy(bool)
    for start, end in pairwise(bounds):
        mark, rows = fingerprint(hashes[start:end], keep_metadata), planned.iloc[start:end]
        jobs.append(
            Job(str(names[start]), rows, mark, bool(known[start:end].all()), keep_metadata, root, out, state)
        )
    return jobs
