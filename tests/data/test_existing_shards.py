from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from fra.data import shards
from fra.data.datasets import ingest
from fra.data.records import DatasetConfig
from fra.data.shards import ShardConfig


class Ranges(SimpleHTTPRequestHandler):
    """A web server of files that answers range requests, as real ones do."""

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        start, end = 0, len(content) - 1
        if wanted := self.headers.get("Range"):
            start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        part = content[start : end + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(prepared: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(prepared / "shards")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def rewritten(urls: str, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records and manifest of existing shards."""
    records = ingest(DatasetConfig("web", "webdataset", urls=urls), out / "raw")
    manifest = shards.write(
        records, out, out / "shards", out / "manifest.parquet", ShardConfig(workers=1), out / "state"
    )
    return records, manifest


@pytest.mark.parametrize("remote", [False, True])
def test_existing_shards_are_a_data_set(remote: bool, prepared: Path, address: str, tmp_path: Path) -> None:
    place = address if remote else str(prepared / "shards")
    _, manifest = rewritten(f"{place}/train-{{000000..000001}}.tar", tmp_path)
    before = pd.read_parquet(prepared / "manifest.parquet")
    before = before[before["shard"].isin(["train-000000.tar", "train-000001.tar"])]
    assert sorted(manifest["sha256"]) == sorted(before["sha256"])
    assert manifest["error"].isna().all()


def test_a_missing_shard_is_named(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-000077\.tar: no such shard"):
        rewritten(f"{prepared}/shards/train-{{000000,000077}}.tar", tmp_path)


def test_something_else_is_no_shard(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a tar file"):
        rewritten(f"{prepared}/shards/index.json", tmp_path)
