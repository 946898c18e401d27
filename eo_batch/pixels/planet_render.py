"""The simulated planet as its sensors see it: noise, nodata and digital numbers on a grid.

Dims: y row, x column.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.planet import S2Convention
from eo_batch.pixels.planet import Planet
from eo_batch.pixels.planet_grids import RasterGrid
from eo_batch.pixels.planet_noise import lane, noise_key, normal, pixel_bits, speckle
from eo_batch.pixels.planet_sky import S1_BORDER_M

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]

S1_NODATA = -32768.0
S1_POLARISATIONS = ("VV", "VH")
_S1_BORDER_LEVEL = np.float32(1e-4)
"""Mean of the border noise, linear power: far below what ground returns."""

S2_COARSE = ("B11",)
"""Bands whose pixels are twice as large."""
_UNCLASSIFIED, _UNCLASSIFIED_SHARE = 7, 0.002


@dataclass(frozen=True, eq=False)
class S2Image:
    """One Sentinel-2 acquisition over one tile."""

    reflectance_yx: dict[str, F32]
    """What the sensor measured, by band: with haze, clouds and noise; NaN outside the swath."""
    scl_yx: U8
    """Scene classification on the coarse grid; 0 outside the swath."""


class S2Renderer:
    """One tile at any date: what dates share is computed once."""

    def __init__(self, planet: Planet, grid: RasterGrid) -> None:
        self._planet = planet
        self._grids = {1: grid, 2: grid.coarser(2)}
        self._grounds = {factor: planet.ground_at(*g.lonlat()) for factor, g in self._grids.items()}

    def image(self, day: int, bands: tuple[str, ...]) -> S2Image:
        """The acquisition `day`. Noise depends on ground position, band and day: overlapping tiles agree."""
        reflectance: dict[str, F32] = {}
        scl = np.zeros(self._grids[2].shape, np.uint8)
        for factor, grid in self._grids.items():
            names = [b for b in bands if (2 if b in S2_COARSE else 1) == factor]
            if factor == 1 and not names:
                continue
            ground = self._grounds[factor]
            sky = self._planet.sky.at(ground.x_m, ground.y_m, day)
            outside = self._planet.sky.s2_depth_m(ground.x_m, ground.y_m, day) <= 0
            bits = self._bits("s2", day, grid)
            for number, name in enumerate(names):
                value = sky.seen(self._planet.s2_reflectance(ground, name, sky.haze))
                value *= 1 + np.float32(self._planet.spec.s2_noise) * normal(bits, number)
                value[outside] = np.nan
                reflectance[name] = value
            if factor == 2:
                scl = sky.state(ground.code)
                scl[lane(bits, 3) < _UNCLASSIFIED_SHARE * 65536] = _UNCLASSIFIED
                scl[outside] = 0
        return S2Image(reflectance, scl)

    def _bits(self, sensor: str, day: int, grid: RasterGrid) -> NDArray[np.uint64]:
        key = noise_key(self._planet.spec.seed, sensor, day, grid.epsg, round(grid.dx))
        return pixel_bits(key, grid.first_row, grid.first_col, grid.shape)


def s2_digital_numbers(reflectance_yx: F32, convention: S2Convention) -> U16:
    """Digital numbers as one publisher writes them; NaN becomes 0 (nodata), valid pixels are at least 1."""
    outside = np.isnan(reflectance_yx)
    number = np.rint(np.where(outside, 0, reflectance_yx) * np.float32(10_000))
    number += np.float32(convention.dn_offset)
    stored: U16 = np.clip(number, 1, 65535).astype(np.uint16)
    stored[outside] = 0
    return stored


class S1Renderer:
    """One frame at any date."""

    def __init__(self, planet: Planet, grid: RasterGrid) -> None:
        self._planet = planet
        self._grid = grid
        self._ground = planet.ground_at(*grid.lonlat())
        self._gamma0 = {pol: planet.s1_gamma0(self._ground, pol) for pol in S1_POLARISATIONS}

    def image(self, day: int) -> dict[str, F32]:
        """gamma0 by polarisation, linear power with speckle; -32768 outside the swath, noise at its edge."""
        spec, grid = self._planet.spec, self._grid
        key = noise_key(spec.seed, "s1", day, grid.epsg, round(grid.dx))
        bits = pixel_bits(key, grid.first_row, grid.first_col, grid.shape)
        depth = self._planet.sky.s1_depth_m(self._ground.x_m, self._ground.y_m, day)
        border, outside = depth <= S1_BORDER_M, depth <= 0
        found: dict[str, F32] = {}
        for number, pol in enumerate(S1_POLARISATIONS):
            value = self._gamma0[pol] * speckle(bits, number, spec.s1_looks)
            value[border] = _S1_BORDER_LEVEL * speckle(bits, number + 2, 1.0)[border]
            value[outside] = S1_NODATA
            found[pol] = value
        return found


def coherence_percent(planet: Planet, grid: RasterGrid, dt_days: float) -> U8:
    """Coherence in whole percent, 1 to 100 (0 is nodata and does not occur)."""
    value = np.rint(100 * planet.coherence_at(*grid.lonlat(), dt_days))
    return np.clip(value, 1, 100).astype(np.uint8)
