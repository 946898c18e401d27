"""Observations over time to one image. Legend: t observations, y rows, x columns.

Images are joined strip by strip, small enough for a core's cache: on whole images every step would wait for memory.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
Counts = NDArray[np.uint8]

_STRIP_BYTES = 2**20
"""Bytes of all observations of a strip."""


def valid_count(valid_tyx: Sequence[Mask] | Mask) -> Counts:
    """Valid observations of each pixel, (y, x), capped at 255."""
    counts: Counts = np.minimum(_count(valid_tyx), 255).astype(np.uint8)
    return counts


def median(pixels_tyx: Sequence[Pixels] | Pixels, valid_tyx: Sequence[Mask] | Mask, fill: float) -> Pixels:
    """Median of the valid observations of each pixel, (y, x), in the input's dtype; `fill` where there are none.

    An even number of observations gives the mean of the middle two, in integers with halves rounded up.
    At least one observation is given, be it valid or not.
    """
    dtype = pixels_tyx[0].dtype
    last = dtype.type(np.inf) if np.issubdtype(dtype, np.floating) else dtype.type(np.iinfo(dtype).max)
    out = np.empty(pixels_tyx[0].shape, dtype)
    for rows in _strips(pixels_tyx):
        valid = [mask[rows] for mask in valid_tyx]
        # What is not valid sorts last.
        ordered = [_pick(mask, pixels[rows], last) for mask, pixels in zip(valid, pixels_tyx, strict=True)]
        _sort(ordered)
        count, found = _count(valid), ordered[0]
        for n in range(2, len(ordered) + 1):
            found = _pick(count == n, _middle(ordered[(n - 1) // 2], ordered[n // 2]), found)
        out[rows] = _pick(count > 0, found, dtype.type(fill))
    return out


def mean(pixels_tyx: Sequence[Pixels] | Pixels, valid_tyx: Sequence[Mask] | Mask, fill: float) -> Pixels:
    """Mean of the valid observations of each pixel, (y, x), in the input's dtype; `fill` where there are none.

    Integers are rounded, halves up. At least one observation is given, be it valid or not.
    """
    dtype = pixels_tyx[0].dtype
    out = np.full(pixels_tyx[0].shape, fill, dtype)
    for rows in _strips(pixels_tyx):
        valid = [mask[rows] for mask in valid_tyx]
        count = _count(valid)
        total = np.zeros(count.shape)
        for mask, pixels in zip(valid, pixels_tyx, strict=True):
            total += _pick(mask, pixels[rows], dtype.type(0))
        total /= np.maximum(count, 1)
        if np.issubdtype(dtype, np.integer):
            np.floor(total + 0.5, out=total)
        out[rows] = _pick(count > 0, total.astype(dtype), out[rows])
    return out


def fill_in(pixels_yx: Pixels, valid_yx: Mask, more_yx: Pixels, of_it_yx: Mask) -> None:
    """Take pixels of `more_yx`, where `of_it_yx`, for those that are not valid yet, and note that they are: in place.

    Joins the tiles of one overpass, so that ground where they overlap counts once. What is not valid yet is 0.
    """
    bits = pixels_yx.view(_bits(pixels_yx))
    new = _everywhere(of_it_yx > valid_yx, bits.dtype)
    new &= more_yx.view(bits.dtype)
    bits |= new
    valid_yx |= of_it_yx


def _pick(mask: Mask, yes: Pixels, no: Pixels | np.generic) -> Pixels:
    """`np.where(mask, yes, no)`, bit by bit: the same work for every pixel, which vector units do many times faster."""
    keep = _everywhere(mask, _bits(yes))
    other = no.view(keep.dtype)
    picked = yes.view(keep.dtype) ^ other
    picked &= keep
    picked ^= other
    result: Pixels = picked.view(yes.dtype)
    return result


def _bits(pixels: Pixels) -> np.dtype[Any]:
    return np.dtype(f"u{pixels.dtype.itemsize}")


def _everywhere(mask: Mask, bits: np.dtype[Any]) -> Pixels:
    """All bits where the mask holds, none elsewhere."""
    full = mask.astype(bits)
    np.negative(full, out=full)
    return full


def _strips(pixels_tyx: Sequence[Pixels] | Pixels) -> Iterator[slice]:
    row_bytes = max(pixels_tyx[0][:1].nbytes * len(pixels_tyx), 1)
    step = max(_STRIP_BYTES // row_bytes, 1)
    for first in range(0, len(pixels_tyx[0]), step):
        yield slice(first, first + step)


def _count(valid_tyx: Sequence[Mask] | Mask) -> NDArray[np.unsignedinteger[Any]]:
    count = np.zeros(valid_tyx[0].shape, np.uint8 if len(valid_tyx) < 256 else np.uint16)
    for mask in valid_tyx:
        np.add(count, mask.view(np.uint8), out=count)
    return count


def _sort(planes: list[Pixels]) -> None:
    """Sort each pixel over the planes, in place."""
    spare = np.empty_like(planes[0])
    for low, high in _network(len(planes)):
        np.minimum(planes[low], planes[high], out=spare)
        np.maximum(planes[low], planes[high], out=planes[high])
        planes[low], spare = spare, planes[low]


@cache
def _network(count: int) -> tuple[tuple[int, int], ...]:
    """Pairs to compare and exchange, after which any `count` values are sorted: Batcher's odd-even merge sort, in the
    form of Knuth (The Art of Computer Programming 3, 5.2.2M).

    The same few steps for all pixels run many pixels at once in the processor's vector units.
    """
    pairs = []
    span = 1
    while span < count:
        step = span
        while step >= 1:
            for first in range(step % span, count - step, 2 * step):
                for low in range(first, min(first + step, count - step)):
                    if low // (2 * span) == (low + step) // (2 * span):
                        pairs.append((low, low + step))
            step //= 2
        span *= 2
    return tuple(pairs)


def _middle(low: Pixels, high: Pixels) -> Pixels:
    if low is high:
        return low
    if np.issubdtype(low.dtype, np.floating):
        half = low.dtype.type(0.5)
        with np.errstate(invalid="ignore"):  # inf - inf where fewer are valid; the caller takes others there
            both: Pixels = low * half + high * half
            return both
    up: Pixels = (low | high) - ((low ^ high) >> 1)  # (low + high + 1) // 2 without a larger type
    return up
