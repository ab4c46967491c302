"""Validates a data set: measurements, tables and rules in; result, quarantine list, profile and Data Docs out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fra.data.loader import inspect
from fra.data.loader.config import DataConfig
from fra.data.views.config import ViewsConfig
from fra.files import sha256, write_json
from fra.validation import drift, manifest, measure, tables
from fra.validation.config import ValidateConfig
from fra.validation.face_stats import FaceFinder
from fra.validation.manifest import Manifest
from fra.validation.measure import Measures
from fra.validation.page import docs
from fra.validation.results import Explainer, RuleResult, evaluate_rules
from fra.validation.rules.rule import Rule, Table
from fra.validation.rules.suite import suite
from fra.validation.tables import NO_IMAGES, HeldOutImages
from fra.validation.verdict import ValidationResult, quarantined_indices, write, write_quarantine

logger = logging.getLogger(__name__)

EXAMPLES = 5
"""The number of rows named in each reason and for each rule of `verdict.json`."""
SEED = 0
"""The seed of the views in the inspected batch."""
Training = tuple[DataConfig, ViewsConfig]
"""Loader and augmentation settings of the training that will read the set."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a prepared data set: its manifest, the folder of its shards, its betons.

    `photographs` is the folder of the photographs that faces were cropped from; None for a set of whole images.
    """

    name: str
    manifest: Path
    shards: Path
    betons: tuple[Path, ...] = ()
    photographs: Path | None = None


@dataclass(frozen=True)
class ValidationInputs:
    """Everything the rules are evaluated on.

    Attributes:
        data: The files of the data set.
        manifest: Its manifest.
        measures: What was measured of its shards, images and betons.
        validated_files: The SHA-256 of each file that was read, by path.
        reference: The profile of an earlier version, or None.
        held_out: Test images of other data sets, which must not be among the images.
    """

    data: DatasetFiles
    manifest: Manifest
    measures: Measures
    validated_files: dict[str, str] = field(default_factory=dict)
    reference: dict[str, Any] | None = None
    held_out: HeldOutImages = NO_IMAGES


def validate(
    data: DatasetFiles,
    out: Path,
    config: ValidateConfig,
    *,
    held_out: Sequence[DatasetFiles] = (),
    training: Training | None = None,
    workers: int = 0,
) -> tuple[ValidationResult, pd.DataFrame]:
    """Validates a data set and writes `verdict.json`, `quarantine.csv`, `profile.json` and `data_docs/` to `out`.

    Args:
        data: The data set.
        out: The folder to write to.
        config: The limits.
        held_out: Other data sets whose test images must not be among the images of this one.
        training: Settings of the training that will use the set; None where nothing is trained on it.
        workers: Number of threads that read shards; 0 for one per core.

    Returns:
        The validation result and the quarantined rows, with the column `without_face` of `rows_to_quarantine`.

    Raises:
        FileNotFoundError: The reference, the file of own rules or the package with the face detector is missing.
        ValueError: The manifest, the reference or the file of own rules cannot be read.
    """
    listed = manifest.read(data.manifest)
    rules = suite(config, listed.labels)
    reference = drift.read(Path(config.reference), data.name)
    finder = face_finder(config)
    measures = measure.measure(listed, data.shards, list(data.betons), workers, finder)
    files = [data.manifest, data.shards / "index.json", Path(config.reference), Path(config.expectations)]
    files += [other.shards / "index.json" for other in held_out]
    hashes = measures.digests | {file.as_posix(): sha256(file) for file in files if file.is_file()}
    others = tables.concatenate([held_out_images(other, workers) for other in held_out])
    inputs = ValidationInputs(data, listed, measures, hashes, reference, others)
    return evaluate(inputs, rules, out, config, training, finder)


def face_finder(config: ValidateConfig) -> FaceFinder | None:
    """Returns what finds the faces in images; None where `config` switches it off.

    Raises:
        FileNotFoundError: The package with the detector's weights is not installed.
    """
    if not config.faces:
        return None
    try:
        return FaceFinder(config.min_face_score)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or set validate.faces=false") from None


def held_out_images(other: DatasetFiles, workers: int) -> HeldOutImages:
    """Returns the hashes of the test images of another data set; the number of unreadable ones is logged.

    Raises:
        ValueError: Its manifest cannot be read.
    """
    listed = manifest.read(other.manifest)
    rows = np.flatnonzero(((listed.table["split"] == "test") & listed.table["shard"].notna()).to_numpy(bool))
    hashes, readable = measure.hash_images(listed.table.iloc[rows], other.shards, workers)
    if not readable.all():
        logger.warning(
            "%s: %s of %s test images cannot be read, so no image is compared with them: validate that set",
            *(other.name, f"{np.sum(~readable):,}", f"{len(rows):,}"),
        )
    table = listed.table.iloc[rows[readable]]
    names = [f"{other.name}/{source}" for source in table["source"]]
    return HeldOutImages(table["sha256"].to_numpy(dtype=object), hashes[readable], names)


def evaluate(
    inputs: ValidationInputs,
    rules: list[Rule],
    out: Path,
    config: ValidateConfig,
    training: Training | None = None,
    finder: FaceFinder | None = None,
) -> tuple[ValidationResult, pd.DataFrame]:
    """Evaluates rules on measurements and writes all outputs to `out`; returns the result and the quarantined rows."""
    images = tables.images(inputs.manifest, inputs.measures, config, inputs.held_out)
    profile = drift.profile(images)
    frames: dict[Table, pd.DataFrame] = {
        "columns": tables.columns(inputs.manifest),
        "images": images,
        "labels": tables.labels(images),
        "files": tables.files(inputs.measures),
    }
    if inputs.reference is not None:
        frames["drift"] = drift.compare(profile, inputs.reference, config.max_drift)
    explainer = Explainer(frames, inputs.held_out.sources)
    results = evaluate_rules(frames, rules)
    quarantined = rows_to_quarantine(images, results, explainer)
    if training is not None and not any(stops(result) for result in results):
        frames["batches"] = first_batch(inputs, training, images, quarantined)
        of_batches = evaluate_rules(frames, [rule for rule in rules if rule.table == "batches"])
        results = [result for result in results if result.rule.table != "batches"] + of_batches
    write_quarantine(quarantined, out / "quarantine.csv")
    write_json({inputs.data.name: profile}, out / "profile.json")
    written = {name: sha256(out / name) for name in ("quarantine.csv", "profile.json")}
    result = conclude(inputs, results, quarantined, explainer, config, written)
    data, site = inputs.data, out / docs.SITE
    docs.write(site, result, results, explainer, quarantined, data.shards, config, finder, data.photographs)
    write(result, out / "verdict.json")  # last: where this file exists, the others are complete
    return result, quarantined


def stops(result: RuleResult) -> bool:
    """Whether a rule's result forbids any training on the data."""
    return result.rule.severity == "error" and not result.success


