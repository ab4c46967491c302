"""Stage report: one HTML page with the results of the run, which opens from disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from fra.files import write_json
from fra.inference import encoder as inference
from fra.region_quality import clusters, evaluate
from fra.region_quality.evaluate import Heatmaps
from fra.report import headline
from fra.report.artifacts import TaskResult
from fra.report.page import write
from fra.transfer.config import PRETRAINED
from fra.validation import verdict
from fra.weights import released
from fra.weights.files import read_weights
from pipelines import params
from pipelines.project import paths
from pipelines.stage import logger, main

RANDOM_NETWORKS = 3
"""Number of untrained networks whose mean region quality is the baseline."""


def measure_regions(
    model: Path,
    manifest: Path,
    quarantined: Set[str],
    shards: Path,
    out: Path,
    others: Sequence[Path] = (),
) -> Mapping[str, Any]:
    """Compute the region quality of a model and of baselines, and write it to a JSON file.

    The baselines are untrained networks, and k-means of colours and of features, with as many clusters as masks. The
    row "start" has the released weights that the training of the model started from, if it did.

    Args:
        model: The model with its region branch (model.safetensors).
        manifest: Manifest of a labelled set with 68 or 98 landmarks.
        quarantined: Keys of images that are left out.
        shards: Folder with the shards of the labelled set.
        out: The JSON file.
        others: Further weights files, whose features are clustered as baselines.

    Returns:
        Metrics by row, as `fra.region_quality.evaluate.evaluate` returns them.

    Raises:
        ValueError: No test image has 68 or 98 landmarks, or the model was trained without regions.
    """
    encoder = inference.load(model)
    if encoder.neck is None:
        raise ValueError(f"{model}: trained without regions, so it has no heatmaps to evaluate")
    untrained = [inference.load(model, seed) for seed in range(RANDOM_NETWORKS)]
    rows: dict[str, list[Heatmaps]] = {"pretrained": [encoder], "random": [*untrained]}
    start = encoder.metadata.get("provenance", {}).get("init", {}).get("source")
    if start in released.names() and (before := inference.load(Path(start))).neck is not None:
        rows["start"] = [before]
    size, count = encoder.image_size, int(encoder.metadata["num_masks"])
    if images := evaluate.read_images(manifest, quarantined, shards, size):
        rows["colours"] = [clusters.fit_colours(images, size, count)]
        rows["features"] = [clusters.fit_features(encoder, images, count)]
        for path in others:
            rows[f"features of {path}"] = [clusters.fit_features(inference.load(path), images, count)]
    return evaluate.evaluate(rows, manifest, quarantined, shards, out)


def results() -> dict[str, dict[str, Any]]:
    """Return each task's headline metric by model, how the pre-trained one compares, and the last training losses."""
    found: dict[str, dict[str, Any]] = {}
    for task in params.read()["tasks"]:
        folder = paths.TRANSFER / task
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        row = headline.table(TaskResult(task, metrics, None, folder)).primary
        found[task] = {row.metric: metrics[PRETRAINED][row.metric]["mean"]}
        for difference in row.differences:  # paired; its 95 % interval over test subjects is in metrics.json
            found[task][difference.other] = metrics[difference.other][row.metric]["mean"]
            _, conclusion = headline.CONCLUSIONS[difference.conclusion]
            found[task][f"compared with {difference.other}"] = conclusion
    training = json.loads((paths.PRETRAIN / "metrics.json").read_text(encoding="utf-8"))
    found["pretrain"] = {
        name: training[name] for name in ("total", "global", "region", "relation", "masks_used")
    }
    return found


def report() -> None:
    """Write the report page, the region quality and the headline metrics."""
    tasks = params.read()["tasks"]
    labelled = tasks["alignment"]["dataset"]
    quarantined = Path(tasks["alignment"]["validation"]) / "quarantine.csv"
    region_quality = None
    try:
        region_quality = measure_regions(
            paths.PRETRAIN / "model.safetensors",
            paths.manifest(labelled),
            verdict.read_quarantined_keys(quarantined),
            paths.shards(labelled),
            paths.REPORT / "regions.json",
        )
    except ValueError as error:
        logger.info("region quality is not measured: %s", error)
    page = write(
        paths.REPORT / "index.html",
        validation=paths.VALIDATION,
        pretrain=paths.PRETRAIN,
        transfer={task: paths.TRANSFER / task for task in tasks},
        manifest=paths.manifest(labelled),
        quarantined=quarantined,
        shards=paths.shards(labelled),
        provenance=read_weights(paths.PRETRAIN / "model.safetensors")[1]["provenance"],
        region_quality=region_quality,
    )
    write_json(results(), paths.RESULTS)
    logger.info("report: %s", page)


if __name__ == "__main__":
    main(report)
