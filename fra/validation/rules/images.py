"""Rules on the manifest: image files, their content, identity, copies, landmarks and labels."""

from __future__ import annotations

from fra.data.datasets.records import SPLITS
from fra.validation.config import ValidateConfig
from fra.validation.rules.rule import (
    Rule,
    Severity,
    at_least,
    between,
    is_null,
    is_true,
    not_matching,
    not_null,
    one_of,
    unique,
)


def columns() -> list[Rule]:
    """The manifest as a whole."""
    return [
        Rule(
            "column is there",
            "error",
            "the manifest lacks the column, or it holds another type",
            is_true("there"),
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
        Rule("not empty", aside, "the file is empty", not_matching("error", r"0 bytes")),
        Rule(
            "is an image", aside, "no image format begins like this", not_matching("error", r"not an image")
        ),
        Rule(
            "no decompression bomb",
            aside,
            "refused before decoding: too many pixels",
            not_matching("error", r"pixels are more|more than .* pixels"),
        ),
        Rule(
            "not cut off",
            aside,
            "the file ends too early",
            not_matching("error", r"(?i)truncated|not enough|broken data|EOF"),
        ),
        Rule("decodable", aside, "cannot be decoded", is_null("error")),
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
        Rule("has a key", "error", "there is no key", not_null("key")),
        Rule("key is unique", "error", "two rows share a key", unique("key")),
        Rule("has a split", "error", "there is no split", not_null("split")),
        Rule(
            "split is known", "error", f"split is none of {', '.join(SPLITS)}", one_of("split", list(SPLITS))
        ),
        Rule(
            "people in one split",
            "error",
            "the person is also in another split",
            is_null("same_person_in_other_split"),
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
            is_null("same_bytes_in_other_split"),
        ),
        Rule(
            "one person a picture",
            "error",
            "the same bytes are said to show another person",
            is_null("same_bytes_other_person"),
        ),
        Rule(
            "one label a picture",
            "error",
            "the same bytes are labelled differently",
            is_null("same_bytes_other_label"),
        ),
        Rule("no copy", "warn", "the same bytes twice", is_null("same_bytes")),
        Rule(
            "no near copy across splits",
            "quarantine",
            f"{near} is held out for validation or test",
            is_null("like_held_out"),
        ),
        Rule("no near copy", "warn", f"{near} twice", is_null("like_other")),
        Rule(
            "no copy of a test image",
            "quarantine",
            f"the same or {near} is in the test set of another data set",
            is_null("like_test_of_other_set"),
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
            is_true("landmark_count_fits"),
            report_column="landmark_count",
        ),
        Rule(
            "landmarks are numbers",
            aside,
            "a landmark is not a number",
            is_true("landmarks_finite"),
            report_column="",
        ),
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
            is_true("in_train"),
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
