"""Which blocks a raster touches: boxes in the raster's own CRS."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from eo_batch.core.columns import Ints
from eo_batch.core.grid import Block
from eo_batch.core.utm import WGS84, Floats, project

_MARGIN_PX = 2
"""Pixels around a block that a resampling kernel may touch."""
_EDGE_POINTS = 9
"""Points along each edge of a block when its outline is carried into another CRS."""


def reach(
    blocks: Sequence[Block], epsg_n: NDArray[np.int32], bounds_n4: Floats, pixel_m: float
) -> tuple[Ints, NDArray[np.int32]]:
    """Positions of the blocks that each of n frames (x_min, y_min, x_max, y_max in its CRS) touches.

    Returns (start, block): frame i touches `block[start[i]:start[i + 1]]`, in order.
    """
    frames, touched = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for epsg in np.unique(epsg_n):
        own = np.flatnonzero(epsg_n == epsg)
        tree = shapely.STRtree(_outlines(blocks, int(epsg), pixel_m))
        for shift in (-360.0, 0.0, 360.0) if epsg == WGS84 else (0.0,):
            x_min, y_min, x_max, y_max = bounds_n4[own].T
            # Both are boxes along the axes, so those whose envelopes meet are those that meet.
            frame, block = tree.query(shapely.box(x_min + shift, y_min, x_max + shift, y_max))
            frames.append(own[frame])
            touched.append(block)
    pairs = np.unique(np.concatenate(frames) * len(blocks) + np.concatenate(touched))
    start = np.searchsorted(pairs, np.arange(len(epsg_n) + 1) * len(blocks))
    return start, (pairs % len(blocks)).astype(np.int32)


def _outlines(blocks: Sequence[Block], epsg: int, pixel_m: float) -> NDArray[np.object_]:
    """Boxes around the blocks with a margin, in another CRS; longitudes are unwrapped around each block.

    A block of which nothing can be projected has an empty one.
    """
    bounds_n4 = np.array([block.bounds for block in blocks], np.float64)
    margin = _MARGIN_PX * pixel_m
    ring_x, ring_y = _rings(bounds_n4 + np.array([-margin, -margin, margin, margin]))
    zone_n = np.array([block.epsg for block in blocks])
    for zone in np.unique(zone_n):
        own = zone_n == zone
        ring_x[own], ring_y[own] = project(int(zone), epsg, ring_x[own], ring_y[own])
    if epsg == WGS84:
        ring_x = ring_x[:, :1] + (ring_x - ring_x[:, :1] + 180) % 360 - 180
    there = np.isfinite(ring_x) & np.isfinite(ring_y)
    low_x, low_y = (np.where(there, ring, np.inf).min(1) for ring in (ring_x, ring_y))
    high_x, high_y = (np.where(there, ring, -np.inf).max(1) for ring in (ring_x, ring_y))
    outlines = np.full(len(blocks), shapely.Polygon(), object)
    some = there.any(1)
    outlines[some] = shapely.box(low_x[some], low_y[some], high_x[some], high_y[some])
    return outlines


def _rings(bounds_n4: Floats) -> tuple[Floats, Floats]:
    """x and y (n, points) of points along the edges of boxes."""
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)
    east = np.concatenate([along, np.ones_like(along), along[::-1], np.zeros_like(along)])
    north = np.concatenate([np.zeros_like(along), along, np.ones_like(along), along[::-1]])
    x_min, y_min, x_max, y_max = (bounds_n4[:, i : i + 1] for i in range(4))
    return x_min + (x_max - x_min) * east, y_min + (y_max - y_min) * north
