"""Where the pixels of one grid lie in another. Legend: y rows (downwards), x columns, c control points.

Coordinates are worked out for every eighth pixel along each side, and interpolated bilinearly between: up to latitude
84 the curvature over 8 pixels stays below 2e-4 pixel for pixels of 10 m, 2e-3 for those of 120 m. Of the control points
every eighth along each side is transformed exactly, which costs far more than the cubic interpolation of the others;
that is off by less than 1e-8 pixel for pixels of 10 m, 1e-4 for those of 120 m.
"""

import numpy as np

from eo_batch.core.scenes import Affine6
from eo_batch.core.utm import WGS84, Floats, project

STEP_PX = 8
_NODE_CC = 8
"""Control points along a side from one that is transformed exactly to the next."""


def controls(
    transform: Affine6, shape: tuple[int, ...], offset: float, epsg: int, other_epsg: int
) -> tuple[Floats, Floats]:
    """Coordinates (x, y) in another CRS of every eighth pixel of an image along each side, and of one beyond its end.

    offset: 0 for the pixels' corners, 0.5 for their centres.
    """
    a, b, c, d, e, f = transform

    def projected(rows: Floats, cols: Floats) -> tuple[Floats, Floats]:
        col_cc, row_cc = np.meshgrid(cols * STEP_PX + offset, rows * STEP_PX + offset)
        x, y = project(epsg, other_epsg, a * col_cc + b * row_cc + c, d * col_cc + e * row_cc + f)
        if other_epsg == WGS84 != epsg:  # no jump within the image, or what is interpolated between would be anywhere
            x = x[0, 0] + (x - x[0, 0] + 180) % 360 - 180
        return x, y

    rows, cols = (np.arange(-(-length // STEP_PX) + 1, dtype=np.float64) for length in shape)
    (row_nodes, down), (col_nodes, across) = _cubic(rows), _cubic(cols)
    x, y = projected(row_nodes, col_nodes)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # not all of it has a place there
        return projected(rows, cols)
    return down @ x @ across.T, down @ y @ across.T


def _cubic(at: Floats) -> tuple[Floats, Floats]:
    """Nodes of equal distance around positions, and the weight of each node at each position, (position, node): those
    of the polynomial through the four nearest (Lagrange)."""
    cell = np.floor_divide(at, _NODE_CC).astype(np.intp)
    share = at / _NODE_CC - cell
    nodes = np.arange(-1, cell[-1] + 3)
    weights, each = np.zeros((len(at), len(nodes))), np.arange(len(at))
    weights[each, cell] = -share * (share - 1) * (share - 2) / 6
    weights[each, cell + 1] = (share + 1) * (share - 1) * (share - 2) / 2
    weights[each, cell + 2] = -(share + 1) * share * (share - 2) / 2
    weights[each, cell + 3] = (share + 1) * share * (share - 1) / 6
    return nodes * float(_NODE_CC), weights


def between(values_cc: Floats, rows: slice, cols: int) -> Floats:
    """Bilinear interpolation of values at such positions, (row, column), to all pixels of some rows, (y, x)."""
    at = np.arange(rows.start, rows.stop) / STEP_PX
    above = at.astype(np.intp)
    share = (at - above)[:, None]
    along_yc = values_cc[above] * (1 - share) + values_cc[above + 1] * share
    slope_yc = np.diff(along_yc) / STEP_PX
    found: Floats = np.empty((*slope_yc.shape, STEP_PX))
    here_yc = along_yc[:, :-1].copy()
    for step in range(STEP_PX):
        found[..., step] = here_yc
        here_yc += slope_yc
    return found.reshape(len(at), -1)[:, :cols]


def to_pixels(transform: Affine6, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Position in a pixel grid, pixels from its corner: (column, row)."""
    a, b, c, d, e, f = transform
    if not (b or d):
        return (x - c) / a, (y - f) / e
    det = a * e - b * d
    return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det
