"""FRA: Facial Region Awareness, self-supervised pre-training for face analysis (CVPR 2024).

`fra.load(path)` returns a trained encoder; it is imported at first use, so that `import fra` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fra.inference.encoder import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from fra.inference.encoder import load

        return load
    raise AttributeError(f"module 'fra' has no attribute {name!r}")
