"""Windows of rasters: which pixels cover some bounds, and the image that a read gives."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.scenes import Affine6

Bounds = tuple[float, float, float, float]
"""(x_min, y_min, x_max, y_max)."""


@dataclass(frozen=True)
class RawImage:
    """Pixels of one band over a window, as the file holds them."""

    pixels_yx: NDArray[Any]
    mask_yx: NDArray[np.bool_] | None
    """The file's own mask, if it has one; True is valid."""
    epsg: int
    transform: Affine6
    """Corner of the window's first pixel and pixel sizes."""
    nodata: float | None
    """As the file's header declares it."""
    bytes_in: int
    """Bytes fetched for this read."""
    requests: int


class BoundsOf(Protocol):
    """Bounds in the CRS of an EPSG code."""

    def __call__(self, epsg: int, /) -> Bounds: ...


def window_of(
    transform: Affine6, height: int, width: int, bounds: Bounds, margin_px: int
) -> tuple[int, int, int, int] | None:
    """(row, column, rows, columns) of the pixels that cover `bounds` plus a margin, cut at the raster's edge."""
    a, b, c, d, e, f = transform
    det = a * e - b * d
    x_min, y_min, x_max, y_max = bounds
    if not np.isfinite(bounds).all() or det == 0:
        return None
    corners = [(x_min, y_min), (x_min, y_max), (x_max, y_min), (x_max, y_max)]
    cols = [(e * (x - c) - b * (y - f)) / det for x, y in corners]
    rows = [(a * (y - f) - d * (x - c)) / det for x, y in corners]
    # Coordinates that agree with a pixel edge up to rounding must not pull in another row or column.
    r0, r1 = int(np.floor(min(rows) + 1e-6)) - margin_px, int(np.ceil(max(rows) - 1e-6)) + margin_px
    c0, c1 = int(np.floor(min(cols) + 1e-6)) - margin_px, int(np.ceil(max(cols) - 1e-6)) + margin_px
    r0, r1, c0, c1 = max(r0, 0), min(r1, height), max(c0, 0), min(c1, width)
    return (r0, c0, r1 - r0, c1 - c0) if r0 < r1 and c0 < c1 else None


def moved(transform: Affine6, row: float, col: float) -> Affine6:
    """The transform of a window that begins at (row, col)."""
    a, b, c, d, e, f = transform
    return a, b, c + a * col + b * row, d, e, f + d * col + e * row
