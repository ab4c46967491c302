"""What data must be: the rules of the gate, tables that read like a specification.

A rule is an expectation on one of the tables that the gate measures (`fra.quality.tables`), how much it matters, and
what it means in words. Severities: `error` stops the run; `quarantine` sets the rows aside; `warn` is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from fra.data.records import SPLITS
from fra.quality.rule import (
    Rule,
    Severity,
    absent,
    at_least,
    between,
    equal,
    one_of,
    own,
    there,
    true,
    unique,
    without,
)


@dataclass(frozen=True)
class ValidateConfig:
    """Limits of the gate.

    Shares are 0…1, grey values 0…255, sides in pixels. `sharpness` is (blurred below, noise above), measured at 64×64.
    `near_duplicate_bits` of 256 may differ between two images that are taken for one. `labels` maps a label's name to
    its known values (others: any number from 0 up); `min_class_share` and `max_unlabelled` are shares of a label's
    images. `landmark_margin` is how far outside the image a landmark may lie, in widths or heights;
    `min_eye_distance` is in widths, `max_roll` in degrees. `beton_tolerance` is the mean grey difference of a beton's
    pixels from the shard's (JPEG). `max_drift` is a Kolmogorov–Smirnov distance. `batch_mean` and `batch_std` bound
    each view after normalisation. `reference` is a file of profiles of earlier versions, `expectations` a Python file
    with a list `RULES` of one's own, `severities` maps names of rules to other severities.
    """

    max_quarantined: float = 0.02
    min_images: int = 2
    min_side: int = 32
    max_side: int = 8192
    max_bytes: int = 50_000_000
    max_aspect: float = 3.0
    formats: tuple[str, ...] = ("jpg", "mpo", "png", "pgm", "bmp", "webp", "tif")
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


def columns() -> list[Rule]:
    """The manifest as a whole."""
    return [
        Rule(
            "column is there",
            "error",
            "the manifest lacks the column, or it holds another type",
            true("there"),
            "columns",
            "",
        ),
    ]


def files_of_images(config: ValidateConfig) -> list[Rule]:
    """The image files themselves."""
    aside: Severity = "quarantine"
    formats, modes = config.formats, config.modes
    size, low, high = config.max_bytes, config.min_side, config.max_side
    return [
        Rule("not empty", aside, "the file is empty", without("error", r"0 bytes")),
        Rule("is an image", aside, "no image format begins like this", without("error", r"not an image")),
        Rule(
            "no decompression bomb",
            aside,
            "refused before decoding: too many pixels",
            without("error", r"pixels are more|more than .* pixels"),
        ),
        Rule(
            "not cut off",
            aside,
            "the file ends too early",
            without("error", r"(?i)truncated|not enough|broken data|EOF"),
        ),
        Rule("decodable", aside, "cannot be decoded", absent("error")),
        Rule("colour mode", aside, f"pixels are none of {', '.join(modes)}", one_of("mode", list(modes))),
        Rule(
            "file format",
            aside,
            f"the format is none of {', '.join(formats)}",
            one_of("format", list(formats)),
        ),
        Rule("file size", aside, f"larger than {size:,} bytes", between("bytes", high=size)),
        Rule("shortest side", aside, f"shorter than {low} pixels", between("shortest_side", low)),
        Rule("longest side", aside, f"longer than {high} pixels", between("longest_side", high=high)),
        Rule(
            "aspect",
            aside,
            f"longer than {config.max_aspect} times its width or height",
            between("aspect", high=config.max_aspect),
        ),
    ]


def content(config: ValidateConfig) -> list[Rule]:
    """What the pixels show."""
    aside: Severity = "quarantine"
    (dark, bright), (blurred, noise) = config.brightness, config.sharpness
    least, clipped, flat = config.min_contrast, config.max_clipped, config.max_flat
    return [
        Rule(
            "contrast",
            aside,
            f"blank: pixels deviate by less than {least} of 255",
            between("contrast", least),
        ),
        Rule("not blurred", aside, f"blurred: sharpness below {blurred}", between("sharpness", blurred)),
        Rule("not noise", aside, f"noise: sharpness above {noise}", between("sharpness", high=noise)),
        Rule("not too dark", aside, f"underexposed: mean below {dark} of 255", between("brightness", dark)),
        Rule(
            "not too bright",
            aside,
            f"overexposed: mean above {bright} of 255",
            between("brightness", high=bright),
        ),
        Rule(
            "not clipped",
            "warn",
            f"more than {clipped:.0%} of the pixels are black or white",
            between("clipped", high=clipped),
        ),
        Rule(
            "filled",
            aside,
            f"more than {flat:.0%} of the rows or columns are of one colour: broken or padded",
            between("flat", high=flat),
        ),
    ]


def identity(config: ValidateConfig) -> list[Rule]:
    """Who is where: keys, splits, people."""
    return [
        Rule(
            "enough images",
            "error",
            f"there are fewer than {config.min_images} images",
            at_least(config.min_images),
        ),
        Rule("has a key", "error", "there is no key", there("key")),
        Rule("key is unique", "error", "two rows share a key", unique("key")),
        Rule("has a split", "error", "there is no split", there("split")),
        Rule(
            "split is known", "error", f"split is none of {', '.join(SPLITS)}", one_of("split", list(SPLITS))
        ),
        Rule(
            "people in one split",
            "error",
            "the person is also in another split",
            absent("same_person_in_other_split"),
        ),
    ]


def copies(config: ValidateConfig) -> list[Rule]:
    """One picture, once."""
    near = f"nearly the same picture (≤ {config.near_duplicate_bits} of 256 bits apart)"
    return [
        Rule(
            "no copy across splits",
            "error",
            "the same bytes are in another split",
            absent("same_bytes_in_other_split"),
        ),
        Rule(
            "one person a picture",
            "error",
            "the same bytes are said to show another person",
            absent("same_bytes_other_person"),
        ),
        Rule(
            "one label a picture",
            "error",
            "the same bytes are labelled differently",
            absent("same_bytes_other_label"),
        ),
        Rule("no copy", "warn", "the same bytes twice", absent("same_bytes")),
        Rule(
            "no near copy across splits",
            "quarantine",
            f"{near} is held out for validation or test",
            absent("like_held_out"),
        ),
        Rule("no near copy", "warn", f"{near} twice", absent("like_other")),
        Rule(
            "no copy of a test image",
            "quarantine",
            f"the same or {near} is in the test set of another data set",
            absent("like_test_of_other_set"),
        ),
    ]


def landmarks(config: ValidateConfig) -> list[Rule]:
    """Landmarks, in pixels of the upright image."""
    aside: Severity = "quarantine"
    margin, apart, roll = config.landmark_margin, config.min_eye_distance, config.max_roll
    return [
        Rule(
            "landmark count",
            aside,
            "not as many landmarks as the others have",
            true("landmark_count_fits"),
            tell="landmark_count",
        ),
        Rule("landmarks are numbers", aside, "a landmark is not a number", true("landmarks_finite"), tell=""),
        Rule(
            "landmarks in the image",
            aside,
            f"a landmark lies more than {margin:.0%} of the side outside",
            between("landmarks_beyond", high=margin),
        ),
        Rule(
            "eyes are apart",
            aside,
            f"the eyes are less than {apart:.0%} of the width apart",
            between("eye_distance", apart),
        ),
        Rule(
            "left eye on the left",
            aside,
            f"the line through the eyes is turned by more than {roll:.0f}°: swapped, or not the upright image's",
            between("roll", high=roll),
        ),
    ]


def labels(config: ValidateConfig, names: list[str]) -> list[Rule]:
    """Labels one by one, and each of their classes."""
    rules = []
    for column in names:
        if values := config.labels.get(column.removeprefix("label.")):
            reason, known = f"the value is none of {', '.join(map(str, values))}", one_of(column, values)
        else:
            reason, known = "not a class number (0 and up)", between(column, 0)
        rules.append(Rule(f"{column} is known", "error", reason, known))
    rare, unlabelled = config.min_class_share, config.max_unlabelled
    return [
        *rules,
        Rule(
            "label tells something",
            "error",
            "all images have the same value",
            between("classes", 2),
            "labels",
            "",
        ),
        Rule(
            "class is not rare",
            "warn",
            f"fewer than {rare:.1%} of the labelled images are of this class",
            between("share", rare),
            "labels",
        ),
        Rule(
            "class can be learnt",
            "error",
            "the class is in val or test, but not in train",
            true("in_train"),
            "labels",
            "",
        ),
        Rule(
            "enough labelled",
            "warn",
            f"more than {unlabelled:.0%} of the images have no value",
            between("unlabelled", high=unlabelled),
            "labels",
        ),
    ]


def stored_images(config: ValidateConfig) -> list[Rule]:
    """Each image in its shard and its beton, against the manifest."""
    tolerance = config.beton_tolerance
    return [
        Rule("in its shard", "error", "listed in a shard that does not hold it", true("found"), tell="shard"),
        Rule(
            "bytes as listed",
            "error",
            "the shard's bytes are not those of the manifest",
            true("bytes_fit"),
            tell="shard",
        ),
        Rule(
            "decodes from its shard",
            "error",
            "the manifest has no error, but the shard's bytes cannot be decoded",
            true("readable"),
            tell="shard",
        ),
        Rule(
            "order of the shard", "error", "not at its place in the shard", true("order_fits"), tell="shard"
        ),
        Rule(
            "index counts",
            "error",
            "the index is not the row's place in its split",
            true("index_fits"),
            tell="index",
        ),
        Rule("size as listed", "error", "width or height are not the image's", true("size_fits"), tell=""),
        Rule("mode as listed", "error", "the mode is not the image's", true("mode_fits"), tell="mode"),
        Rule(
            "annotation as in the shard",
            "error",
            "person, labels or landmarks are not those that its shard has beside it",
            true("annotation_fits"),
            tell="",
        ),
        Rule(
            "order of the beton",
            "error",
            "the beton holds another image's number at its place",
            true("beton_order_fits"),
            tell="index",
        ),
        Rule(
            "pixels of the beton",
            "error",
            f"the beton's pixels are off by more than {tolerance} of 255 (JPEG's tolerance) in the mean",
            between("beton_deviation", high=tolerance),
        ),
    ]


def stored_files() -> list[Rule]:
    """Shards and betons as files."""
    return [
        Rule("file is there", "error", "the file is missing", true("there"), "files", ""),
        Rule("file is wanted", "error", "the manifest lists no image in it", true("listed"), "files", ""),
        Rule("file is whole", "error", "it cannot be read to its end", absent("problem"), "files"),
        Rule(
            "hash as indexed",
            "error",
            "the shard's SHA-256 is not that of index.json",
            equal("sha256", "sha256_listed"),
            "files",
        ),
        Rule("is indexed", "error", "index.json does not list it", true("indexed"), "files", ""),
        Rule(
            "count as listed",
            "error",
            "it does not hold as many images as the manifest lists",
            equal("images", "images_listed"),
            "files",
            "images",
        ),
        Rule(
            "count as indexed",
            "error",
            "index.json gives another number of images",
            equal("images_indexed", "images_listed"),
            "files",
            "images_indexed",
        ),
        Rule(
            "nothing unlisted",
            "error",
            "it holds images that the manifest does not list",
            absent("strange"),
            "files",
        ),
    ]


def drift(config: ValidateConfig) -> list[Rule]:
    """Distributions against those of an earlier version."""
    return [
        Rule(
            "no drift",
            "warn",
            f"the distribution moved by more than {config.max_drift} (Kolmogorov–Smirnov) from the reference",
            between("excess", high=0),
            "drift",
            "distance",
        ),
    ]


def batches(config: ValidateConfig) -> list[Rule]:
    """The views of a first batch, after normalisation."""
    (low, high), mean, least = config.batch_std, config.batch_mean, config.min_view_difference
    wrong = "mean and std of `views` are not these images'"
    return [
        Rule(
            "views are numbers", "error", "a value is infinite or not a number", true("finite"), "batches", ""
        ),
        Rule(
            "range of the views",
            "error",
            "values lie outside what normalisation makes of 0…255",
            true("in_range"),
            "batches",
            "",
        ),
        Rule(
            "mean of the views",
            "error",
            f"the mean is further than {mean} from 0: {wrong}",
            between("mean", -mean, mean),
            "batches",
        ),
        Rule(
            "deviation of the views",
            "error",
            f"the deviation is not within {low} and {high}: {wrong}",
            between("batch_deviation", low, high),
            "batches",
        ),
        Rule(
            "two views differ",
            "error",
            "both views of the image are the same: nothing can be learnt from them",
            between("difference", least),
            "batches",
        ),
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
        *copies(config),
        *landmarks(config),
        *labels(config, label_columns),
        *stored_images(config),
        *stored_files(),
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
