from __future__ import annotations

import os
import subprocess
import sys
import threading

import cv2
import pytest
import torch

from fra.parallel import cores, map_batches, opencv_in_one_thread, torch_threads

CPU = torch.device("cpu")


def test_batches_run_in_order_on_threads_with_one_torch_thread_each() -> None:
    together = threading.Barrier(2)

    def work(number: int) -> tuple[int, int]:
        if number < 2:
            together.wait(timeout=20)  # two batches at a time
        return number, torch.get_num_threads()

    with torch_threads(2):
        assert list(map_batches(work, range(6), CPU)) == [(number, 1) for number in range(6)]
        assert torch.get_num_threads() == 2
        assert list(map_batches(lambda number: (number, torch.get_num_threads()), [5], CPU)) == [(5, 2)]


def test_threads_are_restored_after_an_error() -> None:
    with torch_threads(2):
        with pytest.raises(ZeroDivisionError):
            list(map_batches(lambda number: 1 // number, range(6), CPU))
        assert torch.get_num_threads() == 2


def test_cores_are_limited_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cores() == len(os.sched_getaffinity(0))


def test_opencv_has_its_threads_again() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    with opencv_in_one_thread():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == 2
    cv2.setNumThreads(before)


@pytest.mark.slow
def test_importing_ffcv_leaves_torchs_threads() -> None:
    """FFCV's own import sets them to one."""
    code = "import torch; torch.set_num_threads(3); import fra.data.ffcv; print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]
