"""Points count once, on edges too; polygons cover what geometry says."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from eo_batch.core.utm import project
from eo_batch.pixels.grids import PixelGrid
from eo_batch.pixels.vectors import count_points, cover_polygons, meets

BLOCKS = [PixelGrid(32633, 499_200.0 + 640 * c, 5_299_840.0 + 640 * r, 64.0, 10, 10) for r in (0, 1) for c in (0, 1)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40), st.integers(0, 99))
def test_every_point_counts_once_over_all_blocks(corners: list[tuple[int, int]], seed: int) -> None:
    """On corners and edges of pixels and blocks, repeated, and anywhere."""
    x = np.array([499_200.0 + 64 * c for c, _ in corners])
    y = np.array([5_299_200.0 + 64 * r for _, r in corners])
    anywhere = np.random.default_rng(seed).random((20, 2)) * 1280 + [499_200, 5_299_200]
    xy = np.vstack([np.column_stack([x, y]), np.column_stack([x, y]), anywhere])
    lonlat = np.column_stack(project(32633, 4326, *xy.T))
    back = np.column_stack(project(4326, 32633, *lonlat.T))  # what rounding makes of a point on an edge
    inside = ((back >= [499_200, 5_299_200]) & (back < [500_480, 5_300_480])).all(1)
    assert sum(count_points(lonlat, block).sum() for block in BLOCKS) == inside.sum()


def test_a_pixel_holds_its_western_and_southern_edge() -> None:
    grid = PixelGrid(32633, 499_200.0, 5_299_328.0, 64.0, 2, 2)
    # A point just north of the middle row's edge is in the upper row.
    lon, lat = project(32633, 4326, np.array([499_200.001] * 2), np.array([5_299_264.001, 5_299_263.999]))
    np.testing.assert_array_equal(count_points(np.column_stack([lon, lat]), grid), [[1, 0], [1, 0]])


def test_two_zones_do_not_both_count_a_point() -> None:
    """Chips of zones 32 and 33 that share ground at 12 degrees east."""
    lonlat = np.array([[11.9999, 48.0], [12.0, 48.0], [12.0001, 48.0]])
    counts = {}
    for epsg in (32632, 32633):
        x, y = project(4326, epsg, np.array([12.0]), np.array([48.0]))
        grid = PixelGrid(epsg, x[0] // 64 * 64 - 320, y[0] // 64 * 64 + 320, 64.0, 10, 10)
        counts[epsg] = int(count_points(lonlat, grid).sum())
    assert counts == {32632: 1, 32633: 2}


def test_coverage_is_the_polygons_area() -> None:
    grid = PixelGrid(32633, 500_000.0, 5_300_640.0, 10.0, 64, 64)
    middle = project(32633, 4326, np.array([500_300.0]), np.array([5_300_300.0]))
    circle = shapely.Point(middle[0][0], middle[1][0]).buffer(0.002)
    hole = shapely.Point(middle[0][0], middle[1][0]).buffer(0.0007)
    polygons = np.array([shapely.difference(circle, hole), shapely.affinity.translate(circle, 0.001, 0)])
    share = cover_polygons(polygons, grid)
    lines = shapely.segmentize(polygons, 0.0005)
    flat = shapely.transform(lines, lambda xy: np.column_stack(project(4326, 32633, *xy.T)))
    truth = shapely.union_all(flat)
    assert share.sum() * 100 == pytest.approx(truth.area, rel=1e-6)
    assert share.min() == 0
    assert share.max() == 1
    for row, col in ((10, 20), (30, 30), (5, 33), (50, 12)):
        box = shapely.box(*(500_000 + 10 * np.array([col, 0, col + 1, 0]) + np.array([0, 4_800_640 - 10 * (row + 1), 0,
                            4_800_640 - 10 * row])))  # fmt: skip
        assert share[row, col] == pytest.approx(truth.intersection(box).area / 100, abs=1e-5)


def test_a_bow_tie_is_mended_and_nothing_covers_nothing() -> None:
    grid = PixelGrid(32633, 500_000.0, 5_300_640.0, 64.0, 10, 10)
    assert cover_polygons(np.array([], object), grid).sum() == 0
    x, y = [500_100.0, 500_500, 500_500, 500_100], [5_300_100.0, 5_300_500, 5_300_100, 5_300_500]
    lon, lat = project(32633, 4326, np.array(x), np.array(y))
    tie = shapely.Polygon(np.column_stack([lon, lat]))
    assert cover_polygons(np.array([tie]), grid).sum() * 64**2 == pytest.approx(80_000, rel=1e-3)


@pytest.mark.parametrize("zone", [1, 33, 60])
@pytest.mark.parametrize(
    "box", [(-180, -90, 180, 90), (-180, -60, 180, 80), (-200, 0, 200, 84), (0, -90, 360, 90)], ids=str
)
def test_a_box_around_the_globe_holds_every_block(zone: int, box: tuple[float, float, float, float]) -> None:
    for left in (200_000.0, 500_000.0, 780_000.0):
        grid = PixelGrid(32600 + zone, left, 5_400_000.0, 100.0, 20, 20)
        assert meets(box, grid).all()


def test_a_box_across_the_antimeridian_and_one_that_is_elsewhere() -> None:
    grid = PixelGrid(32601, 300_000.0, 5_400_000.0, 100.0, 20, 20)  # about 179.7 degrees west
    assert meets((179.0, 40.0, 181.0, 60.0), grid).all()
    assert meets((-181.0, 40.0, -179.0, 60.0), grid).all()
    assert not meets((10.0, 40.0, 20.0, 60.0), grid).any()
    half = meets((-180.0, 40.0, -179.0, 60.0), PixelGrid(32601, 300_000.0, 5_400_000.0, 1000.0, 100, 100))
    assert half.any()
    assert not half.all()
