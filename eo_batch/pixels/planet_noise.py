"""Noise that is a pure function of pixel position, so that overlapping tiles repeat it exactly.

A counter-based hash of (key, row, column) gives 64 bits a pixel; tables of 65,536 quantiles turn 16 of
them into a sample. No generator state exists, hence no order of evaluation.
Dims: y row, x column.
"""

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
F32 = NDArray[np.float32]

_LEVELS = 1 << 16


def noise_key(*labels: str | int) -> int:
    """64-bit key of a noise field from what names it."""
    text = "/".join(str(part) for part in labels)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def pixel_bits(key: int, first_row: int, first_col: int, shape_yx: tuple[int, int]) -> U64:
    """64 random bits for each pixel of a window, shape (y, x).

    Rows and columns are counted from an origin that all rasters of one CRS and pixel size share. The
    mixing function is that of SplitMix64 (Steele, Lea, Flood 2014), applied to row, then to column.
    """
    rows = np.arange(first_row, first_row + shape_yx[0], dtype=np.int64).astype(np.uint64)
    cols = np.arange(first_col, first_col + shape_yx[1], dtype=np.int64).astype(np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    by_row = _mix(rows * golden + np.uint64(key))
    return _mix(by_row[:, None] + (cols * golden)[None, :])


def _mix(bits: U64) -> U64:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def lane(bits: U64, number: int) -> NDArray[np.uint16]:
    """One of four independent uniform 16-bit numbers in each pixel's bits; `number` 0 to 3."""
    return (bits >> np.uint64(16 * number)).astype(np.uint16)


def speckle(bits: U64, number: int, looks: float) -> F32:
    """Gamma speckle of mean 1 and variance 1 / looks, from one lane."""
    sample: F32 = _gamma_table(looks)[lane(bits, number)]
    return sample


def normal(bits: U64, number: int) -> F32:
    """Standard normal noise, from one lane."""
    sample: F32 = _normal_table()[lane(bits, number)]
    return sample


@cache
def _gamma_table(looks: float) -> F32:
    # Squared spacing resolves the steep start of the density; 30 standard deviations reach the last quantile.
    t = np.linspace(0, 1, 400_001)[1:] ** 2 * (1 + 30 / looks**0.5)
    log_density = (looks - 1) * np.log(t) - looks * t
    table = _quantiles(t, np.exp(log_density - log_density.max()))
    unit_mean: F32 = (table / table.mean()).astype(np.float32)
    return unit_mean


@cache
def _normal_table() -> F32:
    t = np.linspace(-6, 6, 100_001)
    table = _quantiles(t, np.exp(-t * t / 2))
    unit_variance: F32 = (table / table.std()).astype(np.float32)
    return unit_variance


def _quantiles(t: NDArray[np.float64], density: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = np.diff(t) * (density[1:] + density[:-1]) / 2
    below = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp((np.arange(_LEVELS) + 0.5) / _LEVELS, below / below[-1], t)
