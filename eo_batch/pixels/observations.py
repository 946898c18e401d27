"""One observation for each pixel, the same for all its bands. Legend: t observations, b bands, y rows, x columns.

A pixel that takes each band from another day is a colour that was never seen; these composites take all of them from
one observation. An observation counts where all its bands are valid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_PART_BYTES = 2**22
"""Bytes of the observations, as float64, whose distances are taken at once."""


@dataclass(frozen=True)
class Observation:
    """All bands of one overpass over one piece of ground."""

    pixels_b: Sequence[Pixels]
    """Each (y, x), all of one dtype."""
    valid_yx: Mask
    """Where every band is valid."""


def first_valid(observations_t: Sequence[Observation]) -> Observation:
    """The first observation that is valid, pixel by pixel. At least one is given.

    Joins the tiles of one overpass.
    """
    first, *others = observations_t
    if not others:
        return first
    pixels_b, valid = [pixels.copy() for pixels in first.pixels_b], first.valid_yx.copy()
    for other in others:
        new = other.valid_yx > valid
        for pixels, more in zip(pixels_b, other.pixels_b, strict=True):
            np.copyto(pixels, more, where=new)
        valid |= new
    return Observation(pixels_b, valid)


def latest_valid(observations_t: Sequence[Observation], fill: float) -> Pixels:
    """The last valid observation of each pixel, (b, y, x); `fill` where there is none. Observations are in time's
    order."""
    return _filled(first_valid(observations_t[::-1]), fill)


def least_cloudy(observations_t: Sequence[Observation], chip_px: int, fill: float) -> Pixels:
    """For each chip the observation that is valid in most of its pixels, (b, y, x); `fill` where none is valid.

    What it lacks comes from the observation that is valid in the next most, and so on; of equals the earliest goes
    first. So a chip is one image, but for the holes in it, and edges between dates follow clouds and the edges of
    chips.

    chip_px: side of a chip, pixels; the image is made of whole chips.
    """
    rows, cols = observations_t[0].valid_yx.shape
    out = np.empty((len(observations_t[0].pixels_b), rows, cols), observations_t[0].pixels_b[0].dtype)
    for top in range(0, rows, chip_px):
        for left in range(0, cols, chip_px):
            chip = (slice(top, top + chip_px), slice(left, left + chip_px))
            of_chip = [Observation([p[chip] for p in one.pixels_b], one.valid_yx[chip]) for one in observations_t]
            ordered = sorted(of_chip, key=lambda one: -int(np.count_nonzero(one.valid_yx)))  # keeps equals in order
            out[:, *chip] = _filled(first_valid(ordered), fill)
    return out


def medoid(observations_t: Sequence[Observation], fill: float) -> Pixels:
    """The valid observation nearest to all others, (b, y, x); `fill` where there is none.

    That is the one with the least sum of Euclidean distances to the other valid observations, over the bands' stored
    values (Flood 2013, Seasonal composite Landsat TM/ETM+ images using the medoid, Remote Sensing 5(12), 6481-6500,
    https://doi.org/10.3390/rs5126481); of equals the earliest, sums being taken in float64 in the order of time.
    """
    dtype = observations_t[0].pixels_b[0].dtype
    out = np.full((len(observations_t[0].pixels_b), *observations_t[0].valid_yx.shape), fill, dtype)
    for rows, x_tbn, valid_tn in parts(observations_t):
        chosen_yx = nearest(x_tbn, valid_tn).reshape(-1, out.shape[2])
        for t, one in enumerate(observations_t):
            here_yx = one.valid_yx[rows] & (chosen_yx == t)
            for b, pixels in enumerate(one.pixels_b):
                np.copyto(out[b, rows], pixels[rows], where=here_yx)
    return out


def parts(observations_t: Sequence[Observation]) -> Iterator[tuple[slice, Floats, Mask]]:
    """Some rows at a time, their pixels in line: the rows, values (t, b, n) with 0 where invalid, and validity
    (t, n)."""
    bands = len(observations_t[0].pixels_b)
    rows, cols = observations_t[0].valid_yx.shape
    step = max(_PART_BYTES // max(8 * len(observations_t) * bands * cols, 1), 1)
    for first in range(0, rows, step):
        part = slice(first, min(first + step, rows))
        valid_tn = np.stack([one.valid_yx[part].reshape(-1) for one in observations_t])
        x_tbn = np.zeros((len(observations_t), bands, valid_tn.shape[1]))
        for t, one in enumerate(observations_t):
            for b, pixels in enumerate(one.pixels_b):
                np.copyto(x_tbn[t, b], pixels[part].reshape(-1), where=valid_tn[t])
        yield part, x_tbn, valid_tn


def nearest(x_tbn: Floats, valid_tn: Mask) -> NDArray[np.intp]:
    """Position of the medoid of each pixel (n): the first with the least sum of distances, and 0 where none is
    valid."""
    sums_tn = np.zeros(valid_tn.shape)
    for i in range(len(x_tbn)):
        for j in range(i + 1, len(x_tbn)):
            apart_n = distance(x_tbn[i] - x_tbn[j])
            apart_n *= valid_tn[i] & valid_tn[j]
            sums_tn[i] += apart_n
            sums_tn[j] += apart_n
    sums_tn[~valid_tn] = np.inf
    first_n: NDArray[np.intp] = np.argmin(sums_tn, axis=0)
    return first_n


def distance(apart_bn: Floats) -> Floats:
    """Euclidean length over the first axis."""
    total_n = apart_bn[0] * apart_bn[0]
    for apart_n in apart_bn[1:]:
        total_n += apart_n * apart_n
    length_n: Floats = np.sqrt(total_n)
    return length_n


def _filled(one: Observation, fill: float) -> Pixels:
    dtype = one.pixels_b[0].dtype
    filled: Pixels = np.stack([np.where(one.valid_yx, pixels, dtype.type(fill)) for pixels in one.pixels_b])
    return filled
