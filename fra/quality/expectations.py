"""What data must be: the rules of the gate, tables that read like a specification.

A rule is a Great Expectations expectation on one of the tables that the gate measures (`fra.quality.tables`), how much
it matters, and what it means in words. Severities: `error` stops the run; `quarantine` sets the rows aside; `warn` is
reported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation

from fra.data.records import SPLITS

Severity = Literal["error", "warn", "quarantine"]
Table = Literal["columns", "images", "labels", "files", "drift", "batches"]
SEVERITIES = ("error", "warn", "quarantine")
TABLES = {
    "columns": "Columns of the manifest",
    "images": "Images",
    "labels": "Labels",
    "files": "Shards and betons",
    "drift": "Drift against the reference",
    "batches": "Batches that the network will see",
}


@dataclass(frozen=True)
class ValidateConfig:
    """Limits of the gate.

    Shares are 0…1, grey values 0…255, sides in pixels. `sharpness` is (blurred below, noise above) and measured at
    64×64; `near_duplicate_bits` of 256 may differ between two images that are taken for one; `labels` maps a label's name
    to its known values (others: any number from 0 up); `min_class_share` and `max_unlabelled` are shares of a label's
    images; `landmark_margin` is how far outside the image a landmark may lie, in widths or heights; `min_eye_distance` is
    in widths and `max_roll` in degrees; `beton_tolerance` is the mean difference of a beton's pixels from the shard's
    (JPEG); `max_drift` is a Kolmogorov–Smirnov distance; `batch_mean` and `batch_std` bound each view after normalisation.
    `reference` is a file of profiles of earlier versions, `expectations` a Python file with a list `RULES` of one's own,
    `severities` maps names of rules to other severities.
    """

    max_quarantined: float = 0.02
    min_images: int = 2
    min_side: int = 32
    max_side: int = 8192
    max_bytes: int = 50_000_000
    max_aspect: float = 3.0
    modes: tuple[str, ...] = ("L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B")
    min_contrast: float = 4.0
    brightness: tuple[float, float] = (15.0, 240.0)
    max_clipped: float = 0.6
    max_flat: float = 0.4
    sharpness: tuple[float, float] = (0.15, 2.5)
    near_duplicate_bits: int = 12
    labels: dict[str, list[int]] = field(default_factory=dict)
    min_class_share: float = 0.005
    max_unlabelled: float = 0.5
    landmark_margin: float = 0.25
    min_eye_distance: float = 0.05
    max_roll: float = 60.0
    beton_tolerance: float = 4.0
    max_drift: float = 0.15
    batch_mean: float = 2.5
    batch_std: tuple[float, float] = (0.05, 5.0)
    min_view_difference: float = 0.001
    reference: str = "fra/conf/gate/reference.json"
    expectations: str = "fra/conf/gate/expectations.py"
    severities: dict[str, Severity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (
            "max_quarantined",
            "max_clipped",
            "max_flat",
            "min_class_share",
            "max_unlabelled",
            "max_drift",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"validate.{name} is {getattr(self, name)}: a share, 0 to 1")
        if not 1 <= self.min_side <= self.max_side:
            raise ValueError(f"validate.min_side {self.min_side} and max_side {self.max_side} leave no image")
        if not 0 <= self.near_duplicate_bits <= 64:
            raise ValueError(f"validate.near_duplicate_bits is {self.near_duplicate_bits}: 0 to 64 of 256")
        for name in ("brightness", "sharpness", "batch_std"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"validate.{name} is [{low}, {high}]: the smaller first")


@dataclass(frozen=True)
class Rule:
    """One line of the specification.

    `name` identifies it; `reason` completes "fails where …"; `table` is what it looks at; `tell` names a column whose
    value is told with the reason (a row of another image where the column begins with "same_" or "like_").
    """

    name: str
    severity: Severity
    reason: str
    expectation: Expectation
    table: Table = "images"
    tell: str = ""


def absent(column: str) -> Expectation:
    """No row has a value here: the column says what is wrong, or with which other image."""
    return gxe.ExpectColumnValuesToBeNull(column=column)


def files_of_images(config: ValidateConfig) -> list[Rule]:
    """The image files themselves."""
    low, high = config.min_side, config.max_side
    bad = "quarantine"
    return [
        Rule(
            "not empty",
            bad,
            "the file is empty",
            gxe.ExpectColumnValuesToNotMatchRegex(column="error", regex=r"0 bytes"),
            tell="error",
        ),
        Rule(
            "is an image",
            bad,
            "no image format begins like this",
            gxe.ExpectColumnValuesToNotMatchRegex(column="error", regex=r"not an image"),
            tell="error",
        ),
        Rule(
            "no decompression bomb",
            bad,
            "refused before decoding: too many pixels",
            gxe.ExpectColumnValuesToNotMatchRegex(
                column="error", regex=r"pixels are more|more than .* pixels"
            ),
            tell="error",
        ),
        Rule(
            "not cut off",
            bad,
            "the file ends too early",
            gxe.ExpectColumnValuesToNotMatchRegex(
                column="error", regex=r"(?i)truncated|not enough|broken data|EOF"
            ),
            tell="error",
        ),
        Rule(
            "decodable",
            bad,
            "cannot be decoded",
            gxe.ExpectColumnValuesToBeNull(column="error"),
            tell="error",
        ),
        Rule(
            "colour mode",
            bad,
            f"pixels are none of {', '.join(config.modes)}",
            gxe.ExpectColumnValuesToBeInSet(column="mode", value_set=list(config.modes)),
            tell="mode",
        ),
        Rule(
            "name tells format",
            "warn",
            "the suffix is another format's",
            gxe.ExpectColumnValuesToBeInSet(column="suffix_fits", value_set=[1]),
            tell="format",
        ),
        Rule(
            "file size",
            bad,
            f"larger than {config.max_bytes:,} bytes",
            gxe.ExpectColumnValuesToBeBetween(column="bytes", max_value=config.max_bytes),
            tell="bytes",
        ),
        Rule(
            "shortest side",
            bad,
            f"shorter than {low} pixels",
            gxe.ExpectColumnValuesToBeBetween(column="shortest_side", min_value=low),
            tell="shortest_side",
        ),
        Rule(
            "longest side",
            bad,
            f"longer than {high} pixels",
            gxe.ExpectColumnValuesToBeBetween(column="longest_side", max_value=high),
            tell="longest_side",
        ),
        Rule(
            "aspect",
            bad,
            f"longer than {config.max_aspect} times its width or height",
            gxe.ExpectColumnValuesToBeBetween(column="aspect", max_value=config.max_aspect),
            tell="aspect",
        ),
    ]


def content(config: ValidateConfig) -> list[Rule]:
    """What the pixels show."""
    bad = "quarantine"
    blurred, noise = config.sharpness
    dark, bright = config.brightness
    return [
        Rule(
            "contrast",
            bad,
            f"blank: pixels deviate by less than {config.min_contrast} of 255",
            gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=config.min_contrast),
            tell="contrast",
        ),
        Rule(
            "not blurred",
            bad,
            f"blurred: sharpness below {blurred}",
            gxe.ExpectColumnValuesToBeBetween(column="sharpness", min_value=blurred),
            tell="sharpness",
        ),
        Rule(
            "not noise",
            bad,
            f"noise: sharpness above {noise}",
            gxe.ExpectColumnValuesToBeBetween(column="sharpness", max_value=noise),
            tell="sharpness",
        ),
        Rule(
            "not too dark",
            bad,
            f"underexposed: mean below {dark} of 255",
            gxe.ExpectColumnValuesToBeBetween(column="brightness", min_value=dark),
            tell="brightness",
        ),
        Rule(
            "not too bright",
            bad,
            f"overexposed: mean above {bright} of 255",
            gxe.ExpectColumnValuesToBeBetween(column="brightness", max_value=bright),
            tell="brightness",
        ),
        Rule(
            "not clipped",
            "warn",
            f"more than {config.max_clipped:.0%} of the pixels are black or white",
            gxe.ExpectColumnValuesToBeBetween(column="clipped", max_value=config.max_clipped),
            tell="clipped",
        ),
        Rule(
            "filled",
            bad,
            f"more than {config.max_flat:.0%} of the rows or columns are of one colour: a broken or padded picture",
            gxe.ExpectColumnValuesToBeBetween(column="flat", max_value=config.max_flat),
            tell="flat",
        ),
    ]


def identity(config: ValidateConfig) -> list[Rule]:
    """Who and what is where: keys, splits, people, copies."""
    bits = config.near_duplicate_bits
    return [
        Rule(
            "enough images",
            "error",
            f"there are fewer than {config.min_images} images",
            gxe.ExpectTableRowCountToBeBetween(min_value=config.min_images),
        ),
        Rule("has a key", "error", "there is no key", gxe.ExpectColumnValuesToNotBeNull(column="key")),
        Rule(
            "key is unique",
            "error",
            "two rows share a key",
            gxe.ExpectColumnValuesToBeUnique(column="key"),
            tell="key",
        ),
        Rule(
            "source is unique",
            "error",
            "two rows name one file",
            gxe.ExpectColumnValuesToBeUnique(column="source"),
        ),
        Rule(
            "has a split",
            "error",
            "there is no split",
            gxe.ExpectColumnValuesToNotBeNull(column="split"),
        ),
        Rule(
            "split is known",
            "error",
            f"split is none of {', '.join(SPLITS)}",
            gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
            tell="split",
        ),
        Rule(
            "people in one split",
            "error",
            "the person is also in another split",
            absent("same_person_in_other_split"),
            tell="same_person_in_other_split",
        ),
        Rule(
            "no copy across splits",
            "error",
            "the same bytes are in another split",
            absent("same_bytes_in_other_split"),
            tell="same_bytes_in_other_split",
        ),
        Rule(
            "one person a picture",
            "error",
            "the same bytes are said to show another person",
            absent("same_bytes_other_person"),
            tell="same_bytes_other_person",
        ),
        Rule(
            "one label a picture",
            "error",
            "the same bytes are labelled differently",
            absent("same_bytes_other_label"),
            tell="same_bytes_other_label",
        ),
        Rule("no copy", "warn", "the same bytes twice", absent("same_bytes"), tell="same_bytes"),
        Rule(
            "no near copy across splits",
            "quarantine",
            f"nearly the same picture (≤ {bits} of 256 bits apart) is held out for validation or test",
            absent("like_held_out"),
            tell="like_held_out",
        ),
        Rule(
            "no near copy",
            "warn",
            f"nearly the same picture twice (≤ {bits} of 256 bits apart)",
            absent("like_other"),
            tell="like_other",
        ),
        Rule(
            "no copy of a test image",
            "quarantine",
            f"the same or nearly the same picture (≤ {bits} of 256 bits apart) is in the test set of another data set",
            absent("like_test_of_other_set"),
            tell="like_test_of_other_set",
        ),
    ]


def landmarks(config: ValidateConfig) -> list[Rule]:
    """Landmarks, in pixels of the upright image."""
    bad = "quarantine"
    return [
        Rule(
            "landmark count",
            bad,
            "not as many landmarks as the others have",
            gxe.ExpectColumnValuesToBeInSet(column="landmark_count_fits", value_set=[1]),
            tell="landmark_count",
        ),
        Rule(
            "landmarks are numbers",
            bad,
            "a landmark is not a number",
            gxe.ExpectColumnValuesToBeInSet(column="landmarks_finite", value_set=[1]),
        ),
        Rule(
            "landmarks in the image",
            bad,
            f"a landmark lies more than {config.landmark_margin:.0%} of the side outside",
            gxe.ExpectColumnValuesToBeBetween(column="landmarks_beyond", max_value=config.landmark_margin),
            tell="landmarks_beyond",
        ),
        Rule(
            "eyes are apart",
            bad,
            f"the eyes are less than {config.min_eye_distance:.0%} of the width apart",
            gxe.ExpectColumnValuesToBeBetween(column="eye_distance", min_value=config.min_eye_distance),
            tell="eye_distance",
        ),
        Rule(
            "left eye on the left",
            bad,
            f"the line through the eyes is turned by more than {config.max_roll:.0f}°: swapped, or not the upright image's",
            gxe.ExpectColumnValuesToBeBetween(column="roll", max_value=config.max_roll),
            tell="roll",
        ),
    ]


def labels(config: ValidateConfig, names: list[str]) -> list[Rule]:
    """Labels one by one, and each of their classes."""
    known = []
    for column in names:
        values = config.labels.get(column.removeprefix("label."))
        known.append(
            Rule(
                f"{column} is known",
                "error",
                f"the value is none of {', '.join(map(str, values))}"
                if values
                else "not a class number (0 and up)",
                gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values)
                if values
                else gxe.ExpectColumnValuesToBeBetween(column=column, min_value=0),
                tell=column,
            )
        )
    return [
        *known,
        Rule(
            "label tells something",
            "error",
            "all images have the same value",
            gxe.ExpectColumnValuesToBeBetween(column="classes", min_value=2),
            "labels",
        ),
        Rule(
            "class is not rare",
            "warn",
            f"fewer than {config.min_class_share:.1%} of the labelled images are of this class",
            gxe.ExpectColumnValuesToBeBetween(column="share", min_value=config.min_class_share),
            "labels",
            "share",
        ),
        Rule(
            "class can be learnt",
            "error",
            "the class is in val or test, but not in train",
            gxe.ExpectColumnValuesToBeInSet(column="in_train", value_set=[1]),
            "labels",
        ),
        Rule(
            "enough labelled",
            "warn",
            f"more than {config.max_unlabelled:.0%} of the images have no value",
            gxe.ExpectColumnValuesToBeBetween(column="unlabelled", max_value=config.max_unlabelled),
            "labels",
            "unlabelled",
        ),
    ]


def storage(config: ValidateConfig) -> list[Rule]:
    """Shards and betons against the manifest: the images in them, then the files."""
    return [
        Rule(
            "in its shard",
            "error",
            "listed in a shard that does not hold it",
            gxe.ExpectColumnValuesToBeInSet(column="found", value_set=[1]),
            tell="shard",
        ),
        Rule(
            "bytes as listed",
            "error",
            "the shard's bytes are not those of the manifest",
            gxe.ExpectColumnValuesToBeInSet(column="bytes_fit", value_set=[1]),
            tell="shard",
        ),
        Rule(
            "decodes from its shard",
            "error",
            "the manifest has no error, but the shard's bytes cannot be decoded",
            gxe.ExpectColumnValuesToBeInSet(column="readable", value_set=[1]),
            tell="shard",
        ),
        Rule(
            "order of the shard",
            "error",
            "not at its place in the shard",
            gxe.ExpectColumnValuesToBeInSet(column="order_fits", value_set=[1]),
            tell="shard",
        ),
        Rule(
            "index counts",
            "error",
            "the index is not the row's place in its split",
            gxe.ExpectColumnValuesToBeInSet(column="index_fits", value_set=[1]),
            tell="index",
        ),
        Rule(
            "size as listed",
            "error",
            "width or height are not the image's",
            gxe.ExpectColumnValuesToBeInSet(column="size_fits", value_set=[1]),
        ),
        Rule(
            "mode as listed",
            "error",
            "the mode is not the image's",
            gxe.ExpectColumnValuesToBeInSet(column="mode_fits", value_set=[1]),
            tell="mode",
        ),
        Rule(
            "annotation as in the shard",
            "error",
            "person, labels or landmarks are not those that its shard has beside it",
            gxe.ExpectColumnValuesToBeInSet(column="annotation_fits", value_set=[1]),
        ),
        Rule(
            "order of the beton",
            "error",
            "the beton holds another image's number at its place",
            gxe.ExpectColumnValuesToBeInSet(column="beton_order_fits", value_set=[1]),
            tell="index",
        ),
        Rule(
            "pixels of the beton",
            "error",
            f"the beton's pixels are off by more than {config.beton_tolerance} of 255 (JPEG's tolerance) in the mean",
            gxe.ExpectColumnValuesToBeBetween(column="beton_deviation", max_value=config.beton_tolerance),
            tell="beton_deviation",
        ),
        Rule(
            "file is there",
            "error",
            "the file is missing",
            gxe.ExpectColumnValuesToBeInSet(column="there", value_set=[True]),
            "files",
        ),
        Rule(
            "file is wanted",
            "error",
            "the manifest lists no image in it",
            gxe.ExpectColumnValuesToBeInSet(column="listed", value_set=[True]),
            "files",
        ),
        Rule("file is whole", "error", "it cannot be read to its end", absent("problem"), "files", "problem"),
        Rule(
            "hash as indexed",
            "error",
            "the shard's SHA-256 is not that of index.json",
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="sha256", column_B="sha256_listed", ignore_row_if="either_value_is_missing"
            ),
            "files",
        ),
        Rule(
            "is indexed",
            "error",
            "index.json does not list it",
            gxe.ExpectColumnValuesToBeInSet(column="indexed", value_set=[1]),
            "files",
        ),
        Rule(
            "count as listed",
            "error",
            "it does not hold as many images as the manifest lists",
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="images", column_B="images_listed", ignore_row_if="either_value_is_missing"
            ),
            "files",
            "images",
        ),
        Rule(
            "count as indexed",
            "error",
            "index.json gives another number of images",
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="images_indexed", column_B="images_listed", ignore_row_if="either_value_is_missing"
            ),
            "files",
            "images_indexed",
        ),
        Rule(
            "nothing unlisted",
            "error",
            "it holds images that the manifest does not list",
            absent("strange"),
            "files",
            "strange",
        ),
    ]


def drift(config: ValidateConfig) -> list[Rule]:
    """Distributions against those of an earlier version."""
    return [
        Rule(
            "no drift",
            "warn",
            f"the distribution moved by more than {config.max_drift} (Kolmogorov–Smirnov) from the reference",
            gxe.ExpectColumnValuesToBeBetween(column="excess", max_value=0),
            "drift",
            "distance",
        )
    ]


def batches(config: ValidateConfig) -> list[Rule]:
    """The views of a first batch, after normalisation."""
    low, high = config.batch_std
    return [
        Rule(
            "views are numbers",
            "error",
            "a value is infinite or not a number",
            gxe.ExpectColumnValuesToBeInSet(column="finite", value_set=[True]),
            "batches",
        ),
        Rule(
            "range of the views",
            "error",
            "values lie outside what normalisation makes of 0…255",
            gxe.ExpectColumnValuesToBeInSet(column="in_range", value_set=[1]),
            "batches",
        ),
        Rule(
            "mean of the views",
            "error",
            f"the mean is further than {config.batch_mean} from 0: mean and std of `views` are not these images'",
            gxe.ExpectColumnValuesToBeBetween(
                column="mean", min_value=-config.batch_mean, max_value=config.batch_mean
            ),
            "batches",
            "mean",
        ),
        Rule(
            "deviation of the views",
            "error",
            f"the deviation is not within {low} and {high}: mean and std of `views` are not these images'",
            gxe.ExpectColumnValuesToBeBetween(column="batch_deviation", min_value=low, max_value=high),
            "batches",
            "batch_deviation",
        ),
        Rule(
            "two views differ",
            "error",
            "both views of the image are the same: nothing can be learnt from them",
            gxe.ExpectColumnValuesToBeBetween(column="difference", min_value=config.min_view_difference),
            "batches",
            "difference",
        ),
    ]


def columns() -> list[Rule]:
    return [
        Rule(
            "column is there",
            "error",
            "the manifest lacks the column, or it holds another type",
            gxe.ExpectColumnValuesToBeInSet(column="there", value_set=[True]),
            "columns",
        )
    ]


def suite(config: ValidateConfig, label_columns: list[str]) -> list[Rule]:
    """All rules for a set with these labels, one's own among them, with the severities that `config` gives.

    Raises:
        FileNotFoundError, ValueError: the file of own rules is missing or wrong; two rules share a name; `severities`
            names a rule that does not exist.
    """
    rules = [
        *columns(),
        *files_of_images(config),
        *content(config),
        *identity(config),
        *landmarks(config),
        *labels(config, label_columns),
        *storage(config),
        *drift(config),
        *batches(config),
        *own(Path(config.expectations)),
    ]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{config.expectations}: the rule {name!r} is there already; choose another name"
            )
    for name in config.severities:
        if name not in names:
            raise ValueError(
                f"validate.severities: no rule is named {name!r}; the rules are: {', '.join(names)}"
            )
    return [replace(rule, severity=config.severities.get(rule.name, rule.severity)) for rule in rules]


def own(path: Path) -> list[Rule]:
    """The list `RULES` of a user's file. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; see validate.expectations")
    spec = importlib.util.spec_from_file_location("own_expectations", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        rules = list(module.RULES)
    except Exception as error:  # the user's own code
        raise ValueError(
            f"{path}: cannot be loaded ({type(error).__name__}: {error}); see validate.expectations"
        ) from error
    for rule in rules:
        if not isinstance(rule, Rule) or rule.severity not in SEVERITIES or rule.table not in TABLES:
            raise ValueError(f"{path}: {rule!r} is not a Rule with a severity and a table that exist")
    return rules
