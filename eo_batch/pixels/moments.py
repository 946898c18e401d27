"""Mergeable first and second moments. Legend: b bands."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of one population."""

    n: int
    mean: float
    m2: float
    """Sum of (x - mean)²."""

    @property
    def std(self) -> float:
        """Population standard deviation; 0 for fewer than two values."""
        return float(np.sqrt(self.m2 / self.n)) if self.n > 1 else 0.0


EMPTY = Moments(0, 0.0, 0.0)


def moments_of(values: NDArray[Any]) -> Moments:
    """Moments of all values of an array; NaN is not allowed."""
    flat = values.ravel().astype(np.float64)
    if flat.size == 0:
        return EMPTY
    mean = float(flat.mean())
    flat -= mean
    flat *= flat
    return Moments(flat.size, mean, float(flat.sum()))


def moments_of_stored(values: NDArray[np.unsignedinteger[Any]], scale: float, offset: float) -> Moments:
    """Moments of `value * scale + offset` of all values but 0, which stands for no data. Sums of integers are exact."""
    n = int(np.count_nonzero(values))
    if n == 0:
        return EMPTY
    flat = values.ravel()
    total, wide = int(flat.sum(dtype=np.uint64)), flat.astype(np.float64)
    m2 = (n * int(wide @ wide) - total**2) / n
    return Moments(n, total / n * scale + offset, m2 * scale**2)


def merge(left: Moments, right: Moments) -> Moments:
    """Moments of both populations together (Chan, Golub & LeVeque 1979)."""
    n = left.n + right.n
    if n == 0:
        return EMPTY
    delta = right.mean - left.mean
    return Moments(n, left.mean + delta * right.n / n, left.m2 + right.m2 + delta * delta * left.n * right.n / n)
