"""Control points that are interpolated, against PROJ's transformation of each."""

from __future__ import annotations

import numpy as np
import pytest

from eo_batch.core.utm import WGS84, project
from eo_batch.pixels.positions import STEP_PX, controls

METRE = 1 / 111_320
"""Degrees of latitude."""


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (1024, 1030)])
@pytest.mark.parametrize("lat", [0.0, 45.0, -60.0, 83.5])
@pytest.mark.parametrize("other", [32632, WGS84, 3035])
@pytest.mark.parametrize(("pixel", "most"), [(10.0, 1e-8), (120.0, 1e-4)])
def test_control_points_lie_where_proj_has_them(
    shape: tuple[int, int], lat: float, other: int, pixel: float, most: float
) -> None:
    epsg = 32733 if lat < 0 else 32633
    x0, y0 = (float(value[0]) for value in project(WGS84, epsg, np.array([17.9]), np.array([lat])))
    transform = (pixel, 0.0, x0, 0.0, -pixel, y0)
    x, y = controls(transform, shape, 0.5, epsg, other)
    row_cc, col_cc = np.mgrid[tuple(slice(-(-length // STEP_PX) + 1) for length in shape)] * STEP_PX + 0.5
    true_x, true_y = project(epsg, other, x0 + col_cc * pixel, y0 - row_cc * pixel)
    unit = pixel * METRE if other == WGS84 else pixel
    assert x.shape == y.shape == true_x.shape
    assert np.abs(x - true_x).max() * (np.cos(np.radians(lat)) if other == WGS84 else 1) < most * unit
    assert np.abs(y - true_y).max() < most * unit


def test_longitudes_do_not_jump_at_the_antimeridian() -> None:
    x0, y0 = (float(value[0]) for value in project(WGS84, 32660, np.array([179.99]), np.array([10.0])))
    x, _ = controls((10.0, 0.0, x0, 0.0, -10.0, y0), (512, 512), 0.5, 32660, WGS84)
    assert x.max() > 180
    assert (np.diff(x, axis=1) > 0).all()


def test_points_without_a_place_do_not_spoil_their_neighbours() -> None:
    shape, half_turn = (8, 4096), 180.0 / 4096
    transform = (half_turn, 0.0, 15.0, 0.0, -half_turn, 0.2)  # to beyond what the zone's projection has
    x, y = controls(transform, shape, 0.0, WGS84, 32633)
    lon, lat = np.meshgrid(15.0 + np.arange(513) * STEP_PX * half_turn, 0.2 - np.arange(2) * STEP_PX * half_turn)
    true_x, true_y = project(WGS84, 32633, lon, lat)
    assert not np.isfinite(true_x).all()
    np.testing.assert_array_equal(x, true_x)
    np.testing.assert_array_equal(y, true_y)
