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

_STRIP_BYTES = 2**19
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
    out = np.full(pixels_tyx[0].shape, fill, dtype)
    for rows in _strips(pixels_tyx):
        valid = [mask[rows] for mask in valid_tyx]
        # What is not valid sorts last.
        ordered = [_pick(mask, pixels[rows], last) for mask, pixels in zip(valid, pixels_tyx, strict=True)]
        _sort(ordered)
        count, found = _count(valid), out[rows]
        for n in range(1, len(ordered) + 1):
            at = count == n
            if at.any():
                found = _pick(at, _middle(ordered[(n - 1) // 2], ordered[n // 2]), found)
        out[rows] = found
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


def mosaic(pixels_tyx: Sequence[Pixels] | Pixels, valid_tyx: Sequence[Mask] | Mask) -> tuple[Pixels, Mask]:
    """The first valid observation of each pixel: (y, x) pixels and validity.

    Joins the tiles of one overpass, so that ground where they overlap counts once. At least one is given.
    """
    if len(pixels_tyx) == 1:
        return pixels_tyx[0], valid_tyx[0]
    pixels, valid = pixels_tyx[0], valid_tyx[0]
    for more, of_it in zip(pixels_tyx[1:], valid_tyx[1:], strict=True):
        pixels = _pick(valid, pixels, more)
        valid = valid | of_it
    return pixels, valid


def _pick(mask: Mask, yes: Pixels, no: Pixels | np.generic) -> Pixels:
    """`np.where(mask, yes, no)`, bit by bit: the same work for every pixel, which vector units do many times faster."""
    bits = np.dtype(f"u{yes.dtype.itemsize}")
    keep = mask.astype(bits)
    np.negative(keep, out=keep)  # all bits where the mask holds
    other = no.view(bits)
    picked = yes.view(bits) ^ other
    picked &= keep
    picked ^= other
    result: Pixels = picked.view(yes.dtype)
    return result


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
    for low, high in _network(len(planes)):
        less = np.minimum(planes[low], planes[high])
        np.maximum(planes[low], planes[high], out=planes[high])
        planes[low] = less


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
