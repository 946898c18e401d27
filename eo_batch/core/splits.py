"""Held-out chips: whole coarse cells of the globe, with a buffer, the same for the same ground in every run."""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from eo_batch.core.grid import PlannedCell
from eo_batch.core.spec import SplitSpec
from eo_batch.core.utm import WGS84, Floats, project

Split = Literal["train", "test", "buffer"]

_KM_PER_DEG = 111.32
"""Kilometres per degree of longitude at the equator of WGS 84."""
_KM_PER_DEG_LAT = 110.57
"""Kilometres per degree of latitude where it is shortest, at the equator of WGS 84."""


def split_cells(cells: Sequence[PlannedCell], split: SplitSpec) -> list[Split]:
    """One of train, test and buffer for each cell, in order.

    A coarse cell of `cell_km` is held out if a hash of its position and the seed falls below the wanted share, so
    a larger area never moves ground from one side to the other. Training cells that touch a held-out cell, or come
    closer than `buffer_m`, are `buffer`: used by neither side. Cells of neighbouring UTM zones are compared on the
    ground, in longitude and latitude.
    """
    held_out = np.array([_draw(planned, split) < split.test for planned in cells], bool)
    corners_n42 = _corners(cells)
    tree = shapely.STRtree(shapely.polygons(corners_n42[held_out]))
    near = np.zeros(len(cells), bool)
    for shift in (-360.0, 0.0, 360.0):  # cells on either side of the antimeridian
        near[tree.query(_grown(corners_n42, split.buffer_m, shift), predicate="intersects")[0]] = True
    return ["test" if out else "buffer" if close else "train" for out, close in zip(held_out, near, strict=True)]


def _draw(planned: PlannedCell, split: SplitSpec) -> float:
    """A number in [0, 1) that depends on the coarse cell and the seed only."""
    row = math.floor(planned.lat * _KM_PER_DEG / split.cell_km)
    lat_mid = (row + 0.5) * split.cell_km / _KM_PER_DEG
    width = max(math.cos(math.radians(lat_mid)), 1e-6) * _KM_PER_DEG
    col = math.floor(planned.lon * width / split.cell_km)
    name = f"{split.seed}/{split.cell_km:g}/{row}/{col}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64


def _corners(cells: Sequence[PlannedCell]) -> Floats:
    """Corners of the cells on the ground, (n, 4, 2) longitudes and latitudes, unwrapped around each cell's centre."""
    corners_n42 = np.zeros((len(cells), 4, 2))
    epsg_n = np.array([planned.cell.epsg for planned in cells], int)
    for epsg in np.unique(epsg_n):
        own = [int(i) for i in np.flatnonzero(epsg_n == epsg)]
        bounds_n4 = np.array([cells[i].cell.bounds for i in own], np.float64)
        lon, lat = project(int(epsg), WGS84, bounds_n4[:, [0, 2, 2, 0]], bounds_n4[:, [1, 1, 3, 3]])
        middle = np.array([[cells[i].lon] for i in own])
        corners_n42[own] = np.stack([middle + (lon - middle + 180) % 360 - 180, lat], -1)
    return corners_n42


def _grown(corners_n42: Floats, buffer_m: float, shift: float) -> NDArray[np.object_]:
    """Boxes around the cells, grown by at least `buffer_m` and two metres, moved by `shift` degrees of longitude.

    Corners that meet count as touching; the metres also cover that edges of a cell bend in longitude and latitude.
    """
    west_south, east_north = corners_n42.min(1), corners_n42.max(1)
    reach_km = (buffer_m + 2.0) / 1000
    d_lat = reach_km / _KM_PER_DEG_LAT
    poleward = np.maximum(np.abs(west_south[:, 1]), np.abs(east_north[:, 1])) + d_lat
    d_lon = reach_km / _KM_PER_DEG / np.maximum(np.cos(np.radians(poleward)), 0.01)
    boxes: NDArray[np.object_] = shapely.box(
        west_south[:, 0] - d_lon + shift,
        west_south[:, 1] - d_lat,
        east_north[:, 0] + d_lon + shift,
        east_north[:, 1] + d_lat,
    )
    return boxes
