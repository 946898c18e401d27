"""Points and polygons in longitude and latitude on a block's grid. Legend: y rows, x columns, n points."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from eo_batch.core.sensors import Kind
from eo_batch.core.utm import WGS84, Floats, project, zone_of_epsg
from eo_batch.pixels.grids import PixelGrid

_NEAR_DEG = 1.0
"""How far around a grid boxes are looked at."""
_SEGMENT_DEG = 0.001
"""Longest piece of a polygon's edge that is projected as a straight line; its sagitta stays below a millimetre."""


def draw(
    geometries: NDArray[Any], bounds: tuple[float, float, float, float], kind: Kind, grid: PixelGrid
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pixels of a kind of vectors, and which of them a file speaks of whose box is `bounds`, degrees; both (y, x)."""
    points = kind == "points"
    pixels = count_points(shapely.get_coordinates(geometries), grid) if points else cover_polygons(geometries, grid)
    return pixels, meets(bounds, grid)


def count_points(lonlat_n2: Floats, grid: PixelGrid) -> NDArray[np.float32]:
    """Points in each pixel, (y, x). A pixel holds its western and southern edge, so every point lies in exactly one.

    Positions that occur twice count twice. A point counts in the UTM zone of its longitude only: chips of two zones
    that share ground at the zones' edge do not both count it.
    """
    zone = zone_of_epsg(grid.epsg)
    lon, lat = lonlat_n2[:, 0], lonlat_n2[:, 1]
    own = lonlat_n2[((lon - zone.west) % 360.0 < 6.0) & ((lat >= 0) == zone.north)]
    x, y = project(WGS84, grid.epsg, own[:, 0], own[:, 1])
    # Counted from the zone's origin, as for every other block: rounding then can't lose a point between two blocks.
    col = np.floor(x / grid.pixel) - round(grid.left / grid.pixel)
    row = round(grid.top / grid.pixel) - 1 - np.floor(y / grid.pixel)
    inside = (row >= 0) & (row < grid.rows) & (col >= 0) & (col < grid.cols)
    at = (row[inside] * grid.cols + col[inside]).astype(np.intp)
    return np.bincount(at, minlength=grid.rows * grid.cols).reshape(grid.shape).astype(np.float32)


def cover_polygons(polygons: NDArray[Any], grid: PixelGrid) -> NDArray[np.float32]:
    """Share of each pixel that polygons cover, (y, x), exact; ground under several of them counts once."""
    lines = shapely.segmentize(shapely.make_valid(polygons), _SEGMENT_DEG)
    flat = shapely.transform(lines, lambda xy: np.column_stack(project(WGS84, grid.epsg, *xy.T)))
    x_min, y_min, x_max, y_max = grid.bounds
    near = [shapely.clip_by_rect(shape, x_min, y_min, x_max, y_max) for shape in flat]
    out = np.zeros(grid.shape, np.float32)
    for rows, cols, share in _quarters(shapely.union_all(near), grid, (0, grid.rows), (0, grid.cols)):
        out[rows, cols] = share
    return out


def _quarters(
    shape: Any, grid: PixelGrid, rows: tuple[int, int], cols: tuple[int, int]
) -> Iterator[tuple[slice, slice, float]]:
    """Rectangles of pixels that are covered alike; where an edge runs through, single pixels."""
    if shape.is_empty:
        return
    (r0, r1), (c0, c1) = rows, cols
    share = shape.area / ((r1 - r0) * (c1 - c0) * grid.pixel**2)
    if share > 1 - 1e-12 or (r1 - r0, c1 - c0) == (1, 1):
        yield slice(r0, r1), slice(c0, c1), min(share, 1.0)
        return
    if r1 - r0 >= c1 - c0:
        middle = (r0 + r1) // 2
        parts = [((r0, middle), cols), ((middle, r1), cols)]
    else:
        middle = (c0 + c1) // 2
        parts = [(rows, (c0, middle)), (rows, (middle, c1))]
    for (a, b), (c, d) in parts:
        x0, x1 = grid.left + c * grid.pixel, grid.left + d * grid.pixel
        y0, y1 = grid.top - b * grid.pixel, grid.top - a * grid.pixel
        yield from _quarters(shape.intersection(shapely.box(x0, y0, x1, y1)), grid, (a, b), (c, d))


def meets(bounds: tuple[float, float, float, float], grid: PixelGrid) -> NDArray[np.bool_]:
    """Pixels that touch a box of longitudes and latitudes, (y, x): ground that a file speaks of."""
    lon, lat = _outline(*grid.bounds)
    lon, lat = project(grid.epsg, WGS84, lon, lat)
    lon = lon[0] + (lon - lon[0] + 180.0) % 360.0 - 180.0  # no jump within the grid
    left, right = float(lon.min()) - _NEAR_DEG, float(lon.max()) + _NEAR_DEG
    bottom, top = float(lat.min()) - _NEAR_DEG, float(lat.max()) + _NEAR_DEG
    cols = (np.arange(grid.cols) * grid.pixel + grid.left)[None, :]
    rows = (grid.top - np.arange(grid.rows) * grid.pixel)[:, None]
    found = np.zeros(grid.shape, bool)
    for turn in (-360.0, 0.0, 360.0):
        # Far from its zone a projection says nothing, so only what is near the grid is projected.
        west, east = max(bounds[0] + turn, left), min(bounds[2] + turn, right)
        south, north = max(bounds[1], bottom), min(bounds[3], top)
        if west <= east and south <= north:
            x, y = project(WGS84, grid.epsg, *_outline(west, south, east, north))
            across = (cols <= x.max()) & (cols + grid.pixel > x.min())
            found |= across & (rows >= y.min()) & (rows - grid.pixel <= y.max())
    return found


def _outline(x_min: float, y_min: float, x_max: float, y_max: float) -> tuple[Floats, Floats]:
    """Points along the edges of a box."""
    along = np.linspace(0.0, 1.0, 33)
    x = np.concatenate([x_min + along * (x_max - x_min)] * 2 + [np.full(33, x_min), np.full(33, x_max)])
    y = np.concatenate([np.full(33, y_min), np.full(33, y_max)] + [y_min + along * (y_max - y_min)] * 2)
    return x, y
