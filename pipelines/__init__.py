"""The pipeline: thin flows around `fra`, wired by DVC and watched by Prefect."""

import os
import sys

from pipelines.project.errors import one_line

sys.excepthook = one_line

# Faces are personal data: no library of ours reports to anybody, however it is started.
for name, value in {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(name, value)
