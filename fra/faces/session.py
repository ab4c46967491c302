"""Networks in ONNX Runtime, for images of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def session(model: bytes, declared: tuple[int, int, int, int]) -> InferenceSession:
    """A network in ONNX Runtime that takes one image of any height and width, in one thread.

    Args:
        model: The bytes of an ONNX file.
        declared: The shape (N, C, H, W) of the input that the file declares; ONNX Runtime takes no other.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns about outputs whose size is not the declared one
    options.intra_op_num_threads = 1  # photographs are processed in parallel, not parts of one
    options.enable_mem_pattern = False  # it keeps a plan for every size of image
    return onnxruntime.InferenceSession(any_size(model, declared), options, ["CPUExecutionProvider"])


def any_size(model: bytes, declared: tuple[int, int, int, int]) -> bytes:
    """An ONNX model whose input is one image of any height and width, not of the `declared` shape (N, C, H, W).

    In the file (protobuf) a size is a number or, for any size, a name. Both can take the same number of bytes, so that
    the declaration is replaced in place; no library is needed that parses the file.

    Raises:
        ValueError: The model does not declare this shape.
    """
    _, channels, height, width = declared
    before = b"".join(map(_number, declared))
    if model.count(before) != 1:
        raise ValueError(f"the network does not declare an input of {declared}")
    after = _number(1) + _number(channels) + _name("H", height) + _name("W", width)
    return model.replace(before, after)


def _number(size: int) -> bytes:
    """A dimension of a known size below 16,384."""
    number = bytes([size]) if size < 128 else bytes([size % 128 | 128, size // 128])
    return b"\x0a" + bytes([1 + len(number)]) + b"\x08" + number


def _name(name: str, size: int) -> bytes:
    """A dimension of any size, in as many bytes as one of `size`; without a name where there is no space for it."""
    space = len(_number(size)) - 4
    return b"\x0a" + bytes([2 + space]) + b"\x12" + bytes([space]) + name[:space].encode()
