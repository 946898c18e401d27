"""Pixel grids of blocks and of files. Legend: y rows (downwards), x columns."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.scenes import Affine6
from eo_batch.core.utm import project

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
_NEST_TOLERANCE_PX = 1e-3
"""Grids whose corners agree to this share of a pixel nest; published transforms carry rounding of this order."""


@dataclass(frozen=True)
class PixelGrid:
    """A north-up grid of square pixels."""

    epsg: int
    left: float
    """x of the left edge, metres or degrees of `epsg`."""
    top: float
    """y of the top edge."""
    pixel: float
    """Side of a pixel, units of `epsg`."""
    rows: int
    cols: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.cols

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max)."""
        return self.left, self.top - self.rows * self.pixel, self.left + self.cols * self.pixel, self.top

    @property
    def transform(self) -> Affine6:
        """Corner of the first pixel and pixel sizes."""
        return self.pixel, 0.0, self.left, 0.0, -self.pixel, self.top

    def grown(self, pixels: int) -> "PixelGrid":
        """The grid with so many more pixels on every side."""
        more, reach = 2 * pixels, pixels * self.pixel
        return replace(self, left=self.left - reach, top=self.top + reach, rows=self.rows + more, cols=self.cols + more)


@dataclass(frozen=True)
class SourceImage:
    """One band of one file over a window, in the file's own grid."""

    pixels_yx: Pixels
    valid_yx: Mask
    epsg: int
    transform: Affine6
    """Corner of the window's first pixel and pixel sizes."""


def outline_in(grid: PixelGrid, epsg: int, points: int = 33) -> tuple[float, float, float, float]:
    """Bounds of a grid's outline in another CRS; NaN-free, or infinite where the projection is undefined."""
    x_min, y_min, x_max, y_max = grid.bounds
    along = np.linspace(0.0, 1.0, points)
    x = np.concatenate([x_min + along * (x_max - x_min)] * 2 + [np.full(points, x_min), np.full(points, x_max)])
    y = np.concatenate([np.full(points, y_min), np.full(points, y_max)] + [y_min + along * (y_max - y_min)] * 2)
    out_x, out_y = project(grid.epsg, epsg, x, y)
    return float(out_x.min()), float(out_y.min()), float(out_x.max()), float(out_y.max())


def pixel_size(source: SourceImage, grid: PixelGrid) -> float:
    """The source's pixel size at the grid's centre, in units of the grid."""
    if source.epsg == grid.epsg:
        return abs(source.transform[0])
    x_min, y_min, x_max, y_max = grid.bounds
    centre = np.array([(x_min + x_max) / 2]), np.array([(y_min + y_max) / 2])
    x, y = project(grid.epsg, source.epsg, *centre)
    a, _, _, _, e, _ = source.transform
    edge_x, edge_y = project(source.epsg, grid.epsg, x + a, y)
    side_x, side_y = project(source.epsg, grid.epsg, x, y + e)
    wide = float(np.hypot(edge_x - centre[0], edge_y - centre[1])[0])
    high = float(np.hypot(side_x - centre[0], side_y - centre[1])[0])
    return max(wide, high)


def nesting_ratio(source: SourceImage, grid: PixelGrid) -> float | None:
    """Source pixel / grid pixel if the source's pixel edges fall on the grid's, and the ratio is 1, 2, 3, …"""
    a, b, c, d, e, f = source.transform
    if source.epsg != grid.epsg or b or d or abs(a + e) > _NEST_TOLERANCE_PX * abs(a):
        return None
    ratio = a / grid.pixel
    whole = round(ratio)
    rows, cols = source.pixels_yx.shape
    if whole < 1 or abs(ratio - whole) * max(rows, cols) > _NEST_TOLERANCE_PX:
        return None
    for offset in ((c - grid.left) / grid.pixel, (grid.top - f) / grid.pixel):
        if abs(offset - round(offset)) > _NEST_TOLERANCE_PX:
            return None
    return float(whole)
