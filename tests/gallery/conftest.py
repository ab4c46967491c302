"""Images and weights of the tests of inference."""

from inference.conftest import faces, model

__all__ = ["faces", "model"]
