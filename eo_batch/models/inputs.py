"""From physical pixels to what a model sees.

Dims: `n` sample, `b` band, `y` row, `x` column.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.errors import DataError
from eo_batch.core.sensors import Scale

MIN_STD_SHARE = 1e-6
"""Deviations below this share of the mean's size count as none: the band is constant up to rounding."""


@dataclass(frozen=True)
class BandScaling:
    """How one array's bands are standardised."""

    scale: Scale
    """`db`: 10·log10 of the physical value is taken first; `linear`: the physical value itself."""

    mean_b: tuple[float, ...]
    """Mean of each band over valid training pixels, on that scale."""

    std_b: tuple[float, ...]
    """Standard deviation of each band, on that scale."""


def standardise(
    physical_nbyx: NDArray[np.float32], valid_nbyx: NDArray[np.bool_], scaling: BandScaling, name: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Model pixels (zero mean, unit deviation, 0 where invalid) and their validity, both `(n, b, y, x)`.

    On the dB scale a power of 0 or less has no logarithm, and becomes invalid. A constant band becomes 0.
    Raises DataError where a valid pixel is not finite, or where the number of bands is not that of the
    statistics.
    """
    bands = physical_nbyx.shape[1]
    if not bands == len(scaling.mean_b) == len(scaling.std_b):
        msg = f"array {name} has {bands} bands, its statistics have {len(scaling.mean_b)}; publish again"
        raise DataError(msg)
    valid_nbyx = np.broadcast_to(valid_nbyx, physical_nbyx.shape)
    broken = int(np.count_nonzero(valid_nbyx & ~np.isfinite(physical_nbyx)))
    if broken:
        msg = f"array {name}: {broken} pixels are marked valid but are not finite; write these chips again"
        raise DataError(msg)
    values_nbyx = np.where(valid_nbyx, physical_nbyx, 1.0).astype(np.float32)
    if scaling.scale == "db":
        valid_nbyx = valid_nbyx & (values_nbyx > 0)
        values_nbyx = np.float32(10) * np.log10(np.where(valid_nbyx, values_nbyx, 1.0))
    mean_b, std_b = np.asarray(scaling.mean_b), np.asarray(scaling.std_b)
    constant_b = ~(std_b > MIN_STD_SHARE * np.maximum(np.abs(mean_b), 1e-12))
    gain_b = np.where(constant_b, 0.0, 1.0 / np.where(constant_b, 1.0, std_b)).astype(np.float32)
    standard_nbyx = (values_nbyx - mean_b.astype(np.float32)[:, None, None]) * gain_b[:, None, None]
    return np.where(valid_nbyx, standard_nbyx, np.float32(0)).astype(np.float32), valid_nbyx.copy()
