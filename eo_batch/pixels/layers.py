"""One band of one scene on a block's grid, given out some rows at a time. Legend: y rows, x columns.

Where the grids nest, pixels are converted when they are asked for, a strip at a time that stays in a core's cache;
otherwise the whole band is resampled first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.sensors import Resampling
from eo_batch.pixels.align import PixelGrid, SourceImage, align, nesting_ratio

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
Convert = Callable[[Pixels, Mask], tuple[Pixels, Mask]]
"""From a file's pixels and the file's own mask to storage values and their validity, pixel by pixel."""


class Layer(Protocol):
    """One band of one scene."""

    def rows(self, first: int, last: int) -> tuple[Pixels, Mask]:
        """Pixels and validity of the block's rows `first` to `last` (exclusive); invalid beyond the scene."""
        ...


def layer_of(source: SourceImage, grid: PixelGrid, method: Resampling, convert: Convert) -> Layer:
    """A file's pixels on `grid`. Their validity in `source` is the file's own mask; `method` as for `align`.

    Pixels are converted before they are resampled: on dark ground the order changes the result.
    """
    ratio = nesting_ratio(source, grid)
    if ratio == 1.0 or (ratio is not None and method == "nearest"):
        return _Nested(source, grid, round(ratio), convert)
    pixels, valid = convert(source.pixels_yx, source.valid_yx)
    aligned = align(SourceImage(pixels, valid, source.epsg, source.transform), grid, method)
    return Whole(aligned.pixels_yx, aligned.valid_yx)


@dataclass(frozen=True)
class Whole:
    """An image that is on the grid already."""

    pixels_yx: Pixels
    valid_yx: Mask

    def rows(self, first: int, last: int) -> tuple[Pixels, Mask]:
        return self.pixels_yx[first:last], self.valid_yx[first:last]


@dataclass(frozen=True)
class _Nested:
    source: SourceImage
    grid: PixelGrid
    ratio: int
    """Pixels of the grid along one of the source's."""
    convert: Convert

    def rows(self, first: int, last: int) -> tuple[Pixels, Mask]:
        k, grid = self.ratio, self.grid
        _, _, left, _, _, top = self.source.transform
        row, col = round((grid.top - top) / grid.pixel), round((left - grid.left) / grid.pixel)
        height, width = self.source.pixels_yx.shape
        r0, r1 = max(first, row), min(last, row + height * k)
        c0, c1 = max(0, col), min(grid.cols, col + width * k)
        if r0 >= r1 or c0 >= c1:
            pixels, _ = self.convert(self.source.pixels_yx[:0, :0], self.source.valid_yx[:0, :0])
            return np.zeros((last - first, grid.cols), pixels.dtype), np.zeros((last - first, grid.cols), bool)
        within = (slice((r0 - row) // k, -((row - r1) // k)), slice((c0 - col) // k, -((col - c1) // k)))
        pixels, valid = self.convert(self.source.pixels_yx[within], self.source.valid_yx[within])
        if k > 1:
            cut = (slice((r0 - row) % k, (r0 - row) % k + r1 - r0), slice((c0 - col) % k, (c0 - col) % k + c1 - c0))
            pixels, valid = _repeated(pixels, k)[cut], _repeated(valid, k)[cut]
        if (r0, r1, c0, c1) == (first, last, 0, grid.cols):
            return pixels, valid
        at = (slice(r0 - first, r1 - first), slice(c0, c1))
        return _pasted(pixels, (last - first, grid.cols), at), _pasted(valid, (last - first, grid.cols), at)


def _repeated(image_yx: NDArray[Any], k: int) -> NDArray[Any]:
    return np.repeat(np.repeat(image_yx, k, 1), k, 0)


def _pasted(image_yx: NDArray[Any], shape: tuple[int, int], at: tuple[slice, slice]) -> NDArray[Any]:
    out = np.zeros(shape, image_yx.dtype)
    out[at] = image_yx
    return out
