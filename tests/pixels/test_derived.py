"""Slope and aspect against surfaces whose slope is known."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eo_batch.pixels.derived import derive

PX = 10.0
TERRAIN = ("elevation", "slope", "aspect", "eastness", "northness")


def surface(rows: int, cols: int, rise_east: float, rise_north: float) -> NDArray[np.float32]:
    """A plane, float32, with one pixel of halo around rows x cols."""
    x = (np.arange(cols + 2) - 1) * PX
    y = -(np.arange(rows + 2) - 1) * PX  # rows go south
    return (100 + rise_east * x[None, :] + rise_north * y[:, None]).astype(np.float32)


def terrain(elevation: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    out, defined = derive(elevation[None], ("elevation",), TERRAIN, PX)
    return dict(zip(TERRAIN, out, strict=True)), defined


@pytest.mark.parametrize("faces", [0.0, 45.0, 90.0, 135.0, 200.0, 315.0])
@pytest.mark.parametrize("slope", [2.0, 30.0, 60.0])
def test_a_plane(slope: float, faces: float) -> None:
    """A plane that faces `faces` falls in that direction, so it rises the other way."""
    steep = np.tan(np.radians(slope))
    found, defined = terrain(surface(6, 5, -steep * np.sin(np.radians(faces)), -steep * np.cos(np.radians(faces))))
    assert defined.all()
    np.testing.assert_allclose(found["slope"], slope, atol=1e-3)
    away = (found["aspect"] - faces + 180) % 360 - 180
    np.testing.assert_allclose(away, 0, atol=0.02)
    np.testing.assert_allclose(found["eastness"], np.sin(np.radians(slope)) * np.sin(np.radians(faces)), atol=1e-4)
    np.testing.assert_allclose(found["northness"], np.sin(np.radians(slope)) * np.cos(np.radians(faces)), atol=1e-4)


def test_flat_ground_has_no_aspect_and_its_normal_points_up() -> None:
    found, defined = terrain(np.full((5, 5), 7, np.float32))
    assert (found["slope"] == 0).all()
    assert np.isnan(found["aspect"]).all()
    assert (found["eastness"] == 0).all()
    assert (found["northness"] == 0).all()
    assert defined.all(), "flat ground is known to be flat"


def test_a_hill_is_steepest_where_its_formula_says() -> None:
    """z = h exp(-r²/2s²) has slope atan(z r / s²); 10 m pixels over s = 300 m leave a part in a thousand."""
    y, x = np.mgrid[-61:62, -61:62] * PX
    r, s, h = np.hypot(x, y), 300.0, 200.0
    z = h * np.exp(-(r**2) / (2 * s**2))
    found, _ = terrain(z.astype(np.float32))
    truth = np.degrees(np.arctan(z * r / s**2))[1:-1, 1:-1]
    np.testing.assert_allclose(found["slope"], truth, atol=0.05)
    faces = np.degrees(np.arctan2(x, -y))[1:-1, 1:-1] % 360  # downhill is away from the middle
    away = np.abs((found["aspect"] - faces + 180) % 360 - 180)
    assert away[truth > 5].max() < 0.1


def test_nothing_is_known_beside_what_is_missing() -> None:
    elevation = surface(7, 7, 0.1, 0.2)
    elevation[4, 4] = np.nan
    found, defined = terrain(elevation)
    hole = np.zeros((7, 7), bool)
    hole[2:5, 2:5] = True
    for name in ("slope", "aspect", "eastness", "northness"):
        np.testing.assert_array_equal(np.isnan(found[name]), hole)
    np.testing.assert_array_equal(defined, ~hole)
    assert np.isnan(found["elevation"]).sum() == 1


def test_cutting_a_block_in_two_leaves_no_seam() -> None:
    z = (np.random.default_rng(1).random((34, 66)) * 50).astype(np.float32)
    whole, _ = terrain(z)
    left, right = terrain(z[:, :34])[0], terrain(z[:, 32:])[0]
    for name in TERRAIN:
        np.testing.assert_array_equal(np.hstack([left[name], right[name]]), whole[name])


def test_the_ratio_is_a_difference_in_decibels() -> None:
    vv, vh = np.float32([[0.1, 0.2, np.nan, 0.4]]), np.float32([[0.01, 0.05, 0.1, 0.0]])
    out, defined = derive(np.stack([vv, vh]), ("VV", "VH"), ("VV", "VV/VH"), PX)
    db = 10 * np.log10(out[1])
    np.testing.assert_allclose(db[0, :2], (10 * np.log10(vv[0, :2]) - 10 * np.log10(vh[0, :2])), atol=1e-5)
    assert np.isnan(out[1, 0, 2:]).all(), "no ratio without both, nor to nothing"
    np.testing.assert_array_equal(defined, [[True, True, False, False]])
