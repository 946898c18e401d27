"""Which rasters cover the simulated planet: Sentinel-2 tiles, Sentinel-1 frames, degree tiles.

All grids are north-up. Dims: y row (southwards), x column.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box

from eo_batch.core.errors import SpecError
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.utm import WGS84, Zone, project, zone_numbers

F64 = NDArray[np.float64]

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Letters of MGRS, which leaves out I and O."""
_FRAME_ROWS = 2048
_LATITUDE_BANDS = "CDEFGHJKLMNPQRSTUVWX"


@dataclass(frozen=True)
class RasterGrid:
    """A north-up raster: pixel (row, col) covers x0 + col * dx …, y0 - row * dy … in its CRS."""

    epsg: int
    x0: float
    """Western edge, units of the CRS."""
    y0: float
    """Northern edge, units of the CRS."""
    dx: float
    """Pixel width, units of the CRS."""
    dy: float
    """Pixel height, units of the CRS; positive."""
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients a, b, c, d, e, f as `proj:transform` has them."""
        return self.dx, 0.0, self.x0, 0.0, -self.dy, self.y0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max), units of the CRS."""
        return self.x0, self.y0 - self.height * self.dy, self.x0 + self.width * self.dx, self.y0

    @property
    def first_row(self) -> int:
        """Rows between the CRS's y = 0 and the northern edge, southwards: same ground, same number."""
        return -round(self.y0 / self.dy)

    @property
    def first_col(self) -> int:
        """Columns between the CRS's x = 0 and the western edge."""
        return round(self.x0 / self.dx)

    def coarser(self, factor: int) -> "RasterGrid":
        """The same ground with pixels `factor` times as large; `factor` must divide both sizes."""
        if self.height % factor or self.width % factor:
            raise ValueError(f"{self.shape} pixels can't be grouped by {factor}; pad the grid first")
        return replace(
            self,
            dx=self.dx * factor,
            dy=self.dy * factor,
            height=self.height // factor,
            width=self.width // factor,
        )

    def rows(self, start: int, stop: int) -> "RasterGrid":
        """Rows [start, stop) of the raster."""
        return replace(self, y0=self.y0 - start * self.dy, height=stop - start)

    def lonlat(self) -> tuple[F64, F64]:
        """Longitude and latitude of all pixel centres, degrees, shape (y, x) each."""
        x = self.x0 + (np.arange(self.width) + 0.5) * self.dx
        y = self.y0 - (np.arange(self.height) + 0.5) * self.dy
        xx, yy = np.meshgrid(x, y)
        return project(self.epsg, WGS84, xx, yy)

    def footprint(self) -> Polygon:
        """Outline in longitude and latitude, degrees, its edges cut into eight; longitudes go on beyond ±180."""
        outline = shapely.segmentize(box(*self.bounds), max(self.height * self.dy, self.width * self.dx) / 8)
        x, y = np.asarray(outline.exterior.coords).T
        lon, lat = project(self.epsg, WGS84, x, y)
        return Polygon(np.column_stack([lon - 360 * np.rint((lon - lon[0]) / 360), lat]))


@dataclass(frozen=True)
class S2Tile:
    """One Sentinel-2 tile of the planet."""

    name: str
    """MGRS-like: zone, latitude band, column letter, row letter."""
    index: int
    """Position in the list of all tiles."""
    grid: RasterGrid
    """Grid of the fine bands."""


@dataclass(frozen=True)
class S1Frame:
    """A piece of every Sentinel-1 pass that is delivered in one UTM zone."""

    slice: int
    """Position along the track, from the north."""
    grid: RasterGrid


def s2_tiles(spec: PlanetSpec) -> list[S2Tile]:
    """All tiles: each zone's own side of the planet, reaching about `overlap_km` into the neighbouring zone.

    Origins are multiples of twice the pixel size; neighbours overlap by exactly `overlap_km`.
    """
    coarse_m = 2 * spec.gsd_m
    side_m, overlap_m = round(spec.tile_km * 1000), round(spec.overlap_km * 1000)
    pitch_m = side_m - overlap_m
    band = _LATITUDE_BANDS[math.floor((spec.centre_lat + 80) / 8)]
    tiles: list[S2Tile] = []
    for zone, (x_min, y_min, x_max, y_max) in _zone_regions(spec):
        x0 = math.floor(x_min / coarse_m) * coarse_m
        y0 = math.ceil(y_max / coarse_m) * coarse_m
        columns = max(1, math.ceil((x_max - x0 - overlap_m) / pitch_m))
        rows = max(1, math.ceil((y0 - y_min - overlap_m) / pitch_m))
        if max(columns, rows) > len(_LETTERS):
            raise SpecError(f"tile_km={spec.tile_km:g} needs {columns} x {rows} tiles; use larger ones")
        for row in range(rows):
            for col in range(columns):
                size = side_m // spec.gsd_m
                origin = float(x0 + col * pitch_m), float(y0 - row * pitch_m)
                grid = RasterGrid(zone.epsg, *origin, spec.gsd_m, spec.gsd_m, size, size)
                name = f"{zone.number:02d}{band}{_LETTERS[col]}{_LETTERS[-1 - row]}"
                tiles.append(S2Tile(name, len(tiles), grid))
    return tiles


