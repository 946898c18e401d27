"""UTM zones as regular six-degree strips, one EPSG code a zone and hemisphere.

The Norway and Svalbard exceptions of MGRS are left out on purpose: they move tile names, not the
projection, and regular strips give every longitude exactly one zone.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import Polygon, box

Floats = NDArray[np.float64]
WGS84 = 4326
"""EPSG code of longitude and latitude."""


@dataclass(frozen=True, order=True)
class Zone:
    """One UTM zone in one hemisphere."""

    number: int
    """1 to 60; zone 1 begins at 180° W."""
    north: bool
    """Whether the zone lies north of the equator."""

    @property
    def epsg(self) -> int:
        """EPSG code of WGS 84 / UTM."""
        return (32600 if self.north else 32700) + self.number

    @property
    def name(self) -> str:
        """Short name as in chip ids: `33n`, `05s`."""
        return f"{self.number:02d}{'n' if self.north else 's'}"

    @property
    def west(self) -> float:
        """Western edge, degrees of longitude."""
        return -180.0 + 6.0 * (self.number - 1)

    @property
    def strip(self) -> Polygon:
        """The zone's strip in longitude and latitude, degrees."""
        return box(self.west, 0.0, self.west + 6.0, 84.0) if self.north else box(self.west, -80.0, self.west + 6.0, 0.0)


def zone_of_epsg(epsg: int) -> Zone:
    """The zone of a UTM EPSG code. Raises ValueError for any other code."""
    base, number = divmod(epsg, 100)
    if base not in (326, 327) or not 1 <= number <= 60:
        raise ValueError(f"EPSG:{epsg} is not a WGS 84 UTM zone")
    return Zone(number, base == 326)


def zone_numbers(lon: Floats) -> NDArray[np.int64]:
    """Zone number of each longitude (degrees); 180° belongs to zone 60."""
    return np.clip(np.floor((np.asarray(lon) + 180.0) / 6.0).astype(np.int64) + 1, 1, 60)


@lru_cache(maxsize=256)
def transformer(source_epsg: int, target_epsg: int) -> Transformer:
    """Coordinate transformer with x, y (easting/longitude first) order."""
    return Transformer.from_crs(source_epsg, target_epsg, always_xy=True)


def project(epsg_from: int, epsg_to: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates of points in another CRS; same shapes as given. Points outside give inf."""
    if epsg_from == epsg_to:
        return np.asarray(x, float), np.asarray(y, float)
    out_x, out_y = transformer(epsg_from, epsg_to).transform(x, y)
    return np.asarray(out_x, float), np.asarray(out_y, float)
