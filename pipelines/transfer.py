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
    """Evaluate the backbone on the task that the command line names.

    Raises:
        ValueError: A baseline is neither a released weights file nor in the folder that DVC tracks.
        ValidationFailed: The labelled set was not validated, or its files differ from the validated ones.
    """
    task = sys.argv[1]
    labelled = params.section(f"tasks.{task}", TaskConfig)
    config = params.section("transfer", TransferConfig)
    for name, file in config.baselines.items():
        if file not in released.names() and Path(file).parent != paths.BASELINES:
            raise ValueError(
                f"transfer.baselines: {name} is {file!r}: put it into {paths.BASELINES}/, which DVC tracks, "
                f"or name released weights ({', '.join(released.names())})"
            )
    manifest, shards = paths.manifest(labelled.dataset), paths.shards(labelled.dataset)
    verdict.check(
        Path(labelled.validation) / "verdict.json", [manifest, shards / "index.json", *shards.glob("*.tar")]
    )
    quarantined = verdict.read_quarantined_keys(Path(labelled.validation) / "quarantine.csv")
    backbone, out = paths.PRETRAIN / "backbone.safetensors", paths.TRANSFER / task
    result = evaluate(task, config, manifest, shards, backbone, out, quarantined)
    metrics = ", ".join(f"{name} {metric['mean']:.3f}" for name, metric in result["pretrained"].items())
    logger.info("%s: %s", task, metrics)


if __name__ == "__main__":
    main(transfer, takes="TASK")
