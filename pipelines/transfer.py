"""Stage transfer@TASK: evaluates the backbone on one task of a labelled set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fra.files import sha256, sha256_each
from fra.transfer.config import TaskConfig, TransferConfig
from fra.validation import verdict
from fra.weights import released
from pipelines import params
from pipelines.lineage import record
from pipelines.project import paths
from pipelines.stage import logger, main

if TYPE_CHECKING:
    from fra.transfer.task_model import TaskModel
    from fra.weights.pretrained import PretrainedBackbone


def transfer() -> None:
    """Evaluate the backbone on the task that the command line names, and write its task model.

    Raises:
        ValueError: A baseline is neither a released weights file nor in the folder that DVC tracks.
        ValidationFailed: The labelled set was not validated, or its files differ from the validated ones.
    """
    task = sys.argv[1]
    labelled = params.section(f"tasks.{task}", TaskConfig)
    config = settings_of(labelled)
    for name, file in config.baselines.items():
        if file not in released.names() and Path(file).parent != paths.BASELINES:
            raise ValueError(
                f"transfer.baselines: {name} is {file!r}: put it into {paths.BASELINES}/, which DVC tracks, "
                f"or name released weights ({', '.join(released.names())})"
            )
    manifest, shards, quarantined = validated_files(labelled)
    out = paths.TRANSFER / task
    from fra.transfer import task_model  # imports PyTorch: not before parameters and inputs are checked
    from fra.transfer.evaluate import evaluate

    summary, fit = evaluate(task, config, manifest, shards, paths.BACKBONE, out, quarantined)
    origin = provenance(task, labelled, paths.BACKBONE)
    model: PretrainedBackbone
    if fit is None:
        protocol = config.model_protocol
        logger.info("%s: fitting the task model (%s, all labels), which was not evaluated", task, protocol)
        model, _ = task_model.fit(
            task, protocol, config, manifest, shards, paths.BACKBONE, quarantined, provenance=origin
        )
    else:
        model = task_model.from_fit(task, fit, config, provenance=origin)
    task_model.save(model, out / "model.safetensors")
    metrics = ", ".join(f"{name} {metric['mean']:.3f}" for name, metric in summary["pretrained"].items())
    logger.info("%s: %s", task, metrics)


def settings_of(labelled: TaskConfig) -> TransferConfig:
    """The section `transfer`, with the values that the task has of its own."""
    shared = params.section("transfer", TransferConfig)
    return replace(
        shared,
        seeds=labelled.seeds or shared.seeds,
        fractions=labelled.fractions or shared.fractions,
    )


def validated_files(labelled: TaskConfig) -> tuple[Path, Path, frozenset[str]]:
    """The manifest, the folder of shards and the quarantined keys of a labelled set that passed validation.

    Raises:
        ValidationFailed: The set was not validated, or its files differ from the validated ones.
    """
    manifest, shards = paths.manifest(labelled.dataset), paths.shards(labelled.dataset)
    folder = Path(labelled.validation)
    verdict.check(folder / "verdict.json", [manifest, shards / "index.json", *shards.glob("*.tar")])
    return manifest, shards, verdict.read_quarantined_keys(folder / "quarantine.csv")


def provenance(task: str, labelled: TaskConfig, weights: Path) -> dict[str, Any]:
    """The provenance of a task model: code, parameters, environment, and its inputs by SHA-256."""
    folder, manifest = Path(labelled.validation), paths.manifest(labelled.dataset)
    index = paths.shards(labelled.dataset) / "index.json"
    hashes = sha256_each([manifest, index, folder / "verdict.json", folder / "quarantine.csv"])
    values = params.read()
    settings = {"transfer": values["transfer"], f"tasks.{task}": values["tasks"][task]}
    inputs = {str(weights): sha256(released.find(weights))}
    inputs |= {path.as_posix(): digest for path, digest in hashes.items()}
    return record.provenance(settings, inputs)


def fit_task(
    task: str, protocol: str, weights: Path, classes: Sequence[str] = (), device: str = "auto"
) -> TaskModel:
    """Fit a task model on the labelled set of params.yaml, with its provenance.

    `device` replaces transfer.device, unless it is "auto".

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The task has no labelled set, or the task or protocol has no head to fit.
        ValidationFailed: The labelled set was not validated, or its files differ from the validated ones.
    """
    from fra.transfer import task_model

    task_model.probe_of(task)
    task_model.check_protocol(protocol)
    if task not in (known := params.read()["tasks"]):
        raise ValueError(
            f"{task} has no labelled set; params.yaml has: {', '.join(known)} (set tasks.{task}.dataset)"
        )
    if not released.find(weights).is_file():
        raise FileNotFoundError(
            f"{weights}: no such weights file: run `dvc repro pretrain`, or name another backbone (-w demo)"
        )
    labelled = params.section(f"tasks.{task}", TaskConfig)
    config = settings_of(labelled)
    if device != "auto":
        config = replace(config, device=device)
    manifest, shards, quarantined = validated_files(labelled)
    origin = provenance(task, labelled, weights)
    model, _ = task_model.fit(task, protocol, config, manifest, shards, weights, quarantined, classes, origin)
    return model


if __name__ == "__main__":
    main(transfer, takes="TASK")
