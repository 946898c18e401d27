"""Samples read from a cube of chips: one sample is one chip in one time bin.

Dims: `n` sample, `b` band, `y` row, `x` column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from eo_batch.models.batch import ArraySamples, Batch
from eo_batch.models.encoder import SensorShape
from eo_batch.models.inputs import BandScaling, standardise

_CHUNK = 256
"""Samples read at once when all are wanted."""


class ChipReader(Protocol):
    """Whatever holds chips: the cube, or arrays in a test."""

    def read(
        self, array: str, slots: Sequence[int], time_index: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Physical values `(n, b, y, x)` of chips at `slots` and their validity; no time index for arrays without
        a time axis."""
        ...


@dataclass(frozen=True)
class InputArray:
    """One array as an encoder sees it."""

    shape: SensorShape
    """Name and sizes."""

    bands: tuple[str, ...]
    """Band labels in order."""

    static: bool
    """Whether it has no time axis: every time bin of a chip sees the same pixels."""

    scaling: BandScaling
    """How its bands are standardised."""


@dataclass(frozen=True)
class Place:
    """Where a sample lies in the cube."""

    slot: int
    """Position on the chip axis."""

    time_index: int | None
    """Position on the time axis; None where no array has one."""


@dataclass(frozen=True)
class CubeSamples:
    """Samples at places of a cube, read when they are asked for."""

    reader: ChipReader
    arrays: tuple[InputArray, ...]
    places: tuple[Place, ...]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples in memory: float32 pixels and their validity."""
        values = sum(array.shape.bands * array.shape.px**2 for array in self.arrays)
        return 5 * values * len(self.places)

    def read(self, indices: Sequence[int]) -> Batch:
        """The samples with these indices, in this order. Raises DataError for values that no model can take."""
        pixels, valid = self._numpy(indices)
        return Batch(
            {name: torch.from_numpy(values) for name, values in pixels.items()},
            {name: torch.from_numpy(values) for name, values in valid.items()},
        )

    def in_memory(self) -> ArraySamples:
        """The same samples, all read now."""
        shapes = {a.shape.name: (len(self), a.shape.bands, a.shape.px, a.shape.px) for a in self.arrays}
        pixels = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        valid = {name: np.zeros(shape, np.bool_) for name, shape in shapes.items()}
        for start in range(0, len(self), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(self)))
            found, found_valid = self._numpy(range(part.start, part.stop))
            for name in shapes:
                pixels[name][part], valid[name][part] = found[name], found_valid[name]
        return ArraySamples(pixels, valid)

    def _numpy(self, indices: Sequence[int]) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]:
        pixels: dict[str, NDArray[np.float32]] = {}
        valid: dict[str, NDArray[np.bool_]] = {}
        for array in self.arrays:
            shape = (len(indices), array.shape.bands, array.shape.px, array.shape.px)
            physical, mask = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
            for time_index, rows in self._by_time(indices, array.static).items():
                slots, place = np.unique([self.places[indices[row]].slot for row in rows], return_inverse=True)
                found, found_valid = self.reader.read(array.shape.name, slots.tolist(), time_index)
                physical[rows], mask[rows] = found[place], found_valid[place]
            name = array.shape.name
            pixels[name], valid[name] = standardise(physical, mask, array.scaling, name)
        return pixels, valid

    def _by_time(self, indices: Sequence[int], static: bool) -> dict[int | None, list[int]]:
        """Rows of the batch by the time index under which they are read."""
        groups: dict[int | None, list[int]] = {}
        for row, index in enumerate(indices):
            groups.setdefault(None if static else self.places[index].time_index, []).append(row)
        return groups
