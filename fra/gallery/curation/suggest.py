"""Suggestions for a data set from its embeddings: what to leave out, or what to keep.

A list has one key per line, for `dataset.exclude` (or `dataset.only`); its comment lines name the rule and its values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from fra.data.datasets.record_table import keys_of
from fra.files import read_csv, sha256, write_text
from fra.gallery.curation.balance import SEED, balanced, crowded
from fra.gallery.curation.duplicates import duplicates
from fra.gallery.curation.labels import label_errors
from fra.gallery.curation.outliers import face_scores, outliers
from fra.gallery.files import read
from fra.gallery.neighbours import among, mean_of, open_index, unit

Rule = Literal["duplicates", "outliers", "labels", "clusters", "balanced"]
NEIGHBOURS = 10
"""Nearest images that an image may be a duplicate of."""
DEFAULTS: Mapping[Rule, float] = {"duplicates": 0.98, "outliers": 6.0, "labels": 0.0, "clusters": 3.0}
"""Thresholds: least similarity of a duplicate; robust standard deviations above the median distance to the typical
embedding; margin by which the other label is more probable; size of a cluster divided by the median size."""


@dataclass(frozen=True)
class Suggestions:
    """What a rule suggests.

    Attributes:
        table: One row per image with `image`, `key`, `score` (the larger, the more the rule applies), `suggested`, and
            what the rule adds: `of` (the duplicate that is kept), `face_score` and `reason`, `cluster`, `label` and
            `other_label`.
        rule: The rule.
        values: Its values, such as the threshold.
    """

    table: pd.DataFrame
    rule: Rule
    values: dict[str, str]

    def write(self, out: Path) -> None:
        """Writes the keys of the suggested images, one per line."""
        chosen = self.table[self.table["suggested"]]
        about = " ".join(f"{name}={value}" for name, value in self.values.items())
        use = "dataset.only" if self.rule == "balanced" else "dataset.exclude"
        lines = [
            f"# fra curate --rule {self.rule} {about}",
            f"# {len(chosen)} of {len(self.table)} images, for {use}",
            *dict.fromkeys(chosen["key"]),
        ]
        write_text("\n".join(lines) + "\n", out)


def curate(
    gallery: Path,
    rule: Rule,
    threshold: float | None = None,
    count: int | None = None,
    labels: Path | None = None,
    root: Path | None = None,
    pixels: bool = True,
) -> Suggestions:
    """Applies a rule to the images of a gallery.

    Args:
        gallery: Embeddings that `embed` wrote.
        rule: Near-duplicates, outliers, likely label errors, over-represented clusters, or a balanced subset.
        threshold: See `DEFAULTS`.
        count: Images of the balanced subset.
        labels: A CSV file with the columns `key` and `label`.
        root: The folder to which keys are relative; by default the one that contains all images.
        pixels: Whether duplicates and outliers are found by the images, too, not by embeddings alone.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file has another content, an image cannot be read, or the rule needs a value that is
            not given.
    """
    known = read(gallery)
    names = known.names
    if len(names) < 3:
        raise ValueError(f"{gallery}: {len(names)} images are too few to be compared")
    keys = image_keys(names, root)
    unit_ND = unit(known.embeddings_ND - mean_of(known))
    limit = DEFAULTS.get(rule, 0.0) if threshold is None else threshold
    values = {"gallery": gallery.name, "sha256": sha256(gallery), "threshold": f"{limit:g}"}
    if rule == "balanced":
        if count is None or not 0 < count < len(names):
            raise ValueError(f"--rule balanced needs --count, from 1 to {len(names) - 1}")
        found = balanced(unit_ND, count)
        values = values | {"threshold": "none", "count": str(count), "seed": str(SEED)}
    elif rule == "labels":
        if labels is None:
            raise ValueError("--rule labels needs --labels, a CSV file with the columns key and label")
        found = label_errors(unit_ND, read_labels(labels, keys), limit)
        values["labels_sha256"] = sha256(labels)
    elif rule == "clusters":
        found = crowded(unit_ND, limit)
    elif rule == "outliers":
        found = outliers(known.embeddings_ND, limit, face_scores(known) if pixels else None)
    else:
        opened = open_index(gallery)
        near = among(unit_ND, NEIGHBOURS, None if opened is None else opened.lists)
        found = duplicates(near, limit, known if pixels else None)
    if rule in ("duplicates", "outliers"):
        values["pixels"] = "yes" if pixels else "no"
    if "of" in found:
        found["of"] = [keys[row] for row in found["of"]]
    return Suggestions(pd.DataFrame({"image": names, "key": keys}).join(found), rule, values)


def image_keys(names: Sequence[str], root: Path | None = None) -> list[str]:
    """The keys of images by which a data set knows them: in a tar the member, else the path below `root`; no suffix."""
    inside = [name.partition(".tar/")[2] for name in names]
    folders = {str(Path(name).parent) for name, member in zip(names, inside, strict=True) if not member}
    folder = os.path.commonpath(folders) if folders and root is None else str(root or "")
    places = [
        member or os.path.relpath(name, folder or ".") for name, member in zip(names, inside, strict=True)
    ]
    unique = list(dict.fromkeys(places))
    key_of = dict(zip(unique, keys_of(unique), strict=True))
    return [key_of[place] for place in places]


def read_labels(path: Path, keys: Sequence[str]) -> list[str]:
    """The label of each key; an empty text where it has none.

    Raises:
        ValueError: The file has other columns, or labels none of the keys.
    """
    try:
        table = read_csv(path, {"key": "str", "label": "str"}, others="str")
    except ValueError as error:
        raise ValueError(f"{path}: {error}; it needs the columns key and label") from None
    found = dict(zip(table["key"], table["label"], strict=True))
    if not any(key in found for key in keys):
        raise ValueError(f"{path}: labels none of the images; their keys are like {keys[0]!r}")
    return [found.get(key, "") for key in keys]
