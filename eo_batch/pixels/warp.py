"""An image looked up from the pixels of a grid that does not nest with its own. Legend: y rows, x columns."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.sensors import Resampling
from eo_batch.core.utm import WGS84, Floats
from eo_batch.pixels.grids import Mask, PixelGrid, Pixels, SourceImage
from eo_batch.pixels.positions import between, controls, to_pixels

MIN_WEIGHT = 0.5
"""A resampled pixel is valid if at least this share of its kernel's weight lies on valid pixels."""
_STRIP_PX = 2**16
"""Pixels that are resampled at a time: few enough for a core's cache."""


class Warp:
    """An image on a grid, resampled some rows at a time when they are asked for.

    Of `source` only shape and place are looked at: `put` brings the pixels, all of them before any row of the grid is
    asked for.
    """

    def __init__(
        self,
        source: SourceImage,
        dtype: np.dtype[Any],
        grid: PixelGrid,
        method: Resampling,
        room: Pixels | None = None,
    ) -> None:
        """dtype: of the pixels. method: `nearest`, or else bilinear.

        room: an array of the source's shape that may be written over, row by row as pixels are put; used where its type
        fits. Touching as much memory for the first time can take as long as resampling.
        """
        self._grid, self._epsg, self._transform = grid, source.epsg, source.transform
        self._shape, self._dtype = source.pixels_yx.shape, dtype
        self._values: _Nearest | _Bilinear = (
            _Nearest(self._shape, dtype) if method == "nearest" else _Bilinear(self._shape, dtype, room)
        )

    def put(self, first: int, pixels_yx: Pixels, valid_yx: Mask) -> None:
        """The source's rows from `first` on."""
        self._values.put(first, pixels_yx, valid_yx)

    def rows(self, first: int, last: int) -> tuple[Pixels, Mask]:
        """The grid's rows `first` to `last` (exclusive), and which pixels are valid."""
        pixels = np.zeros((last - first, self._grid.cols), self._dtype)
        valid = np.zeros(pixels.shape, bool)
        step = max(_STRIP_PX // self._grid.cols, 1)
        for start in range(first, last, step):
            strip = slice(start - first, min(start + step, last) - first)
            found = self._values.at(*self._positions(start, strip.stop + first))
            if found is not None:
                pixels[strip], valid[strip] = found
        return pixels, valid

    def _positions(self, first: int, last: int) -> tuple[Floats, Floats]:
        """Where the centres of some rows' pixels lie in the source, pixels from its corner: (column, row)."""
        col_yx, row_yx = to_pixels(self._transform, *_centres(self._grid, self._epsg, first, last))
        if self._epsg == WGS84 != self._grid.epsg:  # whole turns towards the window's middle
            turn, middle = 360.0 / abs(self._transform[0]), self._shape[1] / 2
            col_yx = middle + (col_yx - middle + turn / 2) % turn - turn / 2
        return col_yx, row_yx


@lru_cache(maxsize=32)
def _centres(grid: PixelGrid, epsg: int, first: int, last: int) -> tuple[Floats, Floats]:
    """Coordinates (x, y) of the centres of a grid's rows `first` to `last` (exclusive).

    Kept for the next scenes: of one CRS all ask for the same, each thread for a few rows again and again.
    """
    if epsg == grid.epsg:
        x = grid.left + (np.arange(grid.cols) + 0.5) * grid.pixel
        y = grid.top - (np.arange(first, last) + 0.5) * grid.pixel
        return tuple(np.meshgrid(x, y))
    x_cc, y_cc = _controls(grid, epsg)
    return between(x_cc, slice(first, last), grid.cols), between(y_cc, slice(first, last), grid.cols)


@lru_cache(maxsize=4)
def _controls(grid: PixelGrid, epsg: int) -> tuple[Floats, Floats]:
    return controls(grid.transform, grid.shape, 0.5, grid.epsg, epsg)


class _Nearest:
    """The pixel in which a position lies."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._pixels, self._valid = np.zeros(shape, dtype), np.zeros(shape, bool)

    def put(self, first: int, pixels_yx: Pixels, valid_yx: Mask) -> None:
        rows = slice(first, first + len(pixels_yx))
        self._valid[rows] = valid_yx
        np.copyto(self._pixels[rows], pixels_yx, where=valid_yx)

    def at(self, col_yx: Floats, row_yx: Floats) -> tuple[Pixels, Mask] | None:
        """Pixels at positions (from the source's corner) and their validity; None where all lie outside."""
        rows, cols = self._pixels.shape
        inside = (col_yx >= 0) & (col_yx < cols) & (row_yx >= 0) & (row_yx < rows)
        if not inside.any():
            return None
        if not inside.all():
            col_yx, row_yx = np.where(inside, col_yx, 0), np.where(inside, row_yx, 0)
        at = row_yx.astype(np.intp) * cols + col_yx.astype(np.intp)
        valid = self._valid.take(at) & inside
        return np.where(valid, self._pixels.take(at), self._pixels.dtype.type(0)), valid


class _Bilinear:
    """The mean of the four pixels around a position, by distance.

    Pixels that are not valid are NaN: where none of the four is, as nearly everywhere, nothing else is looked at.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], room: Pixels | None) -> None:
        narrow = dtype == np.float32 or dtype.itemsize <= 2
        held = np.dtype(np.float32 if narrow else np.float64)
        fits = room is not None and room.dtype == held and room.flags.c_contiguous and room.flags.writeable
        self._dtype = dtype
        self._values: Pixels = room if room is not None and fits else np.empty(shape, held)

    def put(self, first: int, pixels_yx: Pixels, valid_yx: Mask) -> None:
        rows = self._values[first : first + len(pixels_yx)]
        rows[...] = pixels_yx
        if not valid_yx.all():
            rows[~valid_yx] = np.nan

    def at(self, col_yx: Floats, row_yx: Floats) -> tuple[Pixels, Mask] | None:
        """As `_Nearest.at`."""
        x, y = col_yx - 0.5, row_yx - 0.5  # from the centre of the first pixel
        rows, cols = self._values.shape
        amid = (x >= 0) & (x < cols - 1) & (y >= 0) & (y < rows - 1)
        if amid.all():
            values = self._between(x, y)
            near, valid = amid, ~np.isnan(values)
        else:
            near = (x > -1) & (x < cols) & (y > -1) & (y < rows)
            if not near.any():
                return None
            values, valid = np.zeros(x.shape, self._values.dtype), np.zeros(x.shape, bool)
            values[amid] = self._between(x[amid], y[amid])
            valid[amid] = ~np.isnan(values[amid])
        odd = np.flatnonzero(near & ~valid)
        if len(odd):
            values.flat[odd], valid.flat[odd] = self._of_some(x.ravel()[odd], y.ravel()[odd])
        return cast(np.where(valid, values, values.dtype.type(0)), self._dtype), valid

    def _between(self, x: Floats, y: Floats) -> Any:
        """The mean of four pixels that are there, NaN where one is not valid."""
        if not x.size:
            return np.zeros(x.shape, self._values.dtype)
        left, top = x.astype(np.intp), y.astype(np.intp)
        at = top * self._values.shape[1] + left
        right, down = ((along - whole).astype(self._values.dtype) for along, whole in ((x, left), (y, top)))
        above, below, beyond, across = (self._around(at, step) for step in range(4))
        for low, high in ((above, below), (beyond, across)):
            high -= low
            high *= right
            low += high
        beyond -= above
        beyond *= down
        above += beyond
        return above

    def _around(self, at: NDArray[np.intp], step: int) -> Any:
        """One of the four: above left, above right, below left, below right."""
        return self._values.ravel()[step % 2 + step // 2 * self._values.shape[1] :].take(at)

    def _of_some(self, x: Floats, y: Floats) -> tuple[Floats, Mask]:
        """The mean of those of the four that are valid, and whether they weigh enough."""
        total, weight = np.zeros(x.shape), np.zeros(x.shape)
        left, top = np.floor(x), np.floor(y)
        for step in range(4):
            col, row = left + step % 2, top + step // 2
            share = (1 - np.abs(x - col)) * (1 - np.abs(y - row))
            there = (col >= 0) & (col < self._values.shape[1]) & (row >= 0) & (row < self._values.shape[0])
            value = np.full(x.shape, np.nan)
            value[there] = self._values[row[there].astype(np.intp), col[there].astype(np.intp)]
            counts = ~np.isnan(value) & (share > 0)
            total += np.where(counts, share * value, 0)
            weight += share * counts
        valid = weight >= MIN_WEIGHT - 1e-6
        return np.divide(total, weight, out=np.zeros(x.shape), where=valid), valid


def cast(values: Floats, dtype: np.dtype[Any]) -> Pixels:
    """Values in another type; whole numbers are rounded, halves to even."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return np.clip(np.rint(values), info.min, info.max).astype(dtype)
    return values.astype(dtype, copy=False)
