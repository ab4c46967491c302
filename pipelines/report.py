"""report: every artifact of the run → one page that opens from disk"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from fra.files import write_json
from fra.inference import encoder as inference
from fra.region_quality import clusters, evaluate
from fra.region_quality.evaluate import Heatmaps
from fra.report.page import write
from fra.transfer.tasks import TASKS
from fra.validation import verdict
from fra.weights.files import read_weights
from pipelines import params
from pipelines.project import paths
from pipelines.stage import logger, main

RANDOM_NETWORKS = 3
"""How many untrained networks the region quality is compared with; their mean is given."""


def judge_regions(
    model: Path,
    manifest: Path,
    quarantined: Set[str],
    shards: Path,
    out: Path,
    others: Sequence[Path] = (),
) -> Mapping[str, Any]:
    """How well the heatmaps of `model.safetensors` find facial parts; written to `out`.

    Beside them: untrained networks, k-means of colours and of the model's features, and of those of `others`
    (weights of any kind), into as many clusters as there are masks.

    Raises:
        ValueError: no test image has landmarks to draw parts from, or the model was trained without regions.
    """
    encoder = inference.load(model)
    if encoder.neck is None:
        raise ValueError(f"{model}: trained without regions, so there is nothing to judge")
    untrained = [inference.load(model, seed) for seed in range(RANDOM_NETWORKS)]
    rows: dict[str, list[Heatmaps]] = {"pretrained": [encoder], "random": [*untrained]}
    size, count = encoder.image_size, int(encoder.metadata["num_masks"])
    if faces := evaluate.faces(manifest, quarantined, shards, size):
        rows["colours"] = [clusters.of_colours(faces, size, count)]
        rows["features"] = [clusters.of_features(encoder, faces, count)]
        for path in others:
            rows[f"features of {path}"] = [clusters.of_features(inference.load(path), faces, count)]
    return evaluate.evaluate(rows, manifest, quarantined, shards, out)


def headline() -> dict[str, dict[str, Any]]:
    """Of each task its one figure, pre-trained and with random weights: mean over seeds; and the last losses."""
    figures: dict[str, dict[str, Any]] = {}
    for task in params.read()["tasks"]:
        metrics = json.loads((paths.TRANSFER / task / "metrics.json").read_text(encoding="utf-8"))
        name = TASKS[task].primary
        figures[task] = {name: metrics["pretrained"][name]["mean"], "random": metrics["random"][name]["mean"]}
    training = json.loads((paths.PRETRAIN / "metrics.json").read_text(encoding="utf-8"))
    figures["pretrain"] = {
        name: training[name] for name in ("total", "global", "region", "relation", "masks_used")
    }
    return figures


def report() -> None:
    tasks = params.read()["tasks"]
    labelled = tasks["alignment"]["dataset"]
    quarantined = Path(tasks["alignment"]["validation"]) / "quarantine.csv"
    page = write(
        paths.REPORT / "index.html",
        validation=paths.VALIDATION,
        pretrain=paths.PRETRAIN,
        transfer={task: paths.TRANSFER / task for task in tasks},
        manifest=paths.manifest(labelled),
        quarantined=quarantined,
        shards=paths.shards(labelled),
        provenance=read_weights(paths.PRETRAIN / "model.safetensors")[1]["provenance"],
    )
    try:
        judge_regions(
            paths.PRETRAIN / "model.safetensors",
            paths.manifest(labelled),
            verdict.read_quarantined_keys(quarantined),
            paths.shards(labelled),
            paths.REPORT / "regions.json",
        )
    except ValueError as error:
        logger.info("region quality is not judged: %s", error)
    write_json(headline(), paths.RESULTS)
    logger.info("report: %s", page)


if __name__ == "__main__":
    main(report)
