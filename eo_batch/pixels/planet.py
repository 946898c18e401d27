"""The simulated planet as functions of place and time: what every raster is sampled from.

Truth is analytic: land cover is the largest of several smooth random fields, texture is a sum of plane
waves whose direction depends on the class, terrain, haze and clouds are smooth fields of their own.
Places are longitude and latitude in degrees (arrays of one shape); `day` counts a sensor's
acquisitions from 0. Metres are those of the planet's plane: equirectangular around its centre.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eo_batch.core.planet import BUILT_UP, EARTH_RADIUS_M, LAND_CLASSES, TEXTURE_CODES, WATER, PlanetSpec
from eo_batch.pixels.planet_sky import Sky, SkyFields
from eo_batch.pixels.planet_waves import F32, WaveSum, generator, grain_waves, rare_bias, smooth_waves

U8 = NDArray[np.uint8]

_GRAIN_WAVES = 40
_COVER_WAVES = 20
_SMOOTH_WAVES = 16

# Rounded from what temperate summer land shows; texture classes share one row on purpose.
_REFLECTANCE: dict[str, dict[int | None, float]] = {
    "B02": {None: 0.050, BUILT_UP: 0.150, WATER: 0.045},
    "B03": {None: 0.080, BUILT_UP: 0.170, WATER: 0.040},
    "B04": {None: 0.070, BUILT_UP: 0.190, WATER: 0.028},
    "B08": {None: 0.280, BUILT_UP: 0.240, WATER: 0.020},
    "B11": {None: 0.190, BUILT_UP: 0.260, WATER: 0.015},
}
_GAMMA0: dict[str, dict[int | None, float]] = {
    "VV": {None: 0.080, BUILT_UP: 0.400, WATER: 0.010},
    "VH": {None: 0.018, BUILT_UP: 0.070, WATER: 0.0020},
}
_HAZE_OF_BAND = {"B02": 1.0, "B03": 0.75, "B04": 0.55, "B08": 0.25, "B11": 0.08}
"""Haze of each band relative to blue."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What does not change between dates, at some points; all arrays share one shape."""

    x_m: F32
    """East of the centre, metres."""
    y_m: F32
    """North of the centre, metres."""
    code: U8
    """Land-cover code."""
    grain: F32
    """Texture, mean 0 and variance 1 within each texture class; 0 elsewhere."""
    drift: F32
    """Smooth variation that is independent of class, mean 0 and variance 1."""


