"""`fra data`: approval of the data, and withdrawal of people."""

from __future__ import annotations

from typing import Annotated

import typer

from fra.wording import counted

data = typer.Typer(help="Approve the data; withdraw a person.", no_args_is_help=True)


@data.command()
def approve(by: Annotated[str, typer.Option(help="Who approves the data")]) -> None:
    """Records who approved the validation results in this workspace; `fra lineage show` prints it."""
    from pipelines.lineage import approval

    for file in approval.approve(by):
        record = approval.read(file)
        print(
            f"{record['dataset']}: {counted(record['rows'] - record['quarantined'], 'image')} approved by {by}: {file} "
            "(commit it)"
        )


@data.command()
def withdraw(
    subject: Annotated[str, typer.Option(help="The person, as in the manifest")],
    by: Annotated[str, typer.Option(help="Who authorises the withdrawal")],
    run: Annotated[bool, typer.Option(help="Run the data stages again at once")] = True,
) -> None:
    """Takes a person out of the data, deletes caches, and lists what was made from their images."""
    from pipelines.lineage import withdraw as withdrawal
    from pipelines.project.dataset import read_withdrawal

    records = {file: read_withdrawal(file) for file in withdrawal.withdraw(subject, by)}
    for file, record in records.items():
        print(
            f"{record['dataset']}: {counted(record['images'], 'image')} of {subject} withdrawn, "
            f"authorised by {by}: {file}"
        )
        for path, digest in record["stale"].items():
            print(f"  stale: {path}  {digest}")
        for name in record["stale_experiments"]:
            print(f"  stale: experiment {name}")
    for path in withdrawal.delete_caches():
        print(f"  deleted: {path}")
    failed = run and max(withdrawal.repeat_data_stages(record) for record in records.values()) != 0
    if not run or failed:
        print("  left: the data stages' outputs and their state in .work, until `dvc repro`")
    for line in dict.fromkeys(line for record in records.values() for line in withdrawal.leftovers(record)):
        print(f"  left: {line}")
    print("Next: `dvc repro` makes the artifacts without them; commit the record to git.")
    if failed:
        raise typer.Exit(1)