def s1_frames(spec: PlanetSpec) -> list[S1Frame]:
    """Frames of at most 2,048 rows, per UTM zone over the ground that its Sentinel-2 tiles must cover."""
    frames = []
    for zone, bounds in _zone_regions(spec):
        whole = _snapped(zone.epsg, bounds, spec.gsd_m)
        for number, start in enumerate(range(0, whole.height, _FRAME_ROWS)):
            frames.append(S1Frame(number, whole.rows(start, min(start + _FRAME_ROWS, whole.height))))
    return frames


def degree_tiles(spec: PlanetSpec, arcsec: float, size_deg: int = 1) -> list[tuple[str, RasterGrid]]:
    """(name, grid) of rasters in EPSG:4326, cut at multiples of `size_deg` degrees as global products are.

    Pixels are areas and divide the degree. Names are those of the south-western corner: `N48E012`.
    """
    west, south, east, north = spec.lonlat_bbox(spec.margin_km)
    per_deg = round(3600 / arcsec)
    step = 1 / per_deg
    found: list[tuple[str, RasterGrid]] = []
    for lat in range(math.floor(south / size_deg) * size_deg, math.ceil(north), size_deg):
        for lon in range(math.floor(west / size_deg) * size_deg, math.ceil(east), size_deg):
            # Whole pixels count from 0°, in integers, so that neighbouring tiles meet without a seam.
            x_first = max(math.floor(west * per_deg), lon * per_deg)
            x_last = min(math.ceil(east * per_deg), (lon + size_deg) * per_deg)
            y_first = max(math.floor(south * per_deg), lat * per_deg)
            y_last = min(math.ceil(north * per_deg), (lat + size_deg) * per_deg)
            if x_last <= x_first or y_last <= y_first:
                continue
            turn = -360 * math.floor((lon + 180) / 360)
            there = lon + turn
            name = f"{'N' if lat >= 0 else 'S'}{abs(lat):02d}{'E' if there >= 0 else 'W'}{abs(there):03d}"
            size = y_last - y_first, x_last - x_first
            left = x_first / per_deg + turn
            found.append((name, RasterGrid(WGS84, left, y_last / per_deg, step, step, *size)))
    return found


def centre_grid(spec: PlanetSpec) -> RasterGrid:
    """The whole planet in the UTM zone of its centre, with pixels of `gsd_m`."""
    number = int(zone_numbers(np.asarray([spec.centre_lon]))[0])
    zone = Zone(number, spec.centre_lat >= 0)
    return _snapped(zone.epsg, _utm_bounds(zone, spec.lonlat_bbox(spec.margin_km)), spec.gsd_m)


def _zone_regions(spec: PlanetSpec) -> Iterator[tuple[Zone, tuple[float, float, float, float]]]:
    """Each zone and the UTM bounds of its side of the planet, grown by `overlap_km` into its neighbours."""
    west, south, east, north = spec.lonlat_bbox(spec.margin_km)
    wider = spec.lonlat_bbox(spec.margin_km + spec.overlap_km)
    grow = west - wider[0]
    for strip in range(math.floor((west + 180) / 6), math.ceil((east + 180) / 6)):
        zone, edge = Zone(strip % 60 + 1, spec.centre_lat >= 0), 6.0 * strip - 180
        side = max(west, edge - grow), south, min(east, edge + 6 + grow), north
        yield zone, _utm_bounds(zone, side)


def _utm_bounds(zone: Zone, lonlat: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    outline = shapely.segmentize(box(*lonlat), 0.02)
    lon, lat = np.asarray(outline.exterior.coords).T
    x, y = project(WGS84, zone.epsg, lon, lat)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _snapped(epsg: int, bounds: tuple[float, float, float, float], gsd_m: int) -> RasterGrid:
    x_min, y_min, x_max, y_max = bounds
    step = 2 * gsd_m
    x0, x1 = math.floor(x_min / step) * step, math.ceil(x_max / step) * step
    y0, y1 = math.floor(y_min / step) * step, math.ceil(y_max / step) * step
    return RasterGrid(epsg, float(x0), float(y1), gsd_m, gsd_m, (y1 - y0) // gsd_m, (x1 - x0) // gsd_m)
