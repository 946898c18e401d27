"""One band of one scene on a block's grid, given out some rows at a time. Legend: y rows, x columns.

Pixels are brought onto the grid when they are asked for, a strip at a time that stays in a core's cache. Where the
grids nest they are converted then, too; otherwise all are converted first, since each may be needed for several.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.scenes import Affine6
from eo_batch.core.sensors import Resampling
from eo_batch.pixels.align import averaged, block_mean, refined
from eo_batch.pixels.grids import PixelGrid, SourceImage, nesting_ratio
from eo_batch.pixels.warp import Warp

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
_STRIP_PX = 2**16
"""Pixels that are converted at a time."""
Convert = Callable[[Pixels, Mask | None], tuple[Pixels, Mask]]
"""Pixels of a file and the file's own mask (None where it has none) to storage values and
their validity: each pixel by itself."""


class Raster(Protocol):
    """One band of one file over a window, in the file's own grid."""

    @property
    def pixels_yx(self) -> Pixels: ...
    @property
    def mask_yx(self) -> Mask | None: ...
    @property
    def epsg(self) -> int: ...
    @property
    def transform(self) -> Affine6: ...


@dataclass(frozen=True)
class Strip:
    """What a layer holds of some rows of the block."""

    at: tuple[slice, slice]
    """Rows, counted from the first one asked for, and columns of the block that lie within the scene."""
    pixels_yx: Pixels
    valid_yx: Mask


class Layer(Protocol):
    """One band of one scene."""

    def rows(self, first: int, last: int) -> Strip:
        """The block's rows `first` to `last` (exclusive)."""
        ...


def layer_of(source: Raster, grid: PixelGrid, method: Resampling, convert: Convert) -> Layer:
    """A file's pixels on `grid`; `method` as for `align`. The source's pixels may be written over.

    Pixels are converted before they are resampled: on dark ground the order changes the result.
    """
    whole = SourceImage(
        source.pixels_yx, np.broadcast_to(np.True_, source.pixels_yx.shape), source.epsg, source.transform
    )
    ratio = nesting_ratio(whole, grid)
    if ratio == 1.0 or (ratio is not None and method == "nearest"):
        return _Nested(source, grid, round(ratio), convert)
    k = averaged(whole, grid, method)
    if k > 1:
        return _Averaged(layer_of(source, refined(grid, k), method, convert), k, grid.cols)
    mask = source.mask_yx
    height, width = source.pixels_yx.shape
    step = max(_STRIP_PX // width, 1)
    warp = Warp(whole, convert(source.pixels_yx[:0], None)[0].dtype, grid, method, source.pixels_yx)
    for first in range(0, height, step):
        rows = slice(first, first + step)
        warp.put(first, *convert(source.pixels_yx[rows], None if mask is None else mask[rows]))
    return _Warped(warp)


@dataclass(frozen=True)
class Whole:
    """An image that is on the grid already."""

    pixels_yx: Pixels
    valid_yx: Mask

    def rows(self, first: int, last: int) -> Strip:
        at = (slice(0, last - first), slice(0, self.pixels_yx.shape[1]))
        return Strip(at, self.pixels_yx[first:last], self.valid_yx[first:last])


@dataclass(frozen=True)
class _Warped:
    warp: Warp

    def rows(self, first: int, last: int) -> Strip:
        pixels, valid = self.warp.rows(first, last)
        return Strip((slice(0, last - first), slice(0, pixels.shape[1])), pixels, valid)


@dataclass(frozen=True)
class _Averaged:
    fine: Layer
    """On a grid of k x k pixels for each."""
    k: int
    cols: int
    """Of the grid itself."""

    def rows(self, first: int, last: int) -> Strip:
        k = self.k
        part = self.fine.rows(first * k, last * k)
        shape = ((last - first) * k, self.cols * k)
        pixels, valid = np.zeros(shape, part.pixels_yx.dtype), np.zeros(shape, bool)
        pixels[part.at], valid[part.at] = part.pixels_yx, part.valid_yx
        return Strip((slice(0, last - first), slice(0, self.cols)), *block_mean(pixels, valid, k))


@dataclass(frozen=True)
class _Nested:
    source: Raster
    grid: PixelGrid
    ratio: int
    """Pixels of the grid along one of the source's."""
    convert: Convert

    def rows(self, first: int, last: int) -> Strip:
        k, grid = self.ratio, self.grid
        _, _, left, _, _, top = self.source.transform
        row, col = round((grid.top - top) / grid.pixel), round((left - grid.left) / grid.pixel)
        height, width = self.source.pixels_yx.shape
        r0, c0 = min(max(first, row), last), min(max(0, col), grid.cols)
        r1, c1 = max(min(last, row + height * k), r0), max(min(grid.cols, col + width * k), c0)
        if r0 == r1 or c0 == c1:  # the scene does not reach these rows
            r1, c1, within = r0, c0, (slice(0, 0), slice(0, 0))
        else:
            within = (slice((r0 - row) // k, -((row - r1) // k)), slice((c0 - col) // k, -((col - c1) // k)))
        mask = self.source.mask_yx
        pixels, valid = self.convert(self.source.pixels_yx[within], None if mask is None else mask[within])
        if k > 1:
            cut = (slice((r0 - row) % k, (r0 - row) % k + r1 - r0), slice((c0 - col) % k, (c0 - col) % k + c1 - c0))
            pixels, valid = repeated(pixels, k)[cut], repeated(valid, k)[cut]
        return Strip((slice(r0 - first, r1 - first), slice(c0, c1)), pixels, valid)


def repeated(image_yx: NDArray[Any], k: int) -> NDArray[Any]:
    """Each pixel k x k times."""
    rows, cols = image_yx.shape
    if k == 2 and image_yx.itemsize == 1:  # two bytes at once, in the processor's vector units
        pairs = image_yx.view(np.uint8).astype(np.uint16)
        pairs *= np.uint16(0x0101)
        wide = pairs.view(image_yx.dtype)
    else:
        wide = np.repeat(image_yx, k, 1)
    out = np.empty((rows, k, cols * k), image_yx.dtype)
    out[...] = wide[:, None]
    return out.reshape(rows * k, cols * k)
