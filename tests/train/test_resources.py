"""A long run takes no more memory, threads or open files than a short one."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
from support.toy_training import SIZE, run

from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.views.config import ViewsConfig
from fra.data.views.views import Views
from fra.method.config import ModelConfig
from fra.train import memory
from fra.train.config import ProbeConfig
from fra.train.probe import load_probe

STEPS = 2000
MIB = 2**20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ffcv", "webdataset"])
def test_two_thousand_steps_take_no_more_than_two_hundred(
    kind: str, labelled: Path, faces: ProbeConfig, tmp_path: Path
) -> None:
    """Real loader, views, checkpoints, log and probe; 667 epochs, so that what an epoch leaves behind would show."""
    process = psutil.Process()
    seen: dict[int, tuple[int, int, int]] = {}

    def measure(reading: dict[str, float]) -> None:
        seen[int(reading["step"])] = process.memory_info().rss, process.num_threads(), process.num_fds()

    source = labelled / ("beton/train.beton" if kind == "ffcv" else "shards")
    config, views = DataConfig(kind, image_size=SIZE, workers=2), ViewsConfig()
    batches = build_loader(config, views, source=source, exclude=frozenset(), batch_size=8, seed=0)
    run(
        tmp_path,
        loader=batches,
        views=Views(views, 0),
        model=ModelConfig("mini", num_masks=3, projection_dim=16, hidden_dim=32),
        epochs=-(-STEPS // batches.steps_per_epoch),
        batch_size=8,
        optimizer="adamw",
        lr=1e-3,
        log_every=10,
        checkpoint_every=50,
        observe=measure,
        probe=load_probe(faces, SIZE, views, frozenset()),
    )
    early, late = ([seen[step] for step in range(first, first + 200, 10)] for first in (200, STEPS - 190))
    (rss, threads, files), (rss_late, threads_late, files_late) = (
        [max(column) for column in zip(*rows, strict=True)] for rows in (early, late)
    )
    print(
        f"{kind}: {rss / MIB:.1f} MiB before step 400, {rss_late / MIB:.1f} MiB at step {STEPS}; "
        f"threads {threads} and {threads_late}, open files {files} and {files_late}"
    )
    assert rss_late - rss < 4 * MIB
    assert threads_late <= threads
    assert files_late <= files


def test_a_c_library_without_glibcs_functions_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As musl, in which neither exists: memory is freed as Python and PyTorch do it."""
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.free_memory(torch.device("cpu"))
    memory.keep_freed_memory()
