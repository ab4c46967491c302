"""Environment variables by which one process of the pipeline passes values and settings to another."""

from __future__ import annotations

import os

PARENT_TASK_RUN = "FRA_PARENT_TASK_RUN"
"""The id of the task run that starts a stage: its flow run is shown below that task."""
PAGES_URL = "FRA_ARTIFACTS_URL"
"""The address at which `make serve` serves the pages in artifacts/."""
STAGE_SETTINGS = {
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 s; the default's 62 s would delay the next stage if the server is away
    "PREFECT_LOGGING_EXTRA_LOGGERS": "fra",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": "%(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(message)s",
}
"""Prefect's settings for a stage. Its lines go through DVC into the parent flow's log, which adds time and name."""


def bypass_proxy(host: str = "localhost") -> None:
    """Has this process and its children reach this machine and `host` without the proxy that HTTP_PROXY names."""
    listed = ",".join(os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")).split(",")
    hosts = dict.fromkeys([*map(str.strip, listed), "127.0.0.1", "localhost", host])
    hosts.pop("", None)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(hosts)
