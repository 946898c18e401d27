"""Bring one source image onto a block's pixel grid: by copying where grids nest, else by one resampling.

Legend: y rows (downwards), x columns.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.scenes import Affine6
from eo_batch.core.sensors import Resampling
from eo_batch.core.utm import WGS84, Floats, project

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]

_NEST_TOLERANCE_PX = 1e-3
"""Grids whose corners agree to this share of a pixel nest; published transforms carry rounding of this order."""
_CONTROL_STEP_PX = 8
"""Distance of the points whose coordinates are transformed exactly; between them, coordinates are interpolated.
Up to latitude 84 the curvature over 8 pixels stays below 2e-4 pixel for pixels of 10 m, 2e-3 for those of 120 m."""
_MIN_WEIGHT = 0.5
"""A resampled pixel is valid if at least this share of its kernel's weight lies on valid pixels."""


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


@dataclass(frozen=True)
class Aligned:
    """An image on the block's grid."""

    pixels_yx: Pixels
    """In the source's dtype; float64 results are rounded to integer dtypes, halves to even."""
    valid_yx: Mask
    how: str
    """`copied`, `repeated 2x`, `averaged 2x` or the resampling method."""


def align(source: SourceImage, grid: PixelGrid, method: Resampling) -> Aligned:
    """The source on `grid`; pixels that it does not reach are invalid.

    method: used where the grids do not nest. `nearest` for classes, which can't be averaged; `bilinear` for
    measurements, which are averaged where source pixels are finer than the grid's. (`mean` and `sum`: `areas.py`.)
    """
    ratio = nesting_ratio(source, grid)
    if ratio == 1.0:
        return _paste(source, grid, "copied")
    if ratio is not None and ratio > 1 and method == "nearest":
        k = round(ratio)
        finer = SourceImage(
            np.repeat(np.repeat(source.pixels_yx, k, 0), k, 1),
            np.repeat(np.repeat(source.valid_yx, k, 0), k, 1),
            source.epsg,
            _scaled(source.transform, 1 / k),
        )
        return _paste(finer, grid, f"repeated {k}x")
    k = max(1, round(grid.pixel / pixel_size(source, grid)))
    if method == "nearest" or k == 1:
        pixels, valid = _resample(source, grid, "nearest" if method == "nearest" else "bilinear")
        return Aligned(pixels, valid, "nearest" if method == "nearest" else "bilinear")
    fine = replace(grid, pixel=grid.pixel / k, rows=grid.rows * k, cols=grid.cols * k)
    inner = align(source, fine, "bilinear")
    pixels, valid = _block_mean(inner.pixels_yx, inner.valid_yx, k)
    return Aligned(pixels, valid, f"averaged {k}x")


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


def _paste(source: SourceImage, grid: PixelGrid, how: str) -> Aligned:
    pixels = np.zeros(grid.shape, source.pixels_yx.dtype)
    valid = np.zeros(grid.shape, bool)
    _, _, c, _, _, f = source.transform
    row, col = round((grid.top - f) / grid.pixel), round((c - grid.left) / grid.pixel)
    rows, cols = source.pixels_yx.shape
    r0, r1 = max(row, 0), min(row + rows, grid.rows)
    c0, c1 = max(col, 0), min(col + cols, grid.cols)
    if r0 < r1 and c0 < c1:
        window = (slice(r0 - row, r1 - row), slice(c0 - col, c1 - col))
        pixels[r0:r1, c0:c1] = source.pixels_yx[window]
        valid[r0:r1, c0:c1] = source.valid_yx[window]
    return Aligned(pixels, valid, how)


def _resample(source: SourceImage, grid: PixelGrid, method: Resampling) -> tuple[Pixels, Mask]:
    col_yx, row_yx = _source_position(source, grid)
    rows, cols = source.pixels_yx.shape
    inside = (col_yx >= 0) & (col_yx < cols) & (row_yx >= 0) & (row_yx < rows)
    if method == "nearest":
        r = np.clip(np.floor(np.where(inside, row_yx, 0)).astype(np.intp), 0, rows - 1)
        c = np.clip(np.floor(np.where(inside, col_yx, 0)).astype(np.intp), 0, cols - 1)
        valid = inside & source.valid_yx[r, c]
        return np.where(valid, source.pixels_yx[r, c], 0).astype(source.pixels_yx.dtype), valid
    row_f, col_f = np.where(inside, row_yx - 0.5, 0), np.where(inside, col_yx - 0.5, 0)
    r0, c0 = np.floor(row_f).astype(np.intp), np.floor(col_f).astype(np.intp)
    dr, dc = row_f - r0, col_f - c0
    values = np.where(source.valid_yx, source.pixels_yx, 0).astype(np.float64)
    total = np.zeros(grid.shape)
    weight = np.zeros(grid.shape)
    for step_r, weight_r in ((0, 1 - dr), (1, dr)):
        for step_c, weight_c in ((0, 1 - dc), (1, dc)):
            r, c = r0 + step_r, c0 + step_c
            exists = (r >= 0) & (r < rows) & (c >= 0) & (c < cols)
            r, c = np.clip(r, 0, rows - 1), np.clip(c, 0, cols - 1)
            w = weight_r * weight_c * (exists & source.valid_yx[r, c])
            total += w * values[r, c]
            weight += w
    valid = inside & (weight >= _MIN_WEIGHT - 1e-12)
    mean = np.divide(total, weight, out=np.zeros(grid.shape), where=valid)
    return _cast(mean, source.pixels_yx.dtype), valid


