"""validate: manifest and shards → verdict, quarantine list and Data Docs; stops the run where the data do not pass"""

from __future__ import annotations

from fra.quality import gate
from fra.quality.expectations import ValidateConfig
from fra.quality.verdict import GateError
from pipelines import params, paths
from pipelines.dataset import chosen, validation_of
from pipelines.stage import logger, main


def validate() -> None:
    dataset, config = chosen(), params.section("validate", ValidateConfig)
    out = validation_of(dataset)
    verdict, aside = gate.judge(
        dataset.name,
        paths.manifest(dataset.name),
        paths.shards(dataset.name),
        sorted(paths.beton(dataset.name).glob("*.beton")),
        out,
        config,
    )
    for expectation in verdict.expectations:
        if not expectation["success"]:
            logger.info("%(severity)s: %(name)s: %(reason)s: %(unexpected_count)s images", expectation)
    for row in aside.itertuples():
        logger.info("set aside: %s: %s", row.source, row.reason)
    if not verdict.success:
        raise GateError(
            f"{dataset.name} did not pass: {'; '.join(verdict.reasons)}. See {out}/data_docs/index.html"
        )
    logger.info("%s passed: %s images, %s set aside", dataset.name, f"{verdict.rows:,}", verdict.quarantined)


if __name__ == "__main__":
    main(validate)
