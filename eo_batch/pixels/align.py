"""Bring one source image onto a block's pixel grid: by copying where grids nest, else by one resampling.

Legend: y rows (downwards), x columns.
"""

from dataclasses import dataclass, replace

import numpy as np

from eo_batch.core.scenes import Affine6
from eo_batch.core.sensors import Resampling
from eo_batch.pixels.grids import Mask, PixelGrid, Pixels, SourceImage, nesting_ratio, pixel_size
from eo_batch.pixels.warp import MIN_WEIGHT, Warp, cast


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
    k = averaged(source, grid, method)
    if k == 1:
        warp = Warp(source, source.pixels_yx.dtype, grid, method)
        warp.put(0, source.pixels_yx, source.valid_yx)
        return Aligned(*warp.rows(0, grid.rows), "nearest" if method == "nearest" else "bilinear")
    inner = align(source, refined(grid, k), "bilinear")
    pixels, valid = block_mean(inner.pixels_yx, inner.valid_yx, k)
    return Aligned(pixels, valid, f"averaged {k}x")


def averaged(source: SourceImage, grid: PixelGrid, method: Resampling) -> int:
    """How many resampled pixels along a side of one of the grid's are averaged: measurements in finer pixels are."""
    return 1 if method == "nearest" else max(1, round(grid.pixel / pixel_size(source, grid)))


def refined(grid: PixelGrid, k: int) -> PixelGrid:
    """The grid with k x k pixels for each of its own."""
    return replace(grid, pixel=grid.pixel / k, rows=grid.rows * k, cols=grid.cols * k)


def block_mean(pixels_yx: Pixels, valid_yx: Mask, k: int) -> tuple[Pixels, Mask]:
    """Means of the valid ones of k x k pixels, valid where at least half of them are; in the input's dtype, integers
    rounded, halves to even. The image is made of whole blocks."""
    count = np.zeros((pixels_yx.shape[0] // k, pixels_yx.shape[1] // k), np.int32)
    total = np.zeros(count.shape)
    for row in range(k):
        for col in range(k):
            known = valid_yx[row::k, col::k]
            count += known
            np.add(total, pixels_yx[row::k, col::k], out=total, where=known)
    valid = count >= MIN_WEIGHT * k * k
    return cast(np.divide(total, count, out=np.zeros(count.shape), where=valid), pixels_yx.dtype), valid


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


def _scaled(transform: Affine6, factor: float) -> Affine6:
    a, b, c, d, e, f = transform
    return a * factor, b * factor, c, d * factor, e * factor, f
