"""A million rows and ten thousand shards: bounded memory and few open files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.workspace import ROOT, run

ROWS, SHARDS = 1_000_000, 10_000
GIGABYTE = 2.0**30

PLAN = f"""
import numpy as np, pandas as pd
from pathlib import Path
from fra.data.shards import plan as shards
keys = pd.Series([f"person{{row // 10}}/{{row}}" for row in range({ROWS})], dtype="string")
records = pd.DataFrame({{"key": keys, "source": keys, "split": "train", "person": keys.str.partition("/")[0],
                        "landmarks": None, "last": -1, "known": True}})
records["hash"] = shards.row_hashes(records.drop(columns="last"))
planned = shards.plan(records, {ROWS // SHARDS}, pd.Series([], dtype="string"))
jobs = shards.jobs_of(planned, Path(), Path(), Path(), False)
assert len(jobs) == {SHARDS} and {{len(job.records) for job in jobs}} == {{{ROWS // SHARDS}}}
again = shards.plan(planned.assign(last=np.arange({ROWS})), {ROWS // SHARDS}, planned["shard"].reset_index(drop=True))
assert again["key"].tolist() == planned["key"].tolist() and again["shard"].tolist() == planned["shard"].tolist()
"""
IMPACT = """
from pipelines.lineage.impact import impact
found = impact("person", "person77777")["datasets"]["many"]
assert len(found["images"]) == 10 and found["stages"] == ["shard"], found
"""
SHOW = """
from pipelines.lineage.show import trace
origin = trace("data/manifest/many.parquet")
assert "shard" in origin["stages"], origin
"""
INDEX = f"""
from pathlib import Path
from fra.data.loader.shard_index import train_shards
assert len(train_shards(Path("data/shards/many"))) == {SHARDS}
"""
PEAK = """
import psutil
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) * 1024  # not ru_maxrss, which includes the memory of the test's own process
print(peak, psutil.Process().num_fds())
"""


def peak(workspace: Path, program: str) -> tuple[float, int]:
    """Runs a program; returns its peak memory in bytes, and the number of files open at its end."""
    done = run(workspace, sys.executable, "-c", program + PEAK, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout
    memory, files = done.stdout.split()[-2:]
    return float(memory), int(files)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of a million rows, the index of its ten thousand shards, and the dvc.lock of both."""
    workspace = tmp_path_factory.mktemp("many")
    rows = np.arange(ROWS)
    manifest = pd.DataFrame(
        {
            "key": [f"person{row // 10}/{row}" for row in range(ROWS)],
            "person": [f"person{row // 10}" for row in range(ROWS)],
            "split": "train",
            "shard": [f"train-{row * SHARDS // ROWS:06d}.tar" for row in range(ROWS)],
            "index": rows,
        }
    )
    (workspace / "data/manifest").mkdir(parents=True)
    manifest.to_parquet(workspace / "data/manifest/many.parquet")
    (workspace / "data/shards/many").mkdir(parents=True)
    each = [
        {"name": f"train-{shard:06d}.tar", "images": ROWS // SHARDS, "bytes": 10240, "sha256": "0" * 64}
        for shard in range(SHARDS)
    ]
    for entry in each:
        (workspace / "data/shards/many" / str(entry["name"])).touch()
    index = {
        "images": ROWS,
        "images_per_shard": ROWS // SHARDS,
        "splits": {"train": {"images": ROWS, "shards": each}},
    }
    (workspace / "data/shards/many/index.json").write_text(json.dumps(index))
    outs = ("data/manifest/many.parquet", "data/shards/many")
    shard = {"cmd": "python -m pipelines.shard", "outs": [{"path": path, "md5": "0" * 32} for path in outs]}
    (workspace / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"shard": shard}}))
    (workspace / "params.yaml").write_text("{}\n")
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "limit"),
    [(PLAN, 2 * GIGABYTE), (IMPACT, GIGABYTE), (SHOW, GIGABYTE), (INDEX, GIGABYTE)],
    ids=["plan", "impact", "show", "index"],
)
def test_memory_and_open_files_are_bounded(many: Path, program: str, limit: float) -> None:
    memory, files = peak(many, program)
    print(f"{memory / GIGABYTE:.2f} GB, {files} open files")
    assert memory < limit
    assert files < 64
