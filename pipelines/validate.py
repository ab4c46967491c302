"""validate: manifest, shards and betons → verdict, quarantine list, Data Docs; stops the run if they do not pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fra.data.datasets.records import root_of
from fra.data.loader.config import DataConfig
from fra.data.views.config import ViewsConfig
from fra.validation.config import ValidateConfig
from fra.validation.verdict import ValidationFailed, ValidationResult, exclusions
from pipelines import params
from pipelines.project import paths
from pipelines.project.dataset import selected_dataset, validation_folder
from pipelines.sections import check_task_sets
from pipelines.stage import logger, main

if TYPE_CHECKING:
    from fra.validation.validate import DatasetFiles


def files_of(name: str, photographs: Path | None = None) -> DatasetFiles:
    """Returns the files of a data set in this workspace; `photographs` is the folder that faces were cropped from."""
    from fra.validation.validate import DatasetFiles

    betons = tuple(sorted(paths.beton(name).glob("*.beton")))
    return DatasetFiles(name, paths.manifest(name), paths.shards(name), betons, photographs)


def remedy(result: ValidationResult) -> str:
    """Returns the command that accepts what broke the rules, where published data may break them; else nothing."""
    stopped = [rule for rule in result.expectations if rule["severity"] == "error" and not rule["success"]]
    accepted = [f"{rule['name']}: {rule['alternative']}" for rule in stopped if rule["alternative"]]
    if not accepted:
        return ""
    return (
        ". If the data set was published like this, change the severity of these rules (of duplicates in several "
        "splits, the image in the last split is kept): "
        + params.command_with(f"+validate.severities={{{', '.join(accepted)}}}")
    )


def validate() -> None:
    """Validates the selected data set.

    Raises:
        ParamsError: The stage does not depend on the set of a task, with whose test images it compares.
        ValidationFailed: The data set did not pass.
    """
    dataset, config = selected_dataset(), params.section("validate", ValidateConfig)
    out = validation_folder(dataset.name)
    values = params.read()
    trained = dataset.name == values["dataset"]["name"]
    if trained:
        check_task_sets(values)
    others = sorted({str(task["dataset"]) for task in values["tasks"].values()} - {dataset.name})
    training = (params.section("data", DataConfig), params.section("views", ViewsConfig))
    from fra.validation import terminal  # imports Great Expectations: not before the parameters are checked
    from fra.validation import validate as validation

    result, quarantined = validation.validate(
        files_of(
            dataset.name, root_of(dataset, paths.raw(dataset.name)) if dataset.faces == "detect" else None
        ),
        out,
        config,
        # a set that is trained on must hold no test image of the tasks' sets, and must give sound batches
        held_out=[files_of(name) for name in others] if trained else [],
        training=training if trained else None,
    )
    terminal.show(result, sys.stderr)
    for row in quarantined[~quarantined["without_face"]].itertuples():
        logger.info("quarantined: %s: %s", row.source, row.reason)
    if not result.success:
        raise ValidationFailed(
            f"{dataset.name} did not pass validation: {'; '.join(result.reasons)}. "
            f"See {out}/data_docs/index.html{remedy(result)}"
        )
    logger.info(
        "%s passed validation: %s images, %s",
        dataset.name,
        f"{result.rows - result.without_face:,}",
        exclusions(vars(result)),
    )


if __name__ == "__main__":
    main(validate, takes="SET")
