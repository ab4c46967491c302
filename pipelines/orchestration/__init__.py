"""Orchestration: the Prefect server and its workers, locks of the working folder, alerts and artifacts."""
