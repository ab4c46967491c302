"""`fra data`: approval of validation results, withdrawal of people."""

from __future__ import annotations

import json
from typing import Annotated

import typer

data = typer.Typer(help="Approve the data, or withdraw a person from them.", no_args_is_help=True)


@data.command()
def approve(by: Annotated[str, typer.Option(help="Name of the person who approves")]) -> None:
    """Records who approves the current validation results; `fra lineage show` displays it."""
    from pipelines.lineage.approval import approve as write

    for file in write(by):
        record = json.loads(file.read_text(encoding="utf-8"))
        count = record["rows"] - record["quarantined"]
        print(f"{record['dataset']}: {count} images approved by {by}: {file} (commit it)")


@data.command()
def withdraw(
    subject: Annotated[str, typer.Option(help="The person, as named in the manifest")],
    by: Annotated[str, typer.Option(help="Name of the person who signs the withdrawal")],
    run: Annotated[bool, typer.Option(help="Shard and validate the data again at once")] = True,
) -> None:
    """Removes a person from the data, and lists everything that was made from their images."""
    from pipelines.lineage.withdraw import reshard
    from pipelines.lineage.withdraw import withdraw as write

    for file in write(subject, by):
        record = json.loads(file.read_text(encoding="utf-8"))
        print(
            f"{record['dataset']}: {record['images']} images of {subject} withdrawn, signed by {by}: {file}"
        )
        for path, digest in record["stale"].items():
            print(f"  stale: {path}  {digest}")
        for name in record["stale_experiments"]:
            print(f"  stale: experiment {name}")
        if run and reshard(record):
            raise typer.Exit(1)
    print("Next: `dvc repro` trains without this person. The images stay in DVC's cache and in remotes until")
    print("`dvc gc --workspace` (with --cloud for the remote) removes what no stage uses. Your own folder of")
    print("images is not changed.")
