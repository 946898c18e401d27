"""Bands computed from composited ones, before a block is cut into chips. Legend: b bands, y rows, x columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
_TERRAIN = ("slope", "aspect", "eastness", "northness")


def halo_px(names: Sequence[str]) -> int:
    """Pixels around a block that must be known to compute the bands `names` up to its edge."""
    return 1 if any(name in _TERRAIN for name in names) else 0


def derive(image_byx: Image, given: Sequence[str], wanted: Sequence[str], pixel_m: float) -> tuple[Image, NDArray[Any]]:
    """The bands `wanted` without the halo, and where all that are computed could be, (y, x).

    image_byx: the bands `given`, in physical values with NaN where nothing is valid, with the halo of `wanted`.
    """
    halo = halo_px(wanted)
    rows, cols = (size - 2 * halo for size in image_byx.shape[1:])
    inner = (slice(halo, halo + rows), slice(halo, halo + cols))
    known = {name: image_byx[b] for b, name in enumerate(given)}
    out = np.empty((len(wanted), rows, cols), image_byx.dtype)
    defined = np.ones((rows, cols), bool)
    for b, name in enumerate(wanted):
        if name in known:
            out[b] = known[name][inner]
        elif name == "VV/VH":
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = known["VV"][inner] / known["VH"][inner]
            out[b] = np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan)
            defined &= np.isfinite(out[b])
        else:
            east, north = gradient(known["elevation"], pixel_m)
            out[b] = _terrain(name, east, north)
            defined &= np.isfinite(east) & np.isfinite(north)
    return out, defined


def gradient(elevation_yx: Image, pixel_m: float) -> tuple[Image, Image]:
    """Rise to the east and to the north, metres a metre, of all pixels but the outermost; NaN at and beside a NaN.

    Horn (1981), Hill shading and the reflectance map, Proc. IEEE 69(1): weights 1, 2, 1 over three rows or columns.
    Distances are those of the map projection, which in a UTM zone differ from the ground's by less than 0.1 %.
    """
    z = elevation_yx.astype(np.float64)
    west, middle, east = (slice(0, -2), slice(1, -1), slice(2, None))
    north, south = west, east
    along = [z[row, east] - z[row, west] for row in (north, middle, south)]
    across = [z[north, col] - z[south, col] for col in (west, middle, east)]
    unknown = np.where(np.isnan(z[middle, middle]), np.nan, 0.0)
    rise_east, rise_north = ((d[0] + 2 * d[1] + d[2]) / (8 * pixel_m) + unknown for d in (along, across))
    return rise_east, rise_north


def _terrain(name: str, east: Image, north: Image) -> Image:
    """One band from the gradient. Aspect is where the slope faces: downhill, clockwise from the grid's north."""
    steep = np.hypot(east, north)
    match name:
        case "slope":
            return np.degrees(np.arctan(steep))
        case "aspect":
            return np.where(steep > 0, np.degrees(np.arctan2(-east, -north)) % 360.0, np.nan)
        case "eastness":  # sin(slope) * sin(aspect): the eastward part of the surface's unit normal
            return -east / np.hypot(1.0, steep)
        case "northness":
            return -north / np.hypot(1.0, steep)
    raise AssertionError(f"no rule computes {name}")
