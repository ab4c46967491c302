"""What stages and commands import before they work: packages that take seconds are imported where they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from support.workspace import ROOT, environment

from fra.gallery.files import write
from fra.inference.image_files import Source

SLOW = (
    "altair",
    "dvc",
    "ffcv",
    "great_expectations",
    "matplotlib",
    "numba",
    "pandas",
    "prefect",
    "scipy",
    "sklearn",
    "torch",
    "torch._dynamo",
    "torchvision",
    "webdataset",
)
PROGRAM = f"""
import importlib, json, sys

def loaded():
    return {{name for name in {SLOW!r} if name in sys.modules}}

found = {{}}
for start in sys.argv[1:]:
    before = loaded()
    module, _, call = start.partition(":")
    module = importlib.import_module(module)
    if call:
        eval(call, vars(module))
    found[start] = sorted(loaded() - before)
print(json.dumps(found))
"""
STARTS = {
    "pipelines.cli.main": [],
    "pipelines.params": [],
    "pipelines.shard": [],
    "pipelines.validate": [],
    "pipelines.pretrain": [],
    "pipelines.transfer": [],
    "pipelines.report": [],
    "fra": [],
    "fra.gallery.embed": [],
    "fra.gallery.search": [],
    "fra.inference.encoder:load('demo').embed([np.zeros((8, 8, 3), np.uint8)])": ["torch"],
    "fra.method.backbone:build('resnet18')": ["torchvision"],
    "fra.inference.predict": ["pandas"],
    "fra.region_quality.compare": [],
    "fra.train.pretrain": ["numba", "scipy"],  # Numba imports the folder of SciPy only
    "pipelines.ingest": [],
}
"""By what is imported or called, in this order: the packages of `SLOW` that it is the first to load."""


def test_slow_packages_are_imported_where_they_are_used(tmp_path: Path) -> None:
    gallery = tmp_path / "faces.arrow"
    write([Source("a.png"), Source("b.png")], np.eye(2, dtype=np.float32), {"weights": "0"}, gallery)
    one = f"[Source('a.png')], np.ones((1, 2), np.float32), {{}}, Path({str(tmp_path / 'one.arrow')!r})"
    search = f"fra.gallery.search:search_entries(['a.png'], Path({str(gallery)!r}))"
    starts = {f"fra.gallery.files:write({one})": [], search: []} | STARTS
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *starts],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == starts


def test_threads_wait_briefly_unless_the_user_chose_otherwise() -> None:
    show = "import fra, os; print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"

    def chosen(**given: str) -> str:
        kept = {
            name: value
            for name, value in environment().items()
            if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        }
        done = subprocess.run([sys.executable, "-c", show], env=kept | given, capture_output=True, text=True)
        return done.stdout.strip()

    assert chosen() == "PASSIVE 3000"
    assert chosen(GOMP_SPINCOUNT="100000") == "PASSIVE 100000"
    assert chosen(OMP_WAIT_POLICY="ACTIVE") == "ACTIVE None"
