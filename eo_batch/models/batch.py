"""What a model is fed: standardised pixels and their validity, for each sensor.

Dims: `n` sample, `b` band, `y` row, `x` column.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Samples of some or all of a model's sensors. A sensor that is not a key was never observed."""

    pixels_nbyx: Mapping[str, Tensor]
    """float32, standardised; what stands where `valid_nbyx` is False never matters."""

    valid_nbyx: Mapping[str, Tensor]
    """bool, same keys and shapes as the pixels."""

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(
            {name: pixels.to(device) for name, pixels in self.pixels_nbyx.items()},
            {name: valid.to(device) for name, valid in self.valid_nbyx.items()},
        )

    def only(self, names: Iterable[str]) -> "Batch":
        """Those of the sensors that it holds."""
        kept = [name for name in names if name in self.pixels_nbyx]
        return Batch({name: self.pixels_nbyx[name] for name in kept}, {name: self.valid_nbyx[name] for name in kept})

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(next(iter(self.pixels_nbyx.values())))


class Samples(Protocol):
    """Where a loop takes its samples from, by index. Reading the same indices gives the same bits."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def read(self, indices: Sequence[int]) -> Batch:
        """The samples with these indices, in this order, on the CPU."""
        ...


@dataclass(frozen=True)
class ArraySamples:
    """Samples that fit in memory."""

    pixels_nbyx: Mapping[str, NDArray[np.float32]]
    """Standardised pixels of each sensor; all of one length."""

    valid_nbyx: Mapping[str, NDArray[np.bool_]]
    """Their validity."""

    def __len__(self) -> int:
        return len(next(iter(self.pixels_nbyx.values())))

    def read(self, indices: Sequence[int]) -> Batch:
        """The samples with these indices, in this order."""
        rows = np.asarray(indices, dtype=np.int64)
        return Batch(
            {name: torch.from_numpy(pixels[rows]) for name, pixels in self.pixels_nbyx.items()},
            {name: torch.from_numpy(valid[rows]) for name, valid in self.valid_nbyx.items()},
        )
