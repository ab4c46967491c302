"""The pipeline: thin flows around `fra`, wired by DVC and watched by Prefect."""
