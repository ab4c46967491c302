"""Images and weights of the tests of the atlas."""

from inference.conftest import faces, model

__all__ = ["faces", "model"]