def rows_to_quarantine(images: pd.DataFrame, results: list[RuleResult], explainer: Explainer) -> pd.DataFrame:
    """Returns the rows to quarantine (key, split, index, source, reason), each with every reason that applies.

    The column `without_face` is true for photographs without a face that nothing else is wrong with.
    """
    reasons: dict[int, list[str]] = {}
    without_face: dict[int, bool] = {}
    for result in results:
        if result.rule.severity == "quarantine" and result.rule.table == "images":
            of_faces = result.rule.reported_column == "no_face"
            for row in result.rows.tolist():
                without_face[row] = without_face.get(row, True) and of_faces
                reason = explainer.reason(result.rule, row)
                if reason not in reasons.setdefault(row, []):
                    reasons[row].append(reason)
    rows = sorted(reasons)
    quarantined = images.loc[rows, ["key", "split", "index", "source"]]
    return quarantined.assign(
        reason=["; ".join(reasons[row]) for row in rows],
        without_face=np.array([without_face[row] for row in rows], bool),
    ).sort_values("key")


def first_batch(
    inputs: ValidationInputs, training: Training, images: pd.DataFrame, quarantined: pd.DataFrame
) -> pd.DataFrame:
    """Returns measurements of the views in the first training batch; an empty table where no image is left."""
    exclude = quarantined_indices(quarantined, "train")
    count = int(((images["split"] == "train") & images["shard"].notna()).sum())
    if count <= len(exclude):
        return pd.DataFrame()
    facts = inspect.batch_statistics(*training, inputs.data.shards, exclude, count, SEED)
    return tables.batches(facts, images)


def conclude(
    inputs: ValidationInputs,
    results: list[RuleResult],
    quarantined: pd.DataFrame,
    explainer: Explainer,
    config: ValidateConfig,
    written: dict[str, str],
) -> ValidationResult:
    """Returns the validation result: whether the data passed, why not, and the outcome of each rule."""
    rows, photographs = len(inputs.manifest.table), tables.photographs(inputs.manifest)
    missing, bad = (quarantined[quarantined["without_face"] == flag] for flag in (True, False))
    reasons = [
        f"{result.rule.name}: {explainer.summary(result, EXAMPLES)}" for result in results if stops(result)
    ]
    images = rows - len(missing)
    if len(bad) > config.max_quarantined * images:
        reasons.append(
            f"{len(bad)} of {images} images would be quarantined, more than validate.max_quarantined "
            f"{config.max_quarantined:.1%} ({few(bad)})"
        )
    if len(missing) > config.max_without_face * photographs:
        reasons.append(
            f"{len(missing)} of {photographs} photographs have no face to crop, more than validate.max_without_face "
            f"{config.max_without_face:.1%} ({few(missing)}). Lower faces.score, faces.min_side or "
            "faces.min_sharpness if there are faces in them; else remove them or raise validate.max_without_face"
        )
    return ValidationResult(
        success=not reasons,
        dataset=inputs.data.name,
        validated_files=dict(sorted(inputs.validated_files.items())),
        written=written,
        rows=rows,
        quarantined=len(quarantined),
        limit=config.max_quarantined,
        reasons=reasons,
        expectations=[entry(result, explainer) for result in results],
        photographs=photographs,
        without_face=len(missing),
        limit_without_face=config.max_without_face,
    )


def few(quarantined: pd.DataFrame) -> str:
    """Returns the first quarantined rows with their reasons."""
    return "; ".join(f"{row.source}: {row.reason}" for row in quarantined.head(EXAMPLES).itertuples())


def entry(result: RuleResult, explainer: Explainer) -> dict[str, Any]:
    """Returns a rule's outcome as `verdict.json` stores it."""
    examples = explainer.examples(result, EXAMPLES)
    return {
        "name": result.rule.name,
        "table": result.rule.table,
        "severity": result.rule.severity,
        "reason": result.rule.reason,
        "alternative": result.rule.alternative,
        "success": result.success,
        "evaluated": result.evaluated,
        "unexpected_count": len(result.rows),
        "examples": [source for source, _ in examples],
        "explanations": [reason for _, reason in examples],
    }
