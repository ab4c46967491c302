"""MPIIFaceGaze: `p00/p00.txt`, one list per person with 28 fields per line, and images `p00/day01/0005.jpg`.

Field 1 is the image, 4 to 15 are six landmarks (four eye corners, two mouth corners; pixels), 22 to 24 the centre of
the face and 25 to 27 the gaze target, both in camera coordinates (the set's own readme). Measures `gaze_pitch` and
`gaze_yaw`, in degrees, of the direction from the face to the target: both are 0 when the person looks into the camera;
pitch grows upwards, yaw towards the left of the image. Each image is cropped to the face around its landmarks (this
project's choice); the head is not normalised. The literature leaves out one of the 15 people at a time; here the shares
`dataset.val` and `dataset.test` of them are held out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, parse_number, words_by_line
from fra.data.datasets.boxes import square_around
from fra.data.datasets.records import DatasetConfig, Record, split_of

FIELDS = 28
MARGIN = 0.6
"""Share of the side added around eye and mouth corners, whose own box excludes forehead and chin."""


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    lists = sorted(root.glob("p[0-9][0-9]/p[0-9][0-9].txt"))
    if not lists:
        raise FileNotFoundError(f"{root / 'p00/p00.txt'}: no such file; check dataset.root")
    for path in lists:
        person = path.stem
        for line, words in words_by_line(path):
            try:
                points = tuple(parse_number(word) for word in words[3:15])
                centre, target = (
                    [parse_number(word) for word in words[start : start + 3]] for start in (21, 24)
                )
            except ValueError:
                raise malformed(path, line, "numbers in fields 4 to 27", " ".join(words)) from None
            if len(words) != FIELDS:
                raise malformed(path, line, f"{FIELDS} fields", f"{len(words)} fields")
            pitch, yaw = angles(*(to - start for start, to in zip(centre, target, strict=True)))
            measures = {"gaze_pitch": pitch, "gaze_yaw": yaw}
            source = f"{person}/{words[0]}"
            box = square_around(points, MARGIN)
            yield Record(source, split_of(person, config), person, box=box, measures=measures)


def angles(x: float, y: float, z: float) -> tuple[float, float]:
    """Pitch and yaw in degrees of a direction in camera coordinates (x right, y down, z away from the camera)."""
    return math.degrees(math.atan2(-y, math.hypot(x, z))), math.degrees(math.atan2(-x, -z))
