"""RAF-DB, basic expressions: `basic/EmoLabel/list_patition_label.txt` (sic) and `basic/Image/aligned/`.

Label `expression`: 0 Surprise, 1 Fear, 2 Disgust, 3 Happiness, 4 Sadness, 5 Anger, 6 Neutral (the file has 1 to 7).
12,271 training and 3,068 test images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fra.data.datasets.annotation_files import malformed, require, words_by_line
from fra.data.datasets.records import DatasetConfig, Record, split_off

LABELS = tuple("1234567")


def records(root: Path, config: DatasetConfig) -> Iterator[Record]:
    """The records of the set in the folder `root`."""
    listed = require(root / "basic/EmoLabel/list_patition_label.txt", "RAF-DB's list of images and labels")
    require(root / "basic/Image/aligned", "RAF-DB's aligned images")
    for number, words in words_by_line(listed):
        split, _, rest = words[0].partition("_")
        if len(words) != 2 or split not in ("train", "test") or not rest or words[1] not in LABELS:
            raise malformed(listed, number, "`train_00001.jpg 5`", " ".join(words))
        source = f"basic/Image/aligned/{Path(words[0]).stem}_aligned.jpg"
        yield Record(source, split_off(split, source, config), labels={"expression": int(words[1]) - 1})
