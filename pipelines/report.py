"""report: every artifact of the run → one page that opens from disk"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fra import inference
from fra.data.files import write_json
from fra.report.page import write
from fra.train.checkpoint import read_weights
from fra.transfer import regions
from pipelines import params, paths
from pipelines.stage import logger, main
from pipelines.summary import headline

RANDOM_NETWORKS = 3
"""How many untrained networks the region quality is compared with; their mean is given."""


def judge_regions(model: Path, manifest: Path, shards: Path, out: Path) -> Mapping[str, Any]:
    """How well the heatmaps of `model.safetensors` find facial parts, beside untrained networks; written to `out`.

    Raises:
        ValueError: no test image has landmarks to draw parts from, or the model was trained without regions.
    """
    encoder = inference.load(model)
    if encoder.neck is None:
        raise ValueError(f"{model}: trained without regions, so there is nothing to judge")
    untrained = [inference.untrained(model, seed) for seed in range(RANDOM_NETWORKS)]
    return regions.evaluate({"pretrained": [encoder], "random": untrained}, manifest, shards, out)


def report() -> None:
    tasks = params.read()["tasks"]
    labelled = tasks["alignment"]["dataset"]
    page = write(
        paths.REPORT / "index.html",
        validation=paths.VALIDATION,
        pretrain=paths.PRETRAIN,
        transfer={task: paths.TRANSFER / task for task in tasks},
        manifest=paths.manifest(labelled),
        shards=paths.shards(labelled),
        provenance=read_weights(paths.PRETRAIN / "model.safetensors")[1]["provenance"],
    )
    try:
        judge_regions(
            paths.PRETRAIN / "model.safetensors",
            paths.manifest(labelled),
            paths.shards(labelled),
            paths.REPORT / "regions.json",
        )
    except ValueError as error:
        logger.info("region quality is not judged: %s", error)
    write_json(headline(), paths.RESULTS)
    logger.info("report: %s", page)


if __name__ == "__main__":
    main(report)
