"""Observations over time to one image. Legend: t observations, y rows, x columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
Counts = NDArray[np.uint8]


def valid_count(valid_tyx: Mask) -> Counts:
    """Valid observations of each pixel, (y, x), capped at 255."""
    counts: Counts = np.minimum(valid_tyx.sum(0, dtype=np.int64), 255).astype(np.uint8)
    return counts


def median(pixels_tyx: Pixels, valid_tyx: Mask, fill: float) -> Pixels:
    """Median of the valid observations of each pixel, (y, x), in the input's dtype; `fill` where there are none.

    An even number of observations gives the mean of the middle two, in integers with halves rounded up.
    """
    dtype = pixels_tyx.dtype
    count_yx = valid_tyx.sum(0)
    if not len(pixels_tyx):
        return np.full(count_yx.shape, fill, dtype)
    last = np.inf if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    ordered = np.sort(np.where(valid_tyx, pixels_tyx, np.asarray(last, dtype)), axis=0)
    low = np.take_along_axis(ordered, np.maximum(count_yx - 1, 0)[None] // 2, 0)[0]
    high = np.take_along_axis(ordered, np.minimum(count_yx // 2, len(ordered) - 1)[None], 0)[0]
    return np.where(count_yx > 0, _middle(low, high), np.asarray(fill, dtype)).astype(dtype)


def mean(pixels_tyx: Pixels, valid_tyx: Mask, fill: float) -> Pixels:
    """Mean of the valid observations of each pixel, (y, x), in the input's dtype; `fill` where there are none.

    Integers are rounded, halves up.
    """
    dtype = pixels_tyx.dtype
    count_yx = valid_tyx.sum(0)
    total = np.where(valid_tyx, pixels_tyx, 0).astype(np.float64).sum(0)
    value = total / np.maximum(count_yx, 1)
    if np.issubdtype(dtype, np.integer):
        value = np.floor(value + 0.5)
    return np.where(count_yx > 0, value, fill).astype(dtype)


def mosaic(pixels_tyx: Pixels, valid_tyx: Mask) -> tuple[Pixels, Mask]:
    """The first valid observation of each pixel: (y, x) pixels and validity.

    Joins the tiles of one overpass, so that ground where they overlap counts once.
    """
    if not len(pixels_tyx):
        return np.zeros(pixels_tyx.shape[1:], pixels_tyx.dtype), np.zeros(pixels_tyx.shape[1:], bool)
    first = valid_tyx.argmax(0)[None]
    pixels = np.take_along_axis(pixels_tyx, first, 0)[0]
    valid: Mask = np.logical_or.reduce(valid_tyx, axis=0)
    return pixels, valid


def _middle(low: Pixels, high: Pixels) -> Pixels:
    if np.issubdtype(low.dtype, np.floating):
        half = np.asarray(0.5, low.dtype)
        with np.errstate(invalid="ignore"):  # inf - inf where no observation is valid; filled by the caller
            both: Pixels = low * half + high * half
            return both
    middle: Pixels = (low.astype(np.int64) + high.astype(np.int64) + 1) // 2
    return middle
