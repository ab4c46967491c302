"""Rules on the manifest and the images: columns, files, content, identity, duplicates, labels."""

from __future__ import annotations

from fra.data.datasets.records import SPLITS
from fra.validation.config import Severity, ValidateConfig
from fra.validation.rules.rule import (
    Rule,
    at_least,
    between,
    is_null,
    is_true,
    not_matching,
    not_null,
    one_of,
    unique,
)

QUARANTINE: Severity = "quarantine"


def columns() -> list[Rule]:
    """Returns the rules on the manifest's columns."""
    return [
        Rule(
            "column is present",
            "error",
            "the column is missing in the manifest or has another type",
            is_true("present"),
            "columns",
            "",
        ),
    ]


def files_of_images(config: ValidateConfig) -> list[Rule]:
    """Returns the rules on the image files."""
    formats, modes = config.formats, config.modes
    size, low, high = config.max_bytes, config.min_side, config.max_side
    return [
        Rule("not empty", QUARANTINE, "the file is empty", not_matching("error", r"0 bytes")),
        Rule(
            "is an image",
            QUARANTINE,
            "the file does not begin like any known image format",
            not_matching("error", r"not an image"),
        ),
        Rule(
            "no decompression bomb",
            QUARANTINE,
            "the image was refused before decoding because it has too many pixels",
            not_matching("error", r"pixels are more|more than .* pixels"),
        ),
        Rule(
            "not truncated",
            QUARANTINE,
            "the file ends too early",
            not_matching("error", r"(?i)truncated|not enough|broken data|EOF"),
        ),
        Rule("decodable", QUARANTINE, "the image cannot be decoded", is_null("error")),
        Rule(
            "colour mode",
            QUARANTINE,
            f"the colour mode is none of {', '.join(modes)}",
            one_of("mode", list(modes)),
        ),
        Rule(
            "file format",
            QUARANTINE,
            f"the format is none of {', '.join(formats)}",
            one_of("format", list(formats)),
        ),
        Rule("file size", QUARANTINE, f"the file is larger than {size:,} bytes", between("bytes", high=size)),
        Rule(
            "shortest side",
            QUARANTINE,
            f"the shortest side is shorter than {low} pixels",
            between("shortest_side", low),
        ),
        Rule(
            "longest side",
            QUARANTINE,
            f"the longest side is longer than {high} pixels",
            between("longest_side", high=high),
        ),
        Rule(
            "aspect ratio",
            QUARANTINE,
            f"the longest side is more than {config.max_aspect} times the shortest",
            between("aspect", high=config.max_aspect),
        ),
    ]


def content(config: ValidateConfig) -> list[Rule]:
    """Returns the rules on what the pixels show."""
    (dark, bright), (blurred, noise) = config.brightness, config.sharpness
    least, clipped, flat = config.min_contrast, config.max_clipped, config.max_flat
    return [
        Rule(
            "contrast",
            QUARANTINE,
            f"the image is blank: the standard deviation of its grey values is below {least} of 255",
            between("contrast", least),
        ),
        Rule(
            "not blurred",
            QUARANTINE,
            f"the image is blurred: sharpness below {blurred}",
            between("sharpness", blurred),
        ),
        Rule(
            "not noise",
            QUARANTINE,
            f"the image is noise: sharpness above {noise}",
            between("sharpness", high=noise),
        ),
        Rule(
            "not too dark",
            QUARANTINE,
            f"the image is underexposed: mean grey value below {dark} of 255",
            between("brightness", dark),
        ),
        Rule(
            "not too bright",
            QUARANTINE,
            f"the image is overexposed: mean grey value above {bright} of 255",
            between("brightness", high=bright),
        ),
        Rule(
            "not clipped",
            "warn",
            f"more than {clipped:.0%} of the pixels are black or white",
            between("clipped", high=clipped),
        ),
        Rule(
            "not padded",
            QUARANTINE,
            f"more than {flat:.0%} of the rows or columns have a single colour: broken or padded image",
            between("flat", high=flat),
        ),
    ]


def identity(config: ValidateConfig) -> list[Rule]:
    """Returns the rules on keys, splits and persons."""
    return [
        Rule(
            "enough images",
            "error",
            f"there are fewer than {config.min_images} images",
            at_least(config.min_images),
        ),
        Rule("has a key", "error", "the key is missing", not_null("key")),
        Rule("key is unique", "error", "two rows have the same key", unique("key")),
        Rule("has a split", "error", "the split is missing", not_null("split")),
        Rule(
            "split is known",
            "error",
            f"the split is none of {', '.join(SPLITS)}",
            one_of("split", list(SPLITS)),
        ),
        Rule(
            "person in one split",
            "error",
            "the person is also in a later split (val, test)",
            is_null("same_person_in_other_split"),
            alternative=QUARANTINE,
        ),
    ]


def duplicates(config: ValidateConfig) -> list[Rule]:
    """Returns the rules on exact and near duplicates."""
    near = f"nearly the same image (at most {config.near_duplicate_bits} of 256 hash bits differ)"
    return [
        Rule(
            "no duplicate across splits",
            "error",
            "the same file is in a later split (val, test)",
            is_null("same_bytes_in_other_split"),
            alternative=QUARANTINE,
        ),
        Rule(
            "one person per image",
            "error",
            "the same file is listed with another person",
            is_null("same_bytes_other_person"),
            alternative=QUARANTINE,
        ),
        Rule(
            "one label per image",
            "error",
            "the same file is listed with another label",
            is_null("same_bytes_other_label"),
            alternative=QUARANTINE,
        ),
        Rule("no duplicate", "warn", "the same file is listed twice", is_null("same_bytes")),
        Rule(
            "no near duplicate across splits",
            QUARANTINE,
            f"{near} is in validation or test",
            is_null("near_held_out"),
        ),
        Rule("no near duplicate", "warn", f"{near} is in the same split", is_null("near_other")),
        Rule(
            "no duplicate of a test image",
            QUARANTINE,
            f"the same or {near} is in the test split of another data set",
            is_null("near_test_of_other_set"),
        ),
    ]


def labels(config: ValidateConfig, names: list[str]) -> list[Rule]:
    """Returns the rules on each label column and each class."""
    rules = []
    for column in names:
        if values := config.labels.get(column.removeprefix("label.")):
            reason, known = f"the value is none of {', '.join(map(str, values))}", one_of(column, values)
        else:
            reason, known = "the value is not a class number (0 and up)", between(column, 0)
        rules.append(Rule(f"{column} is known", "error", reason, known, alternative=QUARANTINE))
    rare, unlabelled = config.min_class_share, config.max_unlabelled
    return [
        *rules,
        Rule(
            "label varies",
            "error",
            "all images have the same value",
            between("classes", 2),
            "labels",
            "",
            alternative="warn",
        ),
        Rule(
            "class is not rare",
            "warn",
            f"fewer than {rare:.1%} of the labelled images are of this class",
            between("share", rare),
            "labels",
        ),
        Rule(
            "class is in train",
            "error",
            "the class occurs in val or test, but not in train (name a column that only separates subsets group.…)",
            is_true("in_train"),
            "labels",
            "",
            alternative="warn",
        ),
        Rule(
            "enough labelled images",
            "warn",
            f"more than {unlabelled:.0%} of the images have no value",
            between("unlabelled", high=unlabelled),
            "labels",
        ),
    ]
