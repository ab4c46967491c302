"""MPIIFaceGaze: `p00/p00.txt` beside `p00/day01/0005.jpg` …, one list a person, 28 fields a line.

Field 1 is the image, 4 to 15 are six landmarks (four eye corners, two mouth corners; pixels), 22 to 24 the centre of
the face and 25 to 27 what is looked at, both in the camera's coordinates (the set's own readme). Measures `gaze_pitch`
and `gaze_yaw` in degrees, of the direction from the one to the other: 0 and 0 look into the camera, pitch up, yaw to
the left of the image. Each image is the face, cut out around its landmarks (ours); the head is not normalised.
The literature leaves out one of the 15 people at a time; here `dataset.val` and `dataset.test` of them are set apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.records import DatasetConfig, Record, around, lines, malformed, number, split_of

FIELDS = 28
MARGIN = 0.6
"""Of the side of the box around eye and mouth corners, which leaves out forehead and chin."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    lists = sorted(root.glob("p[0-9][0-9]/p[0-9][0-9].txt"))
    if not lists:
        raise FileNotFoundError(f"{root / 'p00/p00.txt'}: not there; check dataset.root")
    for path in lists:
        person = path.stem
        for line, words in lines(path):
            try:
                points = tuple(number(word) for word in words[3:15])
                centre, target = ([number(word) for word in words[start : start + 3]] for start in (21, 24))
            except ValueError:
                raise malformed(path, line, "numbers in fields 4 to 27", " ".join(words)) from None
            if len(words) != FIELDS:
                raise malformed(path, line, f"{FIELDS} fields", f"{len(words)} fields")
            pitch, yaw = angles(*(to - start for start, to in zip(centre, target, strict=True)))
            measures = {"gaze_pitch": pitch, "gaze_yaw": yaw}
            source = f"{person}/{words[0]}"
            box = around(points, MARGIN)
            yield Record(source, split_of(person, config), person, box=box, measures=measures)


def angles(x: float, y: float, z: float) -> tuple[float, float]:
    """Pitch and yaw in degrees of a direction in the camera's coordinates (x right, y down, z away from it)."""
    return math.degrees(math.atan2(-y, math.hypot(x, z))), math.degrees(math.atan2(-x, -z))
