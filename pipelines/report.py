"""report: every artifact of the run → one page that opens from disk"""

from __future__ import annotations

from fra.data.files import write_json
from fra.report.page import write
from fra.train.checkpoint import read_weights
from pipelines import params, paths
from pipelines.stage import logger, main
from pipelines.summary import headline


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
    write_json(headline(), paths.RESULTS)
    logger.info("report: %s", page)


if __name__ == "__main__":
    main(report)
