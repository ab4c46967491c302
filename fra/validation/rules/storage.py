"""Rules on what was stored: shards, betons, drift from an earlier version, and the first batches."""

from __future__ import annotations

from fra.validation.config import ValidateConfig
from fra.validation.rules.rule import (
    Rule,
    between,
    equal,
    is_null,
    is_true,
)


def stored_images(config: ValidateConfig) -> list[Rule]:
    """Each image in its shard and its beton, against the manifest."""
    tolerance = config.beton_tolerance
    return [
        Rule(
            "in its shard",
            "error",
            "listed in a shard that does not hold it",
            is_true("found"),
            report_column="shard",
        ),
        Rule(
            "bytes as listed",
            "error",
            "the shard's bytes are not those of the manifest",
            is_true("bytes_fit"),
            report_column="shard",
        ),
        Rule(
            "decodes from its shard",
            "error",
            "the manifest has no error, but the shard's bytes cannot be decoded",
            is_true("readable"),
            report_column="shard",
        ),
        Rule(
            "order of the shard",
            "error",
            "not at its place in the shard",
            is_true("order_fits"),
            report_column="shard",
        ),
        Rule(
            "index counts",
            "error",
            "the index is not the row's place in its split",
            is_true("index_fits"),
            report_column="index",
        ),
        Rule(
            "size as listed",
            "error",
            "width or height are not the image's",
            is_true("size_fits"),
            report_column="",
        ),
        Rule(
            "mode as listed",
            "error",
            "the mode is not the image's",
            is_true("mode_fits"),
            report_column="mode",
        ),
        Rule(
            "annotation as in the shard",
            "error",
            "person, labels or landmarks are not those that its shard has beside it",
            is_true("annotation_fits"),
            report_column="",
        ),
        Rule(
            "order of the beton",
            "error",
            "the beton holds another image's number at its place",
            is_true("beton_order_fits"),
            report_column="index",
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
        Rule("file is there", "error", "the file is missing", is_true("there"), "files", ""),
        Rule("file is wanted", "error", "the manifest lists no image in it", is_true("listed"), "files", ""),
        Rule("file is whole", "error", "it cannot be read to its end", is_null("problem"), "files"),
        Rule(
            "hash as indexed",
            "error",
            "the shard's SHA-256 is not that of index.json",
            equal("sha256", "sha256_listed"),
            "files",
        ),
        Rule("is indexed", "error", "index.json does not list it", is_true("indexed"), "files", ""),
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
            is_null("strange"),
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
            "views are numbers",
            "error",
            "a value is infinite or not a number",
            is_true("finite"),
            "batches",
            "",
        ),
        Rule(
            "range of the views",
            "error",
            "values lie outside what normalisation makes of 0…255",
            is_true("in_range"),
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
