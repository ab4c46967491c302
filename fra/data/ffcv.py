"""The parts of FFCV that this project uses, imported without compilation.

FFCV stores the codes of its image formats in a Numba dictionary, which takes Numba some four seconds to compile in
every process. Only Python reads them, so a plain dictionary replaces it. FFCV also imports `distutils`, which loads
setuptools, for a function that it never calls.
"""

import sys
import warnings
from types import ModuleType
from unittest.mock import patch

import torch

_threads = torch.get_num_threads()
_log = ModuleType("distutils.log")
_log.__dict__["warn"] = warnings.warn
_replaced = sys.modules.setdefault(_log.__name__, _log) is _log
with patch("numba.typed.Dict", dict):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder
    from ffcv.fields.rgb_image import IMAGE_MODES, ResizedCropRGBImageDecoder
    from ffcv.libffcv import imdecode, resize_crop
    from ffcv.loader import Loader
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.memory_allocator import MemoryAllocator
    from ffcv.pipeline import PipelineSpec
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.state import State
    from ffcv.reader import Reader
    from ffcv.traversal_order.base import TraversalOrder
    from ffcv.writer import DatasetWriter, handle_sample

if _replaced:
    del sys.modules[_log.__name__]
torch.set_num_threads(_threads)  # the import of FFCV sets it to 1

__all__ = [
    "IMAGE_MODES",
    "AllocationQuery",
    "Compiler",
    "DatasetWriter",
    "EpochIterator",
    "IntDecoder",
    "IntField",
    "Loader",
    "MemoryAllocator",
    "PipelineSpec",
    "RGBImageField",
    "Reader",
    "ResizedCropRGBImageDecoder",
    "State",
    "TraversalOrder",
    "handle_sample",
    "imdecode",
    "resize_crop",
]
