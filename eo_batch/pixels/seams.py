"""Files that continue each other, resampled as one: at a seam the pixels on both sides are interpolated between.

Legend: y rows (downwards), x columns.
"""

from collections.abc import Sequence

import numpy as np

from eo_batch.core.sensors import Resampling
from eo_batch.core.utm import WGS84
from eo_batch.pixels.align import align
from eo_batch.pixels.composite import fill_in
from eo_batch.pixels.grids import Mask, PixelGrid, Pixels, SourceImage

_TOLERANCE_PX = 1e-3
"""Lattices that agree to this share of a pixel are one."""
_MOST_EMPTY = 4.0
"""Files are joined if the box around them has at most so many times their pixels."""
_Place = tuple[int, int, int, int]
"""First row and column, and those after the last, on the lattice of the first file."""


def mosaic(sources: Sequence[SourceImage], grid: PixelGrid, how: Resampling) -> tuple[Pixels, Mask]:
    """Images of one observation on `grid`, which `how` is for as in `align`: values and validity, (y, x).

    There is one image at least. Where they overlap, the first one counts; those that are joined have the place of their
    first.
    """
    pixels, valid = np.zeros(grid.shape, sources[0].pixels_yx.dtype), np.zeros(grid.shape, bool)
    for image in joined(sources):
        aligned = align(image, grid, how)
        fill_in(pixels, valid, aligned.pixels_yx, aligned.valid_yx)
    return pixels, valid


def joined(sources: Sequence[SourceImage]) -> list[SourceImage]:
    """Images that lie close to each other on one lattice as one image, the others as they are."""
    groups: list[list[tuple[SourceImage, _Place]]] = []
    for source in sources:
        for group in groups:
            place = _place(source, group[0][0])
            if place is not None:
                group.append((source, place))
                break
        else:
            groups.append([(source, (0, 0, *source.pixels_yx.shape))])
    found: list[SourceImage] = []
    for group in groups:
        found += [_pasted(group)] if _are_close([place for _, place in group]) else [source for source, _ in group]
    return found


def _place(source: SourceImage, first: SourceImage) -> _Place | None:
    """Where a file lies on another one's lattice; None if it does not."""
    (a, b, c, d, e, f), (a0, b0, c0, d0, e0, f0) = source.transform, first.transform
    rows, cols = source.pixels_yx.shape
    same = source.epsg == first.epsg and source.pixels_yx.dtype == first.pixels_yx.dtype
    if not same or b or d or b0 or d0 or max(abs(a / a0 - 1) * cols, abs(e / e0 - 1) * rows) > _TOLERANCE_PX:
        return None
    row, col = (f - f0) / e0, (c - c0) / a0
    if source.epsg == WGS84:  # a file on the other side of the antimeridian may be the next one
        col -= 360 / a0 * round((c - c0) / 360)
    if max(abs(row - round(row)), abs(col - round(col))) > _TOLERANCE_PX:
        return None
    return round(row), round(col), round(row) + rows, round(col) + cols


def _are_close(places: Sequence[_Place]) -> bool:
    top, left, bottom, right = _around(places)
    return (bottom - top) * (right - left) <= _MOST_EMPTY * sum((p[2] - p[0]) * (p[3] - p[1]) for p in places)


def _around(places: Sequence[_Place]) -> _Place:
    tops, lefts, bottoms, rights = zip(*places, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def _pasted(group: Sequence[tuple[SourceImage, _Place]]) -> SourceImage:
    first = group[0][0]
    if len(group) == 1:
        return first
    top, left, bottom, right = _around([place for _, place in group])
    pixels = np.zeros((bottom - top, right - left), first.pixels_yx.dtype)
    valid = np.zeros(pixels.shape, bool)
    for source, (row, col, end_row, end_col) in group:
        at = slice(row - top, end_row - top), slice(col - left, end_col - left)
        fill_in(pixels[at], valid[at], source.pixels_yx, source.valid_yx)
    a, _, c, _, e, f = first.transform
    return SourceImage(pixels, valid, first.epsg, (a, 0.0, c + left * a, 0.0, e, f + top * e))
