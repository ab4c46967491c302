"""`fra lineage`: show, verify, follow and attest what was made from what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.project import paths

lineage = typer.Typer(
    help="What was made from what: show it, check it, follow one person.", no_args_is_help=True
)


@lineage.command()
def show(
    artifact: Annotated[
        str,
        typer.Argument(
            help="A path, a metric (…/metrics.json#pretrained.nme), a report section (…/index.html#alignment)"
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
    page: Annotated[Path | None, typer.Option(help="Write it as a page with a graph")] = None,
) -> None:
    """From an artifact back to code, parameters, environment, verdict, shards and images.

    A copy of weights on another disk is found by its bytes, in this run or in an experiment.
    """
    from rich.console import Console

    from fra.files import write_text
    from pipelines.lineage import show as lineage_show

    origin = lineage_show.trace(artifact)
    if page is not None:
        write_text(lineage_show.page(origin), page)
    if as_json:
        print(json.dumps(origin, indent=2))
    elif page is None:
        Console().print(lineage_show.tree(origin))


@lineage.command()
def verify(
    artifact: Annotated[str | None, typer.Argument(help="Only what this artifact was made from")] = None,
    remote: Annotated[
        Path | None, typer.Option(help="A folder that DVC pushes to: check its objects too")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The statement about the backbone must be signed by this key (PEM)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON")] = False,
) -> None:
    """Computes every hash anew and compares every record with the others. Exit code 1 if anything is off."""
    from pipelines.lineage.verify import report
    from pipelines.lineage.verify import verify as find

    problems = find(artifact=artifact, remote=remote, public_key=public_key)
    if as_json:
        print(
            json.dumps(
                [{"subject": problem.subject, "message": problem.message} for problem in problems], indent=2
            )
        )
    else:
        print(report(problems))
    if problems:
        raise typer.Exit(1)


@lineage.command()
def who(
    image: Annotated[str | None, typer.Option(help="The key of an image, as in the manifest")] = None,
    subject: Annotated[str | None, typer.Option(help="A person, as in the manifest")] = None,
) -> None:
    """Everything that was made from an image or a person: shards, stages, artifacts, experiments; as JSON."""
    from pipelines.lineage.impact import made_from

    if (image is None) == (subject is None):
        raise typer.BadParameter("give --image KEY or --subject PERSON")
    found = made_from("key", image) if image is not None else made_from("person", str(subject))
    print(json.dumps(found, indent=2))


@lineage.command()
def attest(
    backbone: Annotated[Path, typer.Argument(help="The weights")] = paths.BACKBONE,
    out: Annotated[Path, typer.Option(help="The statement")] = paths.STATEMENT,
    key: Annotated[
        Path | None, typer.Option(help="Ed25519 private key (PEM); else FRA_SIGNING_KEY; else unsigned")
    ] = None,
) -> None:
    """Writes an in-toto statement (SLSA provenance) about a backbone, signed where there is a key."""
    from pipelines.lineage import in_toto as statements

    print(f"{out}: {'signed' if statements.write(backbone, out, key) else 'not signed'}")


@lineage.command()
def check(
    backbone: Annotated[Path, typer.Argument(help="The weights")] = paths.BACKBONE,
    statement: Annotated[Path, typer.Option(help="The statement about them")] = paths.STATEMENT,
    public_key: Annotated[
        Path | None, typer.Option(help="The statement must be signed by this key (PEM)")
    ] = None,
    alone: Annotated[
        bool, typer.Option(help="Compare the two files only, not this project's dvc.lock")
    ] = False,
) -> None:
    """Checks a backbone against the statement about it. Exit code 1 if anything is off."""
    from pipelines.lineage import in_toto as statements

    problems = statements.check(statement, backbone, public_key, None if alone else Path())
    print("\n".join(problems) or "pass: the statement is about these weights")
    if problems:
        raise typer.Exit(1)


@lineage.command()
def card(out: Annotated[Path, typer.Option(help="The model card")] = Path("artifacts/MODEL_CARD.md")) -> None:
    """Writes a model card (Hugging Face format) from the run's own records."""
    from pipelines.lineage.model_card import write

    write(out)
    print(out)
