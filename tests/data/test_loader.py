from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from data.conftest import RAW_BYTES
from fra.data.loader.build import build_loader
from fra.data.loader.config import DataConfig
from fra.data.loader.ffcv import ffcv_threads
from fra.data.loader.protocol import Loader
from fra.data.loader.samplers import chunk_shuffle, shuffle
from fra.data.views.config import ViewsConfig

EXCLUDE = frozenset({3, 11})
Pairs = dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]


def build(prepared: Path, kind: str, batch_size: int = 4, workers: int = 2, **options: int) -> Loader:
    source = prepared / ("beton/train.beton" if kind == "ffcv" else "shards")
    config = DataConfig(kind, image_size=24, workers=workers, shuffle_buffer=16)
    return build_loader(
        config, ViewsConfig(), source=source, exclude=EXCLUDE, batch_size=batch_size, seed=7, **options
    )


def collect(pairs: Loader, epochs: range) -> Pairs:
    seen: Pairs = {}
    for epoch in epochs:
        for crops in pairs.epoch(epoch):
            for place, index in enumerate(crops.index_B.tolist()):
                assert (epoch, index) not in seen, "an image was read twice in an epoch"
                seen[epoch, index] = (crops.first_BHWC[place].clone(), crops.second_BHWC[place].clone())
    return seen


@pytest.fixture(scope="module")
def images(prepared: Path) -> int:
    manifest = pd.read_parquet(prepared / "manifest.parquet")
    return int(((manifest["split"] == "train") & manifest["shard"].notna()).sum())


@pytest.fixture(scope="module")
def ffcv(prepared: Path) -> Loader:
    return build(prepared, "ffcv")


def test_both_loaders_give_the_same_crops_up_to_decoding(prepared: Path, ffcv: Loader, images: int) -> None:
    manifest = pd.read_parquet(prepared / "manifest.parquet")
    train = manifest[manifest["split"] == "train"].set_index("index")
    exact = train.index[train["width"] * train["height"] * 3 < RAW_BYTES]
    assert 0 < len(exact) < images
    ours, theirs = collect(ffcv, range(3)), collect(build(prepared, "webdataset"), range(3))
    common = ours.keys() & theirs.keys()
    assert len(common) > 2 * (images - len(EXCLUDE) - 4)
    for key in common:
        for first, second in zip(ours[key], theirs[key], strict=True):
            # betons hold larger images as JPEG at quality 95; raw ones are the same to the last bit
            assert (first.float() - second.float()).abs().mean() <= (0 if key[1] in exact else 6)


@pytest.mark.parametrize("kind", ["ffcv", "webdataset"])
def test_an_epoch_can_start_at_any_step(prepared: Path, ffcv: Loader, kind: str) -> None:
    pairs = ffcv if kind == "ffcv" else build(prepared, kind)
    whole = [(crops.index_B.clone(), crops.first_BHWC.clone()) for crops in pairs.epoch(1)]
    part = [(crops.index_B.clone(), crops.first_BHWC.clone()) for crops in pairs.epoch(1, 3)]
    assert len(whole) == pairs.steps_per_epoch
    assert len(part) == pairs.steps_per_epoch - 3
    for (index, crop), (other_index, other_crop) in zip(whole[3:], part, strict=True):
        assert torch.equal(index, other_index)
        assert torch.equal(crop, other_crop)


def test_crops_do_not_depend_on_the_number_of_workers(prepared: Path) -> None:
    one, three = (collect(build(prepared, "webdataset", workers=workers), range(1)) for workers in (1, 3))
    assert one.keys() == three.keys()
    assert all(torch.equal(one[key][view], three[key][view]) for key in one for view in (0, 1))


def test_excluded_images_are_never_read(ffcv: Loader, prepared: Path) -> None:
    for pairs in (ffcv, build(prepared, "webdataset")):
        assert not {index for _, index in collect(pairs, range(5))} & EXCLUDE


@pytest.mark.parametrize("kind", ["ffcv", pytest.param("webdataset", marks=pytest.mark.slow)])
def test_ranks_share_an_epoch_without_overlap(prepared: Path, kind: str) -> None:
    ranks = [build(prepared, kind, rank=rank, world_size=2) for rank in (0, 1)]
    assert ranks[0].steps_per_epoch == ranks[1].steps_per_epoch
    first, second = (collect(pairs, range(1)) for pairs in ranks)
    assert len(first) == len(second) == 4 * ranks[0].steps_per_epoch
    assert not first.keys() & second.keys()


