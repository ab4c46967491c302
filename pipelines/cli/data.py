"""`fra data`: approval and withdrawal of the data."""

from __future__ import annotations

import json
from typing import Annotated

import typer

data = typer.Typer(help="Who approved the data, and who left them.", no_args_is_help=True)


@data.command()
def approve(
    by: Annotated[str, typer.Option(help="Name of the person who signs the validation result off")],
) -> None:
    """Puts a person's name under the verdict on the data that are here; `fra lineage show` tells it."""
    from pipelines.lineage.approval import approve as write

    for file in write(by):
        record = json.loads(file.read_text(encoding="utf-8"))
        print(
            f"{record['dataset']}: {record['rows'] - record['quarantined']} images approved by {by}: {file} "
            "(commit it)"
        )


@data.command()
def withdraw(
    subject: Annotated[str, typer.Option(help="The person, as in the manifest")],
    by: Annotated[str, typer.Option(help="Who signs the withdrawal off")],
    run: Annotated[bool, typer.Option(help="Shard and validate the data again at once")] = True,
) -> None:
    """Takes a person out of the data, and says what was made from their pictures."""
    from pipelines.lineage.withdraw import reshard
    from pipelines.lineage.withdraw import withdraw as write

    for file in write(subject, by):
        record = json.loads(file.read_text(encoding="utf-8"))
        print(
            f"{record['dataset']}: {record['images']} images of {subject} withdrawn, signed off by {by}: {file}"
        )
        for path, digest in record["stale"].items():
            print(f"  stale: {path}  {digest}")
        for name in record["stale_experiments"]:
            print(f"  stale: experiment {name}")
        if run and reshard(record):
            raise typer.Exit(1)
    print("Next: `dvc repro` trains without them. Their bytes stay in DVC's cache, and in remotes, until")
    print(
        "`dvc gc --workspace` (with --cloud for the remote) removes what no stage uses; your own raw folder is yours."
    )
