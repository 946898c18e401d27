"""Windows of rasters: which pixels cover some bounds, and the image that a read gives."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.scenes import Affine6, Asset

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
    elsewhere: str = ""
    """Where the file lies and its catalogue does not say so (`elsewhere`)."""


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


def elsewhere(asset: Asset, epsg: int, transform: Affine6, shape: tuple[int, int]) -> str:
    """How a file's own grid differs from what its catalogue says; empty where they agree, or where it is silent.

    The file is believed, but by the catalogue it was decided for which blocks it is read. Half a pixel is no matter:
    catalogues round.
    """
    if asset.epsg is not None and asset.epsg != epsg:
        return f"its item says EPSG:{asset.epsg}, the file is in EPSG:{epsg}"
    if asset.transform is None or asset.shape is None:
        return ""
    for said, is_ in zip(_corners(asset.transform, asset.shape), _corners(transform, shape), strict=True):
        steps = np.subtract(said, is_) / max(abs(transform[0]), abs(transform[1]))
        if not (np.abs(steps) < 0.5).all():
            said_at, is_at = (", ".join(f"{value:.10g}" for value in corner) for corner in (said, is_))
            return f"its item says that a corner lies at {said_at}, the file has it at {is_at}"
    return ""


def _corners(transform: Affine6, shape: tuple[int, int]) -> list[tuple[float, float]]:
    """The first and the last corner of a raster."""
    first, last = moved(transform, 0, 0), moved(transform, *shape)
    return [(first[2], first[5]), (last[2], last[5])]


def moved(transform: Affine6, row: float, col: float) -> Affine6:
    """The transform of a window that begins at (row, col)."""
    a, b, c, d, e, f = transform
    return a, b, c + a * col + b * row, d, e, f + d * col + e * row
