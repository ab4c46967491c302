"""Rules on what is stored: shards, betons, drift from an earlier version, and the first training batch."""

from __future__ import annotations

from fra.validation.config import ValidateConfig
from fra.validation.rules.rule import Rule, between, equal, is_null, is_true


def stored_images(config: ValidateConfig) -> list[Rule]:
    """Returns the rules that compare each image in its shard and beton with the manifest."""
    tolerance = config.beton_tolerance
    return [
        Rule(
            "in its shard",
            "error",
            "the shard does not contain the image",
            is_true("found"),
            report_column="shard",
        ),
        Rule(
            "bytes as listed",
            "error",
            "the bytes in the shard have another SHA-256 than the manifest lists",
            is_true("bytes_fit"),
            report_column="shard",
        ),
        Rule(
            "decodes from its shard",
            "error",
            "the manifest lists no error, but the bytes in the shard cannot be decoded",
            is_true("readable"),
            report_column="shard",
        ),
        Rule(
            "order of the shard",
            "error",
            "the image is not at its position in the shard",
            is_true("order_fits"),
            report_column="shard",
        ),
        Rule(
            "index is the position",
            "error",
            "the index is not the image's position in its split",
            is_true("index_fits"),
            report_column="index",
        ),
        Rule(
            "size as listed",
            "error",
            "width or height differ from those in the manifest",
            is_true("size_fits"),
            report_column="",
        ),
        Rule(
            "mode as listed",
            "error",
            "the colour mode differs from that in the manifest",
            is_true("mode_fits"),
            report_column="mode",
        ),
        Rule(
            "annotation as in the shard",
            "error",
            "person, labels or landmarks differ from those in the shard",
            is_true("annotation_fits"),
            report_column="",
        ),
        Rule(
            "order of the beton",
            "error",
            "the beton has the number of another image at this position",
            is_true("beton_order_fits"),
            report_column="index",
        ),
        Rule(
            "pixels of the beton",
            "error",
            f"the beton's grey values differ by more than {tolerance} of 255 on average (tolerance for JPEG)",
            between("beton_deviation", high=tolerance),
        ),
    ]


def stored_files() -> list[Rule]:
    """Returns the rules on shards and betons as files."""
    return [
        Rule("file is present", "error", "the file is missing", is_true("present"), "files", ""),
        Rule(
            "file is listed",
            "error",
            "the manifest lists no image in the file",
            is_true("listed"),
            "files",
            "",
        ),
        Rule("file is complete", "error", "the file cannot be read to its end", is_null("problem"), "files"),
        Rule(
            "hash as indexed",
            "error",
            "the shard has another SHA-256 than index.json lists",
            equal("sha256", "sha256_listed"),
            "files",
        ),
        Rule(
            "file is indexed", "error", "index.json does not list the file", is_true("indexed"), "files", ""
        ),
        Rule(
            "count as listed",
            "error",
            "the number of images differs from that in the manifest",
            equal("images", "images_listed"),
            "files",
            "images",
        ),
        Rule(
            "count as indexed",
            "error",
            "the number of images in index.json differs from that in the manifest",
            equal("images_indexed", "images_listed"),
            "files",
            "images_indexed",
        ),
        Rule(
            "no unlisted images",
            "error",
            "the file contains images that the manifest does not list",
            is_null("unlisted"),
            "files",
        ),
    ]


def drift(config: ValidateConfig) -> list[Rule]:
    """Returns the rule that compares distributions with those of an earlier version."""
    return [
        Rule(
            "no drift",
            "warn",
            f"the Kolmogorov–Smirnov distance from the reference is more than {config.max_drift}",
            between("excess", high=0),
            "drift",
            "distance",
        ),
    ]


def batches(config: ValidateConfig) -> list[Rule]:
    """Returns the rules on the normalised views of the first training batch."""
    (low, high), mean, least = config.batch_std, config.batch_mean, config.min_view_difference
    cause = "`views.mean` and `views.std` do not fit these images"
    return [
        Rule(
            "views are finite",
            "error",
            "a value is infinite or not a number",
            is_true("finite"),
            "batches",
            "",
        ),
        Rule(
            "range of the views",
            "error",
            "a value is outside the range to which normalisation maps 0…255",
            is_true("in_range"),
            "batches",
            "",
        ),
        Rule(
            "mean of the views",
            "error",
            f"the mean is further than {mean} from 0: {cause}",
            between("mean", -mean, mean),
            "batches",
        ),
        Rule(
            "deviation of the views",
            "error",
            f"the standard deviation is not between {low} and {high}: {cause}",
            between("batch_deviation", low, high),
            "batches",
        ),
        Rule(
            "two views differ",
            "error",
            "both views of the image are equal, so that nothing can be learnt from them",
            between("difference", least),
            "batches",
        ),
    ]
