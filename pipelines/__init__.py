"""The pipeline: thin stages around the library `fra`, run by DVC and shown by Prefect."""

import os
import sys

from pipelines.project.errors import print_one_line

sys.excepthook = print_one_line

# Faces are personal data: every library's telemetry is off, however the process was started.
for name, value in {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(name, value)
