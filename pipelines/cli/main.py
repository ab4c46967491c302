"""The `fra` command: the command groups, put together."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import benchmark, data, inference, lineage, transfer
from pipelines.project.errors import describe

app = typer.Typer(
    help="FRA: from a folder of faces to a backbone, with evidence for every number.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(inference.app)
app.add_typer(lineage.lineage, name="lineage")
app.add_typer(data.data, name="data")
app.add_typer(benchmark.bench, name="bench")
app.add_typer(transfer.transfer, name="transfer")


@app.command()
def compare(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Names, as in `dvc exp show`; all where none is given")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page")] = Path("artifacts/compare.html"),
) -> None:
    """Sets the workspace and experiments side by side: results, parameters that differ, losses; as one page."""
    from pipelines.cli.compare import write

    if left_out := write(out, experiments or []):
        print(f"left out, as not run to their end: {', '.join(left_out)}", file=sys.stderr)
    print(out)


def main() -> None:
    """Runs the command; an error that we raise on purpose is one line and exit code 1."""
    import pipelines  # noqa: F401  switches off telemetry before anything is imported

    try:
        app()
    except Exception as error:
        if os.environ.get("FRA_DEBUG"):
            raise
        sys.exit(f"error: {describe(error)}")
