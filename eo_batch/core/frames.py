"""Where catalogues say that rasters lie, and whether they contradict themselves. Legend: k kinds of scenes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.plan import asset_bounds
from eo_batch.core.scenes import Scene
from eo_batch.core.utm import WGS84, Floats, project

Frame = tuple[int, tuple[float, float, float, float]]
"""EPSG code, and (x_min, y_min, x_max, y_max) in it."""
_MARGIN_DEG = 0.1
"""Boxes of degrees that are closer than this may be of one raster: edges that are straight in one CRS bend in
another, and catalogues round."""
_WIDEST_DEG = 170.0
"""A raster that is wider than this may go round the other way: its longitudes are all."""
_ALONG = np.linspace(0.0, 1.0, 5)
"""Where along a raster's sides its place is worked out."""


def frame_of(scene: Scene) -> Frame | None:
    """CRS and bounds of a scene's raster, from the first file that tells both."""
    for asset in scene.assets:
        if asset.epsg is not None and asset.transform is not None and asset.shape is not None:
            return asset.epsg, asset_bounds(asset)
    return None


def misplaced(kinds: Sequence[Scene], kind: NDArray[np.integer[Any]], bbox: Floats) -> NDArray[np.bool_]:
    """Of each scene, whether its raster lies elsewhere than its box.

    kinds: scenes of which each shows what many share. kind: of each scene its position there. bbox: (scene, 4) west,
    south, east, north. A raster whose place is not told does not contradict.
    """
    # NaN is nowhere.
    west, south, east, north = (np.full(len(kinds), np.nan) for _ in range(4))
    told = [(k, frame) for k, frame in enumerate(map(frame_of, kinds)) if frame is not None]
    for epsg in {frame[0] for _, frame in told}:
        own = [k for k, frame in told if frame[0] == epsg]
        bounds = np.array([frame[1] for _, frame in told if frame[0] == epsg])
        lon, lat = _outline(epsg, bounds)
        middle = lon[:, 0]
        turned = middle[:, None] + (lon - middle[:, None] + 180) % 360 - 180
        # Points that have no place are left out.
        west[own], east[own] = np.fmin.reduce(turned, 1), np.fmax.reduce(turned, 1)
        south[own], north[own] = np.fmin.reduce(lat, 1), np.fmax.reduce(lat, 1)
    east[east - west > _WIDEST_DEG] += 360
    is_told = np.zeros(len(kinds), bool)
    is_told[[k for k, _ in told]] = True
    width = (bbox[:, 2] - bbox[:, 0]) % 360
    width[bbox[:, 2] - bbox[:, 0] >= 360] = 360
    # From the western edge of one box to that of the other, eastwards: within either box's width.
    ahead = (west[kind] - bbox[:, 0]) % 360
    behind = (bbox[:, 0] - west[kind]) % 360
    meets = (ahead <= width + _MARGIN_DEG) | (behind <= (east - west)[kind] + _MARGIN_DEG)
    meets &= (south[kind] <= bbox[:, 3] + _MARGIN_DEG) & (north[kind] >= bbox[:, 1] - _MARGIN_DEG)
    found: NDArray[np.bool_] = is_told[kind] & ~meets
    return found


def _outline(epsg: int, bounds: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude of points of rasters, (raster, point), the first of which is in the middle."""
    x_min, y_min, x_max, y_max = (bounds[:, i, None] for i in range(4))
    across, down = (axis.ravel() for axis in np.meshgrid(_ALONG, _ALONG))
    order = np.argsort(np.abs(across - 0.5) + np.abs(down - 0.5), kind="stable")
    x = x_min + (x_max - x_min) * across[order]
    y = y_min + (y_max - y_min) * down[order]
    lon, lat = project(epsg, WGS84, x, y)
    gone = ~(np.isfinite(lon) & np.isfinite(lat))
    return np.where(gone, np.nan, lon), np.where(gone, np.nan, lat)
