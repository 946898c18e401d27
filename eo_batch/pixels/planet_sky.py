"""What lies between the simulated planet and its sensors: haze, clouds, shadows, swath edges.

All fields are independent of land cover. Dims: x, y metres in the planet's plane, one (any) shape.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.planet import BUILT_UP, WATER, PlanetSpec
from eo_batch.pixels.planet_waves import F32, WaveSum, generator, normal_quantile, smooth_waves

U8 = NDArray[np.uint8]

SHADOW, VEGETATION, BARE, WATER_STATE, CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS = 3, 4, 5, 6, 8, 9, 10

S1_BORDER_M = 150.0
"""Width of the strip of border noise inside the edge of a Sentinel-1 swath, metres."""

_CLOUD_WAVES, _CIRRUS_WAVES, _HAZE_WAVES = 20, 12, 12
_CLOUD_M, _CIRRUS_M, _HAZE_M = (900.0, 3500.0), (2500.0, 7000.0), (2000.0, 8000.0)
_CIRRUS_SHARE = 0.03
_SHADOW_OFFSET_M = (-260.0, 190.0)
"""Where a cloud's shadow falls, from the cloud: the sun stands in the south-east in the morning."""
_ONSET = np.float32(0.12)
"""How far (in standard deviations of its field) inside its mask a cloud starts to show: with the gradients
of `_CLOUD_M` more than a 20 m pixel's half diagonal, so a fine pixel outside the mask is never touched."""
_RAMP = np.float32(0.25)
"""How far from its onset a cloud is fully opaque."""
_SWATH_TILT_DEG = 12.0


@dataclass(frozen=True, eq=False)
class Sky:
    """The air at one acquisition; all arrays share one shape."""

    haze: F32
    """Haze relative to the spec's `haze`, above 0, typically 1."""
    cloud: F32
    """Opacity of cloud, 0 to 1."""
    cirrus: F32
    """Opacity of cirrus, 0 to 1."""
    shade: F32
    """Darkness of cloud shadow, 0 to 1."""
    mask: U8
    """Scene classification where the sky decides it (3, 8, 9, 10); 0 where the ground does."""

    def state(self, code: U8) -> U8:
        """Scene classification over ground of land-cover `code`."""
        ground = np.full(256, VEGETATION, np.uint8)
        ground[WATER], ground[BUILT_UP] = WATER_STATE, BARE
        return np.where(self.mask > 0, self.mask, ground[code])

    def seen(self, reflectance: F32) -> F32:
        """Reflectance that the sensor gets: cloud is near 0.75, cirrus adds 0.06, shadow keeps 35 %."""
        value = reflectance * (1 - np.float32(0.65) * self.shade)
        value += np.float32(0.06) * self.cirrus
        value += self.cloud * (np.float32(0.75) - value)
        return value


class SkyFields:
    """The sky of one planet at every acquisition."""

    def __init__(self, spec: PlanetSpec) -> None:
        self.spec = spec
        self._waves = cache(self._draw)

    def _draw(self, label: str, day: int, count: int, shortest_m: float, longest_m: float) -> WaveSum:
        return smooth_waves(generator(self.spec.seed, label, day), count, shortest_m, longest_m)

    def haze(self, x_m: F32, y_m: F32, day: int) -> F32:
        """Haze relative to the spec's `haze`: exp of a smooth field."""
        value = self._waves("haze", day, _HAZE_WAVES, *_HAZE_M)(x_m, y_m)
        value *= np.float32(0.5)
        return np.exp(value, out=value)

    def at(self, x_m: F32, y_m: F32, day: int) -> Sky:
        """The sky of Sentinel-2 acquisition `day`."""
        haze = self.haze(x_m, y_m, day)
        if self.spec.cloud_share == 0:
            none = np.zeros_like(haze)
            return Sky(haze, none, none, none, np.zeros(haze.shape, np.uint8))
        waves = self._waves("cloud", day, _CLOUD_WAVES, *_CLOUD_M)
        edge = np.float32(normal_quantile(1 - self.spec.cloud_share))
        above = waves(x_m, y_m) - edge
        dx, dy = _SHADOW_OFFSET_M
        shadow = waves(x_m - np.float32(dx), y_m - np.float32(dy)) - edge
        thin = self._waves("cirrus", day, _CIRRUS_WAVES, *_CIRRUS_M)(x_m, y_m)
        thin -= np.float32(normal_quantile(1 - _CIRRUS_SHARE))
        mask = np.zeros(haze.shape, np.uint8)
        mask[thin > 0] = CIRRUS
        mask[shadow > 0] = SHADOW
        mask[above > 0] = CLOUD_MEDIUM
        mask[above > _ONSET + _RAMP] = CLOUD_HIGH
        return Sky(haze, _ramp(above), _ramp(thin), _ramp(shadow), mask)

    def s2_depth_m(self, x_m: F32, y_m: F32, day: int) -> F32:
        """Distance to the edge of the Sentinel-2 swath, metres; negative outside. Even days have none."""
        if day % 2 == 0:
            return np.full(x_m.shape, np.inf, np.float32)
        towards_edge = np.float32(self.s2_side(day)) * _across(x_m, y_m, self.s2_tilt_deg)
        return np.float32(self.s2_edge_m) - towards_edge

    def s2_side(self, day: int) -> int:
        """Where an odd day's swath ends: 1 in the east, -1 in the west."""
        return 1 if day % 4 == 1 else -1

    @property
    def s2_tilt_deg(self) -> float:
        """Tilt of the swath's edge against north, degrees counter-clockwise."""
        return -_SWATH_TILT_DEG

    @property
    def s2_edge_m(self) -> float:
        """Distance of the odd days' swath edge from the centre, metres."""
        return 0.42 * 1000 * self.spec.width_km

    def s1_depth_m(self, x_m: F32, y_m: F32, day: int) -> F32:
        """Distance to the nearer edge of the Sentinel-1 swath, metres; negative outside.

        The swath is a slanted strip that cuts two corners: other ones for ascending and descending passes.
        """
        across = _across(x_m, y_m, self.s1_tilt_deg(day))
        return np.float32(self.s1_half_swath_m) - np.abs(across)

    def s1_tilt_deg(self, day: int) -> float:
        """Tilt of the swath against north, degrees counter-clockwise."""
        return _SWATH_TILT_DEG if day % 2 == 0 else -_SWATH_TILT_DEG

    @property
    def s1_half_swath_m(self) -> float:
        """Half the width of the swath, metres: its edges pass inside the area's corners."""
        tilt = math.radians(_SWATH_TILT_DEG)
        return 0.95 * 500 * (self.spec.width_km * math.cos(tilt) + self.spec.height_km * math.sin(tilt))


def _across(x_m: F32, y_m: F32, tilt_deg: float) -> F32:
    tilt = math.radians(tilt_deg)
    return x_m * np.float32(math.cos(tilt)) + y_m * np.float32(math.sin(tilt))


def _ramp(above: F32) -> F32:
    opacity: F32 = np.clip((above - _ONSET) / _RAMP, 0, 1)
    return opacity
