"""`python -m pipelines.cli` is the `fra` command."""

from pipelines.cli.main import main

main()
