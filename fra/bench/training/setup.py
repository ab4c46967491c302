"""What the benchmarks of a training step have in common: sizes, device, views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fra import dist
from fra.bench.measure import Work, device_name
from fra.method.config import ModelConfig
from fra.train.step import choose_precision


@dataclass(frozen=True)
class Setup:
    """A training step: the sizes of networks and batch, and how it is computed."""

    model: ModelConfig
    image_size: int
    batch_size: int
    device: torch.device
    precision: torch.dtype

    @classmethod
    def of(
        cls, model: ModelConfig, image_size: int, batch_size: int, device: str, precision: str = "auto"
    ) -> Setup:
        """Returns the setup on a device as train.device, in a precision as train.precision."""
        chosen = dist.choose_device(device)
        return cls(model, image_size, batch_size, chosen, choose_precision(precision, chosen))

    @classmethod
    def from_settings(
        cls, model: dict[str, Any], image_size: int, batch_size: int, device: str, precision: str
    ) -> Setup:
        """Returns the setup that `settings` describes, in the process of a peer."""
        return cls.of(ModelConfig(**model), image_size, batch_size, device, precision)

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of a peer, which can be written as JSON."""
        return {
            "model": asdict(self.model),
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "device": str(self.device),
            "precision": str(self.precision).removeprefix("torch."),
        }

    def description(self) -> dict[str, Any]:
        """Returns the setup as benchmarks report it."""
        settings = self.settings()
        return {
            **settings.pop("model"),
            **settings,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
        }

    def views(self, memory_format: torch.memory_format = torch.contiguous_format) -> tuple[Tensor, Tensor]:
        """Returns a pair of random views (B, 3, H, W)."""
        size = (self.batch_size, 3, self.image_size, self.image_size)
        view1, view2 = (
            torch.randn(size, device=self.device).contiguous(memory_format=memory_format) for _ in range(2)
        )
        return view1, view2

    def work(self, step: Callable[[], object]) -> Work:
        """Returns a step as work: it yields the number of images, when the device has finished."""

        def run() -> Iterator[int]:
            step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            yield self.batch_size

        return run
