"""`fra lineage`: show and verify what was made from what, find what a person affects, attest a backbone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import AsJson
from pipelines.project import paths

lineage = typer.Typer(
    help="What was made from what: show it, verify it, find the impact of one person.", no_args_is_help=True
)


@lineage.command()
def show(
    artifact: Annotated[
        str,
        typer.Argument(
            help="A path, a metric (…/metrics.json#pretrained.nme), a report section (…/index.html#alignment)"
        ),
    ],
    as_json: AsJson = False,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page with a graph")] = None,
) -> None:
    """Traces an artifact back to code, parameters, environment, validation result, shards and images.

    A copy of weights on another disk is found by its content, in this run or in an experiment.
    """
    from rich.console import Console

    from fra.files import write_text
    from pipelines.lineage.page import page as html_of
    from pipelines.lineage.show import trace, tree

    origin = trace(artifact)
    if page is not None:
        write_text(html_of(origin), page)
    if as_json:
        print(json.dumps(origin, indent=2))
    elif page is None:
        Console().print(tree(origin))


@lineage.command()
def verify(
    artifact: Annotated[
        str | None, typer.Argument(help="Verify only what this artifact was made from")
    ] = None,
    remote: Annotated[
        Path | None, typer.Option(help="A folder that is a DVC remote: verify its objects too")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The statement about the backbone must be signed by this key (PEM)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Computes every hash again and compares every record with the others; lists what it cannot check.

    Exit code 1 if anything does not agree.
    """
    from pipelines.lineage.problem import report
    from pipelines.lineage.verify import verify as verify_lineage

    found = verify_lineage(artifact=artifact, remote=remote, public_key=public_key)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print(report(found.problems, found.limits))
    if found.problems:
        raise typer.Exit(1)


@lineage.command()
def who(
    image: Annotated[
        str | None,
        typer.Option(help="An image: its key in the manifest, its path below dataset.root, or a file"),
    ] = None,
    subject: Annotated[str | None, typer.Option(help="A person, as in the manifest")] = None,
) -> None:
    """Lists everything that was made from an image or a person, as JSON: shards, stages, artifacts, experiments."""
    from pipelines.lineage.impact import impact

    if (image is None) == (subject is None):
        raise typer.BadParameter("give --image KEY or --subject PERSON")
    found = impact("key", image) if image is not None else impact("person", str(subject))
    print(json.dumps(found, indent=2))


@lineage.command()
def attest(
    backbone: Annotated[Path, typer.Argument(help="The weights")] = paths.BACKBONE,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of the statement")] = paths.STATEMENT,
    key: Annotated[
        Path | None, typer.Option(help="Ed25519 private key (PEM); default: FRA_SIGNING_KEY, or unsigned")
    ] = None,
) -> None:
    """Verifies the lineage of a backbone and writes an in-toto statement (SLSA provenance) about it.

    The statement is signed where there is a key.
    """
    from pipelines.lineage import attest as attestation

    print(f"{out}: {'signed' if attestation.attest(backbone, out, key) else 'not signed'}")


@lineage.command()
def check(
    backbone: Annotated[Path, typer.Argument(help="The weights")] = paths.BACKBONE,
    statement: Annotated[Path, typer.Option(help="The statement about them")] = paths.STATEMENT,
    public_key: Annotated[
        Path | None, typer.Option(help="The statement must be signed by this key (PEM)")
    ] = None,
    alone: Annotated[
        bool, typer.Option(help="Compare only the two files, without this project's dvc.lock")
    ] = False,
) -> None:
    """Compares a backbone with the statement about it. Exit code 1 if anything does not agree."""
    from pipelines.lineage import in_toto as statements

    problems = statements.check(statement, backbone, public_key, None if alone else Path())
    print("\n".join(problems) or "pass: the statement is about these weights")
    if problems:
        raise typer.Exit(1)


@lineage.command()
def card(
    out: Annotated[Path, typer.Option("--out", "-o", help="The model card")] = Path(
        "artifacts/MODEL_CARD.md"
    ),
) -> None:
    """Writes a model card (Hugging Face format) from the records of the run."""
    from pipelines.lineage.model_card import write

    write(out)
    print(out)
