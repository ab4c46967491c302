from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from fra.data.datasets.adapters.webdataset import expand
from fra.data.datasets.ingest import ingest
from fra.data.datasets.records import DatasetConfig
from fra.data.shards import write
from fra.data.shards.config import ShardConfig


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


@pytest.fixture
def bucket(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The shards in a bucket of a real S3 server, configured through the environment as users do."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="faces")
    for path in (prepared / "shards").glob("*.tar"):
        client.upload_file(str(path), "faces", f"shards/{path.name}")
    yield "s3://faces/shards"
    server.stop()


def rewritten(urls: str, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records and manifest of existing shards."""
    records = ingest(DatasetConfig("web", "webdataset", urls=urls), out / "raw")
    manifest = write.write(
        records,
        out,
        out / "shards",
        out / "manifest.parquet",
        ShardConfig(images_per_shard=15, workers=2),
        out / "state",
    )
    return records, manifest


@pytest.mark.parametrize("where", ["disk", pytest.param("http", marks=pytest.mark.slow), "s3"])
def test_existing_shards_are_a_data_set(
    where: str, prepared: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture = {"http": "address", "s3": "bucket"}.get(where)
    place = request.getfixturevalue(fixture) if fixture else str(prepared / "shards")
    _, manifest = rewritten(f"{place}/train-{{000000..000001}}.tar", tmp_path)
    before = pd.read_parquet(prepared / "manifest.parquet")
    before = before[before["shard"].isin(["train-000000.tar", "train-000001.tar"])]
    assert sorted(manifest["sha256"]) == sorted(before["sha256"])
    assert manifest["error"].isna().all()


@pytest.mark.parametrize("folder", ["{old}", "{a,b}", "{0..1}", "a{b", "back\\slash", "a}b"])
def test_braces_in_the_name_of_a_folder_stand_for_themselves(
    folder: str, prepared: Path, tmp_path: Path
) -> None:
    (tmp_path / folder).symlink_to(prepared / "shards")
    urls = f"{tmp_path}/{folder}/train-{{000000..000001}}.tar"
    assert list(expand(urls)) == [f"{tmp_path}/{folder}/train-{number:06d}.tar" for number in range(2)]
    table, _ = rewritten(f"{tmp_path}/{folder}/train-000000.tar", tmp_path / "out")
    assert len(table)


def test_a_missing_shard_is_named(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-000077\.tar: no such shard"):
        rewritten(f"{prepared}/shards/train-{{000000,000077}}.tar", tmp_path)


def test_another_file_is_not_a_shard(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a tar file"):
        rewritten(f"{prepared}/shards/index.json", tmp_path)
