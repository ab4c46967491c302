"""Orchestration: the Prefect server and its workers, processes and locks of the project folder, alerts, artifacts."""