class Planet:
    """The world of one spec. Holds only wave tables; every method is a pure function."""

    def __init__(self, spec: PlanetSpec) -> None:
        self.spec = spec
        p = spec.patch_m
        self._cover = [
            smooth_waves(generator(spec.seed, "cover", land.code), _COVER_WAVES, 1.5 * p, 4 * p)
            for land in LAND_CLASSES
        ]
        rare = sum(c.grain_deg is None for c in LAND_CLASSES)
        bias = rare_bias(len(LAND_CLASSES) - rare, rare, spec.rare_share)
        self._bias = [np.float32(bias if c.grain_deg is None else 0) for c in LAND_CLASSES]
        self._grain = {
            c.code: grain_waves(
                generator(spec.seed, "grain"), generator(spec.seed, "grain", c.code),
                _GRAIN_WAVES, spec.grain_m, c.grain_deg, spec.grain_spread_deg,
            )
            for c in LAND_CLASSES
            if c.grain_deg is not None
        }  # fmt: skip
        self._drift = self._smooth("drift", 900, 3000)
        self._terrain = self._smooth("terrain", 2500, 9000)
        self._decay = self._smooth("decay", 1500, 5000)
        self.sky = SkyFields(spec)

    def _smooth(self, label: str, shortest_m: float, longest_m: float) -> WaveSum:
        return smooth_waves(generator(self.spec.seed, label), _SMOOTH_WAVES, shortest_m, longest_m)

    @property
    def area_bbox(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) of the area, degrees; all rasters cover it."""
        return self.spec.area_bbox

    def plane(self, lon: ArrayLike, lat: ArrayLike) -> tuple[F32, F32]:
        """Metres east and north of the centre. Degrees stay float64: in float32 they are 0.1 m coarse."""
        scale = math.radians(1) * EARTH_RADIUS_M
        east = np.asarray(lon, np.float64) - self.spec.centre_lon
        x = (east - 360 * np.rint(east / 360)) * scale * self._cos_lat
        y = (np.asarray(lat, np.float64) - self.spec.centre_lat) * scale
        return x.astype(np.float32), y.astype(np.float32)

    def lonlat(self, x_m: ArrayLike, y_m: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude, degrees, of points of the plane: the inverse of `plane`. Longitudes do not wrap."""
        scale = math.radians(1) * EARTH_RADIUS_M
        lon = self.spec.centre_lon + np.asarray(x_m, np.float64) / (scale * self._cos_lat)
        return lon, self.spec.centre_lat + np.asarray(y_m, np.float64) / scale

    @cached_property
    def _cos_lat(self) -> float:
        return math.cos(math.radians(self.spec.centre_lat))

    def ground_at(self, lon: ArrayLike, lat: ArrayLike) -> Ground:
        """All that stays the same between dates: compute it once, then ask for bands and dates."""
        x_m, y_m = self.plane(lon, lat)
        code = self._code(x_m, y_m)
        grain = np.zeros(code.shape, np.float32)
        for value, waves in self._grain.items():
            here = code == value
            grain[here] = waves(x_m[here], y_m[here])
        return Ground(x_m, y_m, code, grain, self._drift(x_m, y_m))

    def _code(self, x_m: F32, y_m: F32) -> U8:
        best = np.full(x_m.shape, -np.inf, np.float32)
        code = np.zeros(x_m.shape, np.uint8)
        for land, waves, bias in zip(LAND_CLASSES, self._cover, self._bias, strict=True):
            value = waves(x_m, y_m) + bias
            wins = value > best
            np.copyto(best, value, where=wins)
            code[wins] = land.code
        return code

    def class_at(self, lon: ArrayLike, lat: ArrayLike) -> U8:
        """Land-cover code (see `LAND_CLASSES`), uint8."""
        return self._code(*self.plane(lon, lat))

    def elevation_at(self, lon: ArrayLike, lat: ArrayLike) -> F32:
        """Elevation, metres: 500 + relief_m * (terrain, mixed with class fields by dem_class_correlation)."""
        x_m, y_m = self.plane(lon, lat)
        share = self.spec.dem_class_correlation
        height = self._terrain(x_m, y_m) * np.float32(math.sqrt(1 - share * share))
        if share:
            first, second, third, fourth = (waves(x_m, y_m) for waves in self._cover[: len(TEXTURE_CODES)])
            height += np.float32(share / 2) * (first + second - third - fourth)
        height *= np.float32(self.spec.relief_m)
        height += np.float32(500)
        return height

    def s2_reflectance(self, ground: Ground, band: str, haze: F32 | None = None) -> F32:
        """Cloud-free, noise-free reflectance of one band; `haze` as in `Sky.haze`, None for clear air."""
        spec = self.spec
        value = self._textured(ground, _REFLECTANCE[band], spec.s2_contrast)
        value += np.float32(spec.shift_reflectance)
        if haze is not None:
            value += np.float32(spec.haze * _HAZE_OF_BAND[band]) * haze
        return value

    def s2_reflectance_at(self, lon: ArrayLike, lat: ArrayLike, band: str, day: int | None = None) -> F32:
        """Cloud-free, noise-free reflectance of `band` in the haze of acquisition `day`; None: clear air."""
        ground = self.ground_at(lon, lat)
        haze = None if day is None else self.sky.haze(ground.x_m, ground.y_m, day)
        return self.s2_reflectance(ground, band, haze)

    def s1_gamma0(self, ground: Ground, pol: str) -> F32:
        """Speckle-free gamma0, linear power, the same at all dates."""
        value = self._textured(ground, _GAMMA0[pol], self.spec.s1_contrast)
        value *= np.float32(10 ** (self.spec.shift_db / 10))
        return value

    def s1_gamma0_at(self, lon: ArrayLike, lat: ArrayLike, pol: str) -> F32:
        """Speckle-free gamma0 of `pol` (VV or VH), linear power, the same at all dates."""
        return self.s1_gamma0(self.ground_at(lon, lat), pol)

    def _textured(self, ground: Ground, level_of_class: dict[int | None, float], contrast: float) -> F32:
        """level * exp(contrast * grain) * exp(nuisance * drift), each factor over its mean on the plane."""
        nuisance = self.spec.nuisance
        grain_mean = self._grain[TEXTURE_CODES[0]].exp_mean(contrast)
        level = np.empty(256, np.float32)
        level[list(TEXTURE_CODES)] = level_of_class[None] / grain_mean
        level[BUILT_UP], level[WATER] = level_of_class[BUILT_UP], level_of_class[WATER]
        value = ground.grain * np.float32(contrast)
        value += ground.drift * np.float32(nuisance)
        np.exp(value, out=value)
        value *= level[ground.code]
        value *= np.float32(1 / self._drift.exp_mean(nuisance))
        return value

    def sky_at(self, lon: ArrayLike, lat: ArrayLike, day: int) -> Sky:
        """Haze, cloud, cirrus and shadow of Sentinel-2 acquisition `day`."""
        return self.sky.at(*self.plane(lon, lat), day)

    def cloud_state_at(self, lon: ArrayLike, lat: ArrayLike, day: int) -> U8:
        """Scene classification at acquisition `day`: 3, 8, 9, 10 by the sky, else 4, 5 or 6 by class."""
        x_m, y_m = self.plane(lon, lat)
        return self.sky.at(x_m, y_m, day).state(self._code(x_m, y_m))

    def s2_swath_at(self, lon: ArrayLike, lat: ArrayLike, day: int) -> NDArray[np.bool_]:
        """Whether Sentinel-2 acquisition `day` reaches the point: odd days end inside the area."""
        return self.sky.s2_depth_m(*self.plane(lon, lat), day) > 0

    def s1_depth_at(self, lon: ArrayLike, lat: ArrayLike, day: int) -> F32:
        """Distance to the edge of the Sentinel-1 swath, metres: negative outside, noise below S1_BORDER_M."""
        return self.sky.s1_depth_m(*self.plane(lon, lat), day)

    def coherence_at(self, lon: ArrayLike, lat: ArrayLike, dt_days: float) -> F32:
        """Interferometric coherence, 0 to 1: 0.9 * exp(-dt / tau), tau 10 to 40 days, independent of class.

        Only water (always 0.06) and built-up (tau 400 days) differ.
        """
        x_m, y_m = self.plane(lon, lat)
        tau = 20 * np.exp(np.clip(np.float32(0.35) * self._decay(x_m, y_m), -math.log(2), math.log(2)))
        value: F32 = (0.9 * np.exp(-np.float32(dt_days) / tau)).astype(np.float32)
        code = self._code(x_m, y_m)
        value[code == WATER] = 0.06
        value[code == BUILT_UP] = 0.9 * math.exp(-dt_days / 400)
        return value
