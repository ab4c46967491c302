"""report: every artifact of the run → one page that opens from disk"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fra import inference
from fra.data.files import write_json
from fra.report.page import write
from fra.train.checkpoint import read_weights
from fra.transfer import clusters, regions
from fra.transfer.regions import Heatmaps
from pipelines import params, paths
from pipelines.stage import logger, main
from pipelines.summary import headline

RANDOM_NETWORKS = 3
"""How many untrained networks the region quality is compared with; their mean is given."""


def judge_regions(
    model: Path, manifest: Path, shards: Path, out: Path, others: Sequence[Path] = ()
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
    untrained = [inference.untrained(model, seed) for seed in range(RANDOM_NETWORKS)]
    rows: dict[str, list[Heatmaps]] = {"pretrained": [encoder], "random": [*untrained]}
    size, count = encoder.image_size, int(encoder.metadata["num_masks"])
    if faces := regions.faces(manifest, shards, size):
        rows["colours"] = [clusters.of_colours(faces, size, count)]
        rows["features"] = [clusters.of_features(encoder, faces, count)]
        for path in others:
            rows[f"features of {path}"] = [clusters.of_features(inference.load(path), faces, count)]
    return regions.evaluate(rows, manifest, shards, out)


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