def _source_position(source: SourceImage, grid: PixelGrid) -> tuple[Floats, Floats]:
    """Position of each grid pixel's centre in the source, pixels from its window's corner: (column, row)."""
    x = grid.left + (np.arange(grid.cols) + 0.5) * grid.pixel
    y = grid.top - (np.arange(grid.rows) + 0.5) * grid.pixel
    if source.epsg == grid.epsg:
        x_yx, y_yx = np.meshgrid(x, y)
        return to_pixels(source.transform, x_yx, y_yx)
    at_col, at_row = controls(grid.cols), controls(grid.rows)
    control_x, control_y = np.meshgrid(grid.left + (at_col + 0.5) * grid.pixel, grid.top - (at_row + 0.5) * grid.pixel)
    exact_x, exact_y = project(grid.epsg, source.epsg, control_x, control_y)
    if source.epsg == WGS84:  # no jump within the grid, or what is interpolated between would be anywhere
        exact_x = exact_x[0, 0] + (exact_x - exact_x[0, 0] + 180) % 360 - 180
    col_cc, row_cc = to_pixels(source.transform, exact_x, exact_y)
    col_yx, row_yx = (between(values, at_row, at_col, grid.rows, grid.cols) for values in (col_cc, row_cc))
    if source.epsg == WGS84:  # whole turns towards the window's middle
        turn, middle = 360.0 / abs(source.transform[0]), source.pixels_yx.shape[1] / 2
        col_yx = middle + (col_yx - middle + turn / 2) % turn - turn / 2
    return col_yx, row_yx


def controls(length: int) -> Floats:
    """Positions of pixels whose coordinates are transformed exactly, along a side of `length` pixels."""
    count = max(2, -(-length // _CONTROL_STEP_PX) + 1)
    return np.linspace(0.0, max(length - 1, 1), count)


def between(values_rc: Floats, at_row: Floats, at_col: Floats, rows: int, cols: int) -> Floats:
    """Bilinear interpolation of values at such positions to all pixels, (rows, cols)."""
    row_pos = np.arange(rows) * ((len(at_row) - 1) / at_row[-1])
    col_pos = np.arange(cols) * ((len(at_col) - 1) / at_col[-1])
    r0 = np.minimum(row_pos.astype(np.intp), len(at_row) - 2)
    c0 = np.minimum(col_pos.astype(np.intp), len(at_col) - 2)
    dr, dc = (row_pos - r0)[:, None], (col_pos - c0)[None, :]
    along = values_rc[r0] * (1 - dr) + values_rc[r0 + 1] * dr
    result: Floats = along[:, c0] * (1 - dc) + along[:, c0 + 1] * dc
    return result


def to_pixels(transform: Affine6, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Position in a pixel grid, pixels from its corner: (column, row)."""
    a, b, c, d, e, f = transform
    det = a * e - b * d
    return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det


def _block_mean(pixels_yx: Pixels, valid_yx: Mask, k: int) -> tuple[Pixels, Mask]:
    rows, cols = pixels_yx.shape[0] // k, pixels_yx.shape[1] // k
    count = valid_yx.reshape(rows, k, cols, k).sum((1, 3))
    total = np.where(valid_yx, pixels_yx, 0).astype(np.float64).reshape(rows, k, cols, k).sum((1, 3))
    valid = count >= _MIN_WEIGHT * k * k
    mean = np.divide(total, count, out=np.zeros((rows, cols)), where=valid)
    return _cast(mean, pixels_yx.dtype), valid


def _scaled(transform: Affine6, factor: float) -> Affine6:
    a, b, c, d, e, f = transform
    return a * factor, b * factor, c, d * factor, e * factor, f


def _cast(values: Floats, dtype: np.dtype[Any]) -> Pixels:
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.rint(values), info.min, info.max).astype(dtype)
    return values.astype(dtype)