def test_epochs_differ(ffcv: Loader) -> None:
    orders = [torch.cat([crops.index_B for crops in ffcv.epoch(epoch)]) for epoch in (0, 1)]
    assert not torch.equal(*orders)


def test_an_epoch_that_is_not_read_to_its_end_leaves_no_thread(ffcv: Loader) -> None:
    import threading

    epoch = ffcv.epoch(0)
    next(epoch)
    before = threading.active_count()
    epoch.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if type(thread).__name__ == "Epoch":
            thread.join(timeout=5)
    assert threading.active_count() < before


def resources() -> tuple[int, int, float]:
    """Threads, open files and megabytes of this process."""
    process = psutil.Process()
    return process.num_threads(), process.num_fds(), process.memory_info().rss / 2**20


@pytest.mark.slow
def test_hundreds_of_epochs_use_no_more_resources_than_the_first_few(ffcv: Loader) -> None:
    """FFCV starts a thread and allocates its batches in every epoch."""

    def epochs(numbers: range) -> None:
        for epoch in numbers:
            for _ in ffcv.epoch(epoch):
                pass

    epochs(range(50))
    threads, files, memory = resources()
    epochs(range(50, 450))
    threads_later, files_later, memory_later = resources()
    assert threads_later <= threads + 1  # the last epoch's may be ending
    assert files_later <= files
    assert memory_later - memory < 40  # a tenth of a megabyte an epoch


def test_chunk_shuffle_reads_chunks_and_mixes_batches() -> None:
    """Each image once; few pages at a time; neighbours in the file share a batch little more often than by chance."""
    index, batch, generator = np.arange(100_000), 500, np.random.default_rng(0)
    order = chunk_shuffle(index, chunk=700, buffer=10_000, generator=generator)
    assert np.array_equal(np.sort(order), index)
    pages = [len(np.unique(order[start : start + 10_000] // 700)) for start in range(0, len(index), 10_000)]
    assert max(pages) <= 10_000 // 700 + 3  # in memory at a time, of 143
    together = {}
    for name, one in {"chunk_shuffle": order, "random": shuffle(index, generator)}.items():
        of = np.empty(len(index), dtype=int)
        of[one] = np.arange(len(index)) // batch
        together[name] = np.mean(of[:-1] == of[1:])
    assert together["random"] < 0.01
    assert together["chunk_shuffle"] < 0.06  # 500 of a window of 10,000: neighbours in one epoch, …
    again = chunk_shuffle(index, chunk=700, buffer=10_000, generator=generator)
    first = set(order[:10_000].tolist())
    overlap = [
        len(first & set(again[start : start + 10_000].tolist())) for start in range(0, 100_000, 10_000)
    ]
    assert max(overlap) < 4_000  # … and other windows in the next


def test_a_loader_can_use_chunk_shuffle(prepared: Path, images: int) -> None:
    config = DataConfig("ffcv", "chunk_shuffle", image_size=24, workers=2, shuffle_buffer=16)
    pairs = build_loader(
        config,
        ViewsConfig(),
        source=prepared / "beton/train.beton",
        exclude=EXCLUDE,
        batch_size=4,
        seed=7,
    )
    assert len(collect(pairs, range(1))) == (images - len(EXCLUDE)) // 4 * 4


def test_an_error_in_ffcvs_thread_is_raised(prepared: Path) -> None:
    pairs = build(prepared, "ffcv")
    pairs.loader.code = [(lambda **_: 1 / 0, [])], []  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"train\.beton: a batch could not be read"):
        list(pairs.epoch(0))


def test_more_threads_than_numba_has_are_refused_and_the_default_fits(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"data\.workers is 9999, but Numba has \d+ threads here"):
        build(prepared, "ffcv", workers=9999)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    assert ffcv_threads(0) == 1


def test_a_batch_larger_than_the_set_names_the_largest_possible(prepared: Path, images: int) -> None:
    with pytest.raises(ValueError, match=f"set train.batch_size to {images - len(EXCLUDE)} or less"):
        build(prepared, "webdataset", batch_size=1000)


@pytest.mark.parametrize("kind", ["ffcv", "webdataset"])
def test_a_missing_source_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FileNotFoundError, match="run `dvc repro shard`"):
        build_loader(
            DataConfig(kind),
            ViewsConfig(),
            source=tmp_path / "none",
            exclude=frozenset(),
            batch_size=1,
            seed=0,
        )
