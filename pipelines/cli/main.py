"""The `fra` command with its groups of commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import atlas, benchmark, data, faces, inference, lineage, transfer
from pipelines.project.errors import describe
from pipelines.project.root import refuse_subfolder

app = typer.Typer(
    help="FRA: from a folder of faces to a backbone, with evidence for every number.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
ANYWHERE = ("check", "forest", "pool")
"""Commands of the groups below that need no project: all their files are named on the command line."""


def check_folder(context: typer.Context) -> None:
    """Refuses a command that needs the project's root in one of its sub-folders; help is shown anywhere."""
    if context.invoked_subcommand not in ANYWHERE and "--help" not in sys.argv:
        refuse_subfolder()


app.add_typer(faces.app)
app.add_typer(inference.app)
app.add_typer(atlas.app)
app.add_typer(lineage.lineage, name="lineage", callback=check_folder)
app.add_typer(data.data, name="data", callback=check_folder)
app.add_typer(benchmark.bench, name="bench")
app.add_typer(transfer.transfer, name="transfer", callback=check_folder)


@app.command()
def compare(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Names, as in `dvc exp show`; default: all")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write")] = Path(
        "artifacts/compare.html"
    ),
) -> None:
    """Compares the workspace and experiments in one page: results, parameters that differ, losses."""
    refuse_subfolder()
    from pipelines.cli.compare import write

    if left_out := write(out, experiments or []):
        print(f"left out because they are not finished: {', '.join(left_out)}", file=sys.stderr)
    print(out)


def main() -> None:
    """Runs the command; an error is one line on standard error and exit code 1."""
    import pipelines  # noqa: F401  switches telemetry off before other packages are imported

    try:
        app()
    except Exception as error:
        if os.environ.get("FRA_DEBUG"):
            raise
        sys.exit(f"error: {describe(error)}")
