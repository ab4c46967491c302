"""`make gpu`: what a GPU can be used for in a few minutes, by one command and without a network."""

from __future__ import annotations

import sys
from pathlib import Path

BUNDLE = Path(".work/gpu")
"""What `make gpu-bundle` prepares: `params.yaml`, and `packages/` for a machine without them."""
PARAMS = BUNDLE / "params.yaml"
PACKAGES = BUNDLE / "packages"

# At the end: packages of the environment come first.
sys.path.append(str(PACKAGES.absolute()))
