"""Resampling that keeps totals, and areas of classes: how much of each file's pixel lies in each cell of a grid.

The pixels of the finer of two grids are quadrilaterals in the coordinates of the other one, whose pixels are unit
squares there. The area that a quadrilateral shares with a square has a closed form, so weights are exact but for the
curvature of a pixel's edge, which is below 1e-6 of its length for pixels of up to a kilometre.

Legend: y rows, x columns, n quadrilaterals, m classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.sensors import Resampling
from eo_batch.core.utm import WGS84, Floats
from eo_batch.pixels.grids import PixelGrid, Pixels, SourceImage, pixel_size
from eo_batch.pixels.positions import STEP_PX, between, controls, to_pixels
from eo_batch.pixels.spread import Made, Spread

Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]
_STRIP = 2**18
"""Quadrilaterals that are split at once."""
_EDGE = 1e-9
"""Overlaps below this share of a pixel are rounding."""
_MIN_COVER = 0.5
"""A mean is valid if at least this share of the cell lies on valid pixels."""


def conserve(
    sources: Sequence[SourceImage], grid: PixelGrid, how: Resampling, spread: Spread = map
) -> tuple[Floats, Mask]:
    """Images of one observation on `grid`, weighted by area: values and validity, (y, x).

    how: `mean` for rates (a cell is the mean of what lies in it, valid if half of it is known); `sum` for counts (a
    pixel's count is dealt out to the cells by the share of it that lies in each, so that the total over valid ground is
    kept; valid where any of it is known). Where images repeat each other the first one counts.
    """
    cells = grid.rows * grid.cols
    total, cover = np.zeros(cells), np.zeros(cells)
    for source, counts_yx in _once(sources):
        values, counts = source.pixels_yx.ravel(), counts_yx.ravel()

        def sums(piece: _Piece, values: Pixels = values, counts: Mask = counts) -> tuple[_Sums, _Sums]:
            known = counts[piece.pixel]
            pixel, cell = piece.pixel[known], piece.cell[known]
            weight = (piece.of_pixel if how == "sum" else piece.of_cell)[known]
            return _summed(cell, weight * values[pixel]), _summed(cell, piece.of_cell[known])

        for of_values, of_cells in _of_pieces(sums, source, grid, spread):
            _add(total, of_values)
            _add(cover, of_cells)
    valid = cover >= (_MIN_COVER - _EDGE if how == "mean" else _EDGE)
    mean = total if how == "sum" else np.divide(total, cover, out=np.zeros(cells), where=valid)
    return np.where(valid, mean, 0.0).reshape(grid.shape), valid.reshape(grid.shape)


def overlaid(sources: Sequence[SourceImage], grid: PixelGrid, how: Resampling) -> tuple[Floats, Mask]:
    """Images that are on `grid` already and repeat no ground's content: counts are added (`sum`), of shares the largest
    is taken; values and validity, (y, x)."""
    valid = np.any([source.valid_yx for source in sources], axis=0)
    layers = [np.where(source.valid_yx, source.pixels_yx, 0).astype(np.float64) for source in sources]
    return (np.sum(layers, axis=0) if how == "sum" else np.max(layers, axis=0)), valid


def class_areas(sources: Sequence[SourceImage], grid: PixelGrid, spread: Spread = map) -> tuple[NDArray[Any], Floats]:
    """Codes (m), ascending, and the area of each in every cell of `grid`, (y, x, m), square units of the grid.

    From the files' own pixels, whatever their size and projection; codes are whole numbers of up to 16 bits. Ground
    that images repeat counts once, the first.
    """
    found = list(_once(sources))
    present = np.zeros(2**16, bool)
    for source, counts_yx in found:
        present[source.pixels_yx[counts_yx]] = True
    codes = np.flatnonzero(present)
    number, none = np.cumsum(present) - 1, len(codes)
    areas = np.zeros((grid.rows * grid.cols, none + 1))
    for source, counts_yx in found:
        pixels, counts, all_count = source.pixels_yx.ravel(), counts_yx.ravel(), bool(counts_yx.all())

        def sums(piece: _Piece, pixels: Pixels = pixels, counts: Mask = counts, all_count: bool = all_count) -> _Sums:
            code = number.take(pixels.take(piece.pixel))
            if not all_count:
                code = np.where(counts.take(piece.pixel), code, none)
            return _summed(piece.cell * (none + 1) + code, piece.of_cell)

        for some in _of_pieces(sums, source, grid, spread):
            _add(areas.reshape(-1), some)
    return codes, areas[:, :none].reshape(*grid.shape, none) * grid.pixel**2


_Sums = tuple[int, Floats]
"""A first position, and what is to be added from there on."""


def _summed(at: Ints, values: Floats) -> _Sums:
    """Sums of values by position; positions may repeat, and lie close together."""
    if not len(at):
        return 0, np.zeros(0)
    first = int(at.min())
    return first, np.bincount(at - first, values).astype(np.float64, copy=False)


def _add(to: Floats, sums: _Sums) -> None:
    first, some = sums
    to[first : first + len(some)] += some


def _of_pieces(
    sums: Callable[["_Piece"], Made], source: SourceImage, grid: PixelGrid, spread: Spread
) -> Iterator[Made]:
    """What `sums` makes of each piece, in the order of the pieces."""
    for some in spread(lambda pieces: [sums(piece) for piece in pieces()], _pieces(source, grid)):
        yield from some


def _once(sources: Sequence[SourceImage]) -> Iterator[tuple[SourceImage, Mask]]:
    """Each image with the valid pixels that count: whose centre lies on no valid pixel of an earlier image."""
    for number, source in enumerate(sources):
        counts = source.valid_yx.copy()
        for earlier in sources[:number]:
            counts &= ~_covered(source, earlier)
        yield source, counts


def _covered(source: SourceImage, by: SourceImage) -> Mask:
    height, width = source.pixels_yx.shape
    at_cc = _controls(source, 0.5, by.epsg, by.transform)
    col_yx, row_yx = (between(values, slice(0, height), width) for values in at_cc)
    rows, cols = by.pixels_yx.shape
    r, c = np.floor(row_yx), np.floor(col_yx)
    inside = (r >= 0) & (r < rows) & (c >= 0) & (c < cols)
    out = np.zeros(source.pixels_yx.shape, bool)
    out[inside] = by.valid_yx[r[inside].astype(np.intp), c[inside].astype(np.intp)]
    return out


@dataclass(frozen=True)
class _Piece:
    """Overlaps of pixels with cells, by flat position."""

    pixel: Ints
    cell: Ints
    of_pixel: Floats
    """Share of the pixel that lies in the cell."""
    of_cell: Floats
    """Share of the cell that lies in the pixel."""


def _pieces(source: SourceImage, grid: PixelGrid) -> Iterator[Callable[[], Iterator[_Piece]]]:
    """Overlaps of a source's pixels with a grid's cells, in parts, each of which is worked out when it is called."""
    finer = pixel_size(source, grid) <= grid.pixel
    if finer:
        corners, shape, lattice = _controls(source, 0.0, grid.epsg, grid.transform), source.pixels_yx.shape, grid.shape
    else:
        cells = SourceImage(np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, bool), grid.epsg, grid.transform)
        corners, shape, lattice = (
            _controls(cells, 0.0, source.epsg, source.transform),
            grid.shape,
            source.pixels_yx.shape,
        )

    def pieces(part: Callable[[], Iterator[_Overlaps]]) -> Iterator[_Piece]:
        for quad, square, of_quad, of_square in part():
            yield _Piece(quad, square, of_quad, of_square) if finer else _Piece(square, quad, of_square, of_quad)

    for part in _split(*corners, shape, lattice):
        yield partial(pieces, part)


_Overlaps = tuple[Ints, Ints, Floats, Floats]
"""Quadrilaterals and squares by flat position, and of each overlap the share of either."""


def _split(
    col_cc: Floats, row_cc: Floats, shape: tuple[int, ...], lattice: tuple[int, ...]
) -> Iterator[Callable[[], Iterator[_Overlaps]]]:
    """Quadrilaterals, (rows, columns) of them, split by a lattice of (rows, columns) unit squares: in parts.

    Corners are given for every eighth (`controls`). Between them they are interpolated bilinearly, so a tile of 8 x 8
    quadrilaterals lies within the hull of its corners: most tiles lie within one square if squares are large.
    """
    col_4t, row_4t = _rings(col_cc), _rings(row_cc)
    near, within, square = _placed(col_4t, row_4t, lattice)
    tiles_wide = col_cc.shape[1] - 1
    steps = np.arange(STEP_PX)

    def part(at: Ints) -> Iterator[_Overlaps]:
        y = (at // tiles_wide * STEP_PX)[:, None, None] + steps[:, None]
        x = (at % tiles_wide * STEP_PX)[:, None, None] + steps
        flat, exists = y * shape[1] + x, (y < shape[0]) & (x < shape[1])
        patch = [corner[at] for corner in (*col_4t, *row_4t)]
        if within[at[0]]:
            area = _areas(patch)[exists]
            where = np.broadcast_to(square[at][:, None, None], flat.shape)[exists]
            yield flat[exists], where, np.ones(len(area)), area
        else:
            yield from _split_each(patch, flat[exists], exists, lattice)

    for chosen in (near & within, near & ~within):
        tiles = np.flatnonzero(chosen)
        for first in range(0, len(tiles), _STRIP // STEP_PX**2):
            yield partial(part, tiles[first : first + _STRIP // STEP_PX**2])


def _areas(patch: Sequence[Floats]) -> Floats:
    """Areas of the quadrilaterals of tiles, (tile, y, x).

    The Jacobian of a bilinear map is linear, so that its value at a quadrilateral's centre is its mean there.
    """
    ax, bx, cx, dx, ay, by, cy, dy = patch
    twist_x, twist_y = ax - bx + cx - dx, ay - by + cy - dy
    middles = (np.arange(STEP_PX) + 0.5) / STEP_PX
    corner = (bx - ax) * (dy - ay) - (by - ay) * (dx - ax)
    along = (bx - ax) * twist_y - (by - ay) * twist_x
    down = twist_x * (dy - ay) - twist_y * (dx - ax)
    jacobian = (corner[:, None] + down[:, None] * middles)[:, :, None] + (along[:, None] * middles)[:, None, :]
    areas: Floats = np.abs(jacobian) / STEP_PX**2
    return areas


def _split_each(patch: Sequence[Floats], flat: Ints, exists_tyx: Mask, lattice: tuple[int, ...]) -> Iterator[_Overlaps]:
    """As `_split`, of tiles that reach several squares: quadrilateral by quadrilateral."""
    share = np.arange(STEP_PX + 1) / STEP_PX
    quads: list[list[Floats]] = []
    for a, b, c, d in (patch[:4], patch[4:]):
        left = a[:, None] + (d - a)[:, None] * share
        right = b[:, None] + (c - b)[:, None] * share
        corner = left[:, :, None] + (right - left)[:, :, None] * share
        around = (corner[:, :-1, :-1], corner[:, :-1, 1:], corner[:, 1:, 1:], corner[:, 1:, :-1])
        quads.append([one[exists_tyx] for one in around])
    col_4n, row_4n = quads
    rows, cols = lattice
    # Twice the area of a quadrilateral is the cross product of its diagonals.
    whole = np.abs(
        (col_4n[2] - col_4n[0]) * (row_4n[3] - row_4n[1]) - (col_4n[3] - col_4n[1]) * (row_4n[2] - row_4n[0])
    ) / 2  # fmt: skip
    near, within, square = _placed(col_4n, row_4n, lattice)
    at = np.flatnonzero(near & within)
    yield flat[at], square[at], np.ones(len(at)), whole[at]
    at = np.flatnonzero(near & ~within)
    flat, whole = flat[at], whole[at]
    x_4n, y_4n = (np.stack([corner[at] for corner in corners]) for corners in (col_4n, row_4n))
    (c0, c1), (r0, r1) = _span(list(x_4n)), _span(list(y_4n))
    for south in range(int((r1 - r0).max(initial=-1)) + 1):
        for east in range(int((c1 - c0).max(initial=-1)) + 1):
            row, col = r0 + south, c0 + east
            n = np.flatnonzero((row <= r1) & (col <= c1) & (row >= 0) & (row < rows) & (col >= 0) & (col < cols))
            area = _clipped(x_4n[:, n] - col[n], y_4n[:, n] - row[n])
            yield flat[n], (row[n] * cols + col[n]).astype(np.intp), area / np.maximum(whole[n], 1e-300), area


def _placed(col_4n: Sequence[Floats], row_4n: Sequence[Floats], lattice: tuple[int, ...]) -> tuple[Mask, Mask, Ints]:
    """Of each quadrilateral whether it may reach the lattice, whether it lies within one square, and that square."""
    rows, cols = lattice
    (c0, c1), (r0, r1) = _span(col_4n), _span(row_4n)
    near = (r1 >= 0) & (r0 < rows) & (c1 >= 0) & (c0 < cols)  # false where a corner has no place
    square = np.where(near, r0 * cols + c0, 0).astype(np.intp)
    return near, (c0 == c1) & (r0 == r1), square


def _rings(corner_yx: Floats) -> list[Floats]:
    """Of each quadrilateral its four corners, clockwise."""
    corners = (corner_yx[:-1, :-1], corner_yx[:-1, 1:], corner_yx[1:, 1:], corner_yx[1:, :-1])
    return [corner.ravel() for corner in corners]


def _span(corner_4n: Sequence[Floats]) -> tuple[Floats, Floats]:
    """First and last square along one axis that each quadrilateral reaches."""
    a, b, c, d = corner_4n
    low, high = np.minimum(np.minimum(a, b), np.minimum(c, d)), np.maximum(np.maximum(a, b), np.maximum(c, d))
    return np.floor(low + _EDGE), np.floor(high - _EDGE)


def _clipped(x_4n: Floats, y_4n: Floats) -> Floats:
    """Area that each quadrilateral shares with the unit square.

    By Green's theorem the area is the integral of x dy around the clipped outline, and clipping is clamping: each edge
    gives the integral of clamp(x) over the part of it on which 0 < y < 1.
    """
    total = np.zeros(x_4n.shape[1])
    for k in range(4):
        (x0, y0), (x1, y1) = (x_4n[k], y_4n[k]), (x_4n[(k + 1) % 4], y_4n[(k + 1) % 4])
        dy = y1 - y0
        safe = np.where(dy == 0, 1.0, dy)
        t0, t1 = np.clip((0 - y0) / safe, 0, 1), np.clip((1 - y0) / safe, 0, 1)
        a, b = x0 + (x1 - x0) * t0, x0 + (x1 - x0) * t1
        steep = np.abs(b - a) > 1e-7
        mean = np.where(steep, (_ramp(b) - _ramp(a)) / np.where(steep, b - a, 1.0), np.clip((a + b) / 2, 0, 1))
        total += np.where(dy == 0, 0.0, mean * np.abs(t1 - t0) * dy)
    return np.abs(total)


def _ramp(x: Floats) -> Floats:
    """Integral of clamp(x, 0, 1) from 0."""
    inside = np.clip(x, 0, 1)
    ramp: Floats = inside**2 / 2 + np.maximum(x - 1, 0)
    return ramp


def _controls(image: SourceImage, offset: float, epsg: int, transform: Any) -> tuple[Floats, Floats]:
    """Where an image's control points (`controls`) lie in another pixel grid: (column, row)."""
    x, y = controls(image.transform, image.pixels_yx.shape, offset, image.epsg, epsg)
    if epsg == WGS84 != image.epsg:  # the turn that the other grid counts in
        x = x + 360 * np.round((transform[2] - x[0, 0]) / 360)
    return to_pixels(transform, x, y)
