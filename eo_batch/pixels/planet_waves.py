"""Smooth random fields that are known at every point: sums of plane waves.

Dims: x, y metres in the planet's plane, float32 arrays of one (any) shape.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_BLOCK_PX = 1 << 15
"""Pixels per pass: the four working arrays stay in a core's cache."""


def generator(seed: int, *labels: str | int) -> np.random.Generator:
    """A generator of its own for each thing that is drawn, so that adding one thing changes no other."""
    text = "/".join(str(part) for part in (seed, *labels))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


@dataclass(frozen=True, eq=False)
class WaveSum:
    """f(x, y) = sqrt(2 / N) * sum of cos(kx * x + ky * y + phase): mean 0, variance 1, nearly normal.

    Over a plane the phases of waves with different k are independent and uniform, so all moments are
    known exactly, and two sums of equal length have the same distribution whatever their directions.
    """

    kx: F32
    """Wave numbers along x, radians per metre, shape (N,)."""
    ky: F32
    """Wave numbers along y, radians per metre, shape (N,)."""
    phase: F32
    """Phases, radians, shape (N,)."""

    def __call__(self, x_m: F32, y_m: F32) -> F32:
        """The field at points; float32 in their shape."""
        flat_x, flat_y = x_m.reshape(-1), y_m.reshape(-1)
        out = np.zeros(flat_x.shape, np.float32)
        size = min(_BLOCK_PX, max(flat_x.size, 1))
        angle, part = np.empty(size, np.float32), np.empty(size, np.float32)
        for start in range(0, flat_x.size, size):
            x, y, total = (a[start : start + size] for a in (flat_x, flat_y, out))
            a, p = angle[: x.size], part[: x.size]
            for kx, ky, phase in zip(self.kx, self.ky, self.phase, strict=True):
                np.multiply(x, kx, out=a)
                np.multiply(y, ky, out=p)
                a += p
                a += phase
                np.cos(a, out=a)
                total += a
        out *= np.float32(math.sqrt(2 / len(self.kx)))
        return out.reshape(x_m.shape)

    def exp_mean(self, sigma: float) -> float:
        """Mean of exp(sigma * f) over the plane: I0(sigma * sqrt(2 / N)) ** N (I0: modified Bessel)."""
        count = len(self.kx)
        return float(np.i0(sigma * math.sqrt(2 / count)) ** count)


def smooth_waves(rng: np.random.Generator, count: int, shortest_m: float, longest_m: float) -> WaveSum:
    """An isotropic field: one direction per wave, spread evenly, wavelengths even in logarithm."""
    angle = (np.arange(count) + rng.random(count)) * math.pi / count
    share = rng.permutation((np.arange(count) + rng.random(count)) / count)
    return _waves(shortest_m * (longest_m / shortest_m) ** share, angle, rng.random(count))


def grain_waves(
    shape_rng: np.random.Generator,
    phase_rng: np.random.Generator,
    count: int,
    centre_m: float,
    direction_deg: float,
    spread_deg: float,
) -> WaveSum:
    """A texture whose waves run within `spread_deg` of one direction, wavelengths centre_m ± 20 %.

    Generators of equal state as `shape_rng` give one spectrum turned by `direction_deg`; `phase_rng`
    makes the pattern itself.
    """
    share = shape_rng.permutation((np.arange(count) + shape_rng.random(count)) / count)
    turn = (np.arange(count) + shape_rng.random(count)) / count * 2 - 1
    angle = np.radians(direction_deg + spread_deg * turn)
    return _waves(centre_m * (0.8 + 0.4 * share), angle, phase_rng.random(count))


def _waves(wavelength_m: F64, angle: F64, turn: F64) -> WaveSum:
    k = 2 * math.pi / wavelength_m
    kx, ky, phase = k * np.cos(angle), k * np.sin(angle), 2 * math.pi * turn
    return WaveSum(kx.astype(np.float32), ky.astype(np.float32), phase.astype(np.float32))


def _normal_cdf(z: F64) -> F64:
    """Standard normal distribution function."""
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z.tolist()])


def normal_quantile(share: float) -> float:
    """z with P(Z < z) = share, by bisection (absolute error below 1e-9)."""
    low, high = -9.0, 9.0
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 * (1 + math.erf(middle / math.sqrt(2))) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def rare_bias(common: int, rare: int, rare_share: float) -> float:
    """What to add to each of `rare` fields so that it wins the argmax on `rare_share` of the plane.

    `common` and `rare` count independent standard normal fields; the integral over the winner's value
    is solved by bisection.
    """
    z = np.linspace(-8, 8, 801)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    low, high = -6.0, 3.0
    for _ in range(40):
        bias = (low + high) / 2
        wins = _normal_cdf(z + bias) ** common * _normal_cdf(z) ** (rare - 1)
        if float(np.trapezoid(density * wins, z)) < rare_share:
            low = bias
        else:
            high = bias
    return (low + high) / 2
