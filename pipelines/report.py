"""Stage report: one HTML page with the results of the run, which opens from disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fra.files import write_json
from fra.transfer.config import PRETRAINED
from fra.validation import verdict
from pipelines import params
from pipelines.project import paths
from pipelines.stage import logger, main


def results() -> dict[str, dict[str, Any]]:
    """Return each task's headline metric by model, how the pre-trained one compares, and the last training losses."""
    from fra.report import headline
    from fra.report.artifacts import TaskResult

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
    from fra.region_quality.compare import measure_regions
    from fra.region_quality.evaluate import NotMeasurable
    from fra.report.elements import Missing
    from fra.report.page import write
    from fra.weights.files import read_weights

    tasks = params.read()["tasks"]
    labelled = tasks["alignment"]["dataset"]
    quarantined = Path(tasks["alignment"]["validation"]) / "quarantine.csv"
    region_quality: Mapping[str, Any] | Missing
    try:
        region_quality = measure_regions(
            paths.MODEL,
            paths.manifest(labelled),
            verdict.read_quarantined_keys(quarantined),
            paths.shards(labelled),
            paths.REPORT / "regions.json",
        )
    except NotMeasurable as error:
        region_quality = Missing(str(error))
        logger.info("region quality is not measured: %s", error)
    page = write(
        paths.REPORT / "index.html",
        validation=paths.VALIDATION,
        pretrain=paths.PRETRAIN,
        transfer={task: paths.TRANSFER / task for task in tasks},
        manifest=paths.manifest(labelled),
        quarantined=quarantined,
        shards=paths.shards(labelled),
        provenance=read_weights(paths.MODEL)[1]["provenance"],
        region_quality=region_quality,
    )
    write_json(results(), paths.RESULTS)
    logger.info("report: %s", page)


if __name__ == "__main__":
    main(report)
