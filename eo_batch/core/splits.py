"""Held-out chips: whole coarse cells of the globe, with a buffer, the same for the same ground in every run."""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import shapely

from eo_batch.core.grid import PlannedCell
from eo_batch.core.spec import SplitSpec
from eo_batch.core.utm import project

Split = Literal["train", "test", "buffer"]

_KM_PER_DEG = 111.32
"""Kilometres per degree of latitude on a sphere of the Earth's mean radius."""


def split_cells(cells: Sequence[PlannedCell], split: SplitSpec) -> list[Split]:
    """One of train, test and buffer for each cell, in order.

    A coarse cell of `cell_km` is held out if a hash of its position and the seed falls below the wanted share, so
    a larger area never moves ground from one side to the other. Training cells that touch a held-out cell, or come
    closer than `buffer_m`, are `buffer`: used by neither side. Cells of neighbouring UTM zones are compared on the
    ground, in longitude and latitude.
    """
    held_out = np.array([_draw(p, split) < split.test for p in cells])
    outlines = [_outline(p) for p in cells]
    tree = shapely.STRtree([o for o, out in zip(outlines, held_out, strict=True) if out])
    result: list[Split] = []
    for planned, outline, out in zip(cells, outlines, held_out, strict=True):
        if out:
            result.append("test")
            continue
        near = tree.query(_grown(outline, split.buffer_m, planned.lat), predicate="intersects").size > 0
        result.append("buffer" if near else "train")
    return result


def _draw(planned: PlannedCell, split: SplitSpec) -> float:
    """A number in [0, 1) that depends on the coarse cell and the seed only."""
    row = math.floor(planned.lat * _KM_PER_DEG / split.cell_km)
    lat_mid = (row + 0.5) * split.cell_km / _KM_PER_DEG
    width = max(math.cos(math.radians(lat_mid)), 1e-6) * _KM_PER_DEG
    col = math.floor(planned.lon * width / split.cell_km)
    name = f"{split.seed}/{split.cell_km:g}/{row}/{col}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64


def _outline(planned: PlannedCell) -> shapely.Polygon:
    """The cell on the ground, with longitudes unwrapped around its centre."""
    x_min, y_min, x_max, y_max = planned.cell.bounds
    x = np.array([x_min, x_max, x_max, x_min], float)
    y = np.array([y_min, y_min, y_max, y_max], float)
    lon, lat = project(planned.cell.epsg, 4326, x, y)
    lon = planned.lon + (lon - planned.lon + 180) % 360 - 180
    return shapely.Polygon(np.column_stack([lon, lat]))


def _grown(outline: shapely.Polygon, buffer_m: float, lat: float) -> shapely.Polygon:
    """A box around the outline, grown by at least `buffer_m` and a metre: corners that meet count as touching."""
    west, south, east, north = outline.bounds
    d_lat = (buffer_m + 1.0) / (_KM_PER_DEG * 1000)
    d_lon = d_lat / max(math.cos(math.radians(lat)), 0.01)
    return shapely.box(west - d_lon, south - d_lat, east + d_lon, north + d_lat)
