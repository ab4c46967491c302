"""Stage transfer@TASK: evaluates the backbone on one task of a labelled set."""

from __future__ import annotations

import sys
from pathlib import Path

from fra.transfer.config import TaskConfig, TransferConfig
from fra.transfer.evaluate import evaluate
from fra.validation import verdict
from fra.weights import released
from pipelines import params
from pipelines.project import paths
from pipelines.stage import logger, main


def transfer() -> None:
    task = sys.argv[1]
    where = params.section(f"tasks.{task}", TaskConfig)
    config = params.section("transfer", TransferConfig)
    for name, file in config.baselines.items():
        if file not in released.names() and Path(file).parent != paths.BASELINES:
            raise ValueError(
                f"transfer.baselines: {name} is {file!r}: put it into {paths.BASELINES}/, which DVC watches, "
                f"or name released weights ({', '.join(released.names())})"
            )
    manifest, shards = paths.manifest(where.dataset), paths.shards(where.dataset)
    verdict.check(
        Path(where.validation) / "verdict.json", [manifest, shards / "index.json", *shards.glob("*.tar")]
    )
    quarantined = verdict.read_quarantined_keys(Path(where.validation) / "quarantine.csv")
    backbone, out = paths.PRETRAIN / "backbone.safetensors", paths.TRANSFER / task
    result = evaluate(task, config, manifest, shards, backbone, out, quarantined)
    figures = ", ".join(f"{name} {figure['mean']:.3f}" for name, figure in result["pretrained"].items())
    logger.info("%s: %s", task, figures)


if __name__ == "__main__":
    main(transfer, takes="TASK")
