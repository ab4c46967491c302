"""Suggestions for a data set from its embeddings: what to leave out, or what to keep.

A list has one key per line, for `dataset.exclude` (or `dataset.only`); its comment lines name the rule and its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fra.data.datasets.annotation_files import is_missing
from fra.data.datasets.record_table import keys_of
from fra.files import read_csv, sha256, write_text
from fra.gallery.curation import Rule
from fra.gallery.curation.balance import SEED, balanced, crowded
from fra.gallery.curation.duplicates import duplicates
from fra.gallery.curation.labels import label_errors
from fra.gallery.curation.outliers import face_scores, outliers
from fra.gallery.files import read
from fra.gallery.label_table import COLUMNS, places, rows_of
from fra.gallery.neighbours import among, mean_of, open_index, unit

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
    label: str = "label",
    root: Path | None = None,
    pixels: bool = True,
) -> Suggestions:
    """Applies a rule to the images of a gallery.

    Args:
        gallery: Embeddings that `embed` wrote.
        rule: Near-duplicates, outliers, likely label errors, over-represented clusters, or a balanced subset.
        threshold: See `DEFAULTS`.
        count: Images of the balanced subset.
        labels: A CSV file of labels, see `read_labels`.
        label: Its column of labels.
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
            raise ValueError(f"the rule balanced needs a count, from 1 to {len(names) - 1}")
        found = balanced(unit_ND, count)
        values = values | {"threshold": "none", "count": str(count), "seed": str(SEED)}
    elif rule == "labels":
        if labels is None:
            raise ValueError(
                "the rule labels needs a CSV file of labels, with a column image (or key) and the labels"
            )
        found = label_errors(unit_ND, read_labels(labels, label, names, keys, root), limit)
        values |= {"label": label, "labels_sha256": sha256(labels)}
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
    """The keys of images by which a data set knows them: their places (see `places`) without the suffix."""
    found = places(names, root)
    unique = list(dict.fromkeys(found))
    key_of = dict(zip(unique, keys_of(unique), strict=True))
    return [key_of[place] for place in found]


def read_labels(
    path: Path, label: str, names: Sequence[str], keys: Sequence[str], root: Path | None = None
) -> list[str]:
    """The label of each image; an empty text where it has none.

    Args:
        path: A CSV file: a column `image` or `key`, see `rows_of`, and the labels.
        label: The column of the labels.
        names: Names of the images in the gallery.
        keys: Their keys in the data set.
        root: The folder of the images; by default the one that contains all.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file has other columns, or labels none of the images.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of labels")
    try:
        table = read_csv(path, {}, others="str")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    by = next((name for name in COLUMNS if name in table), None)
    if by is None or label not in table:
        raise ValueError(
            f"{path}: its columns are {', '.join(map(str, table))}; the rule labels needs `image` (or `key`) and the "
            "labels: name their column with --label"
        )
    rows = rows_of(path, by, table[by].tolist(), names, keys, root)
    values = ["" if is_missing(value) else value for value in table[label]]
    return ["" if row is None else values[row] for row in rows]
