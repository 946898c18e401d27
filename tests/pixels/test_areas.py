"""Area-weighted resampling against totals that are known, and against fine supersampling."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eo_batch.core.sensors import Resampling
from eo_batch.core.utm import project
from eo_batch.pixels.areas import class_areas, conserve
from eo_batch.pixels.grids import PixelGrid, SourceImage

LON, LAT = 14.3, 48.2
HOW: tuple[Resampling, ...] = ("sum", "mean")


def around(pixel: float, rows: int, cols: int, epsg: int = 32633) -> PixelGrid:
    """A grid in UTM with its middle at a place."""
    x, y = project(4326, epsg, np.array([LON]), np.array([LAT]))
    left, top = x[0] - cols * pixel / 2, y[0] + rows * pixel / 2
    return PixelGrid(epsg, float(left), float(top), pixel, rows, cols)


def degrees(pixel: float, rows: int, cols: int, seed: int = 0, top: int = 100) -> SourceImage:
    """Random whole numbers on a grid of longitude and latitude with its middle near the same place."""
    pixels = np.random.default_rng(seed).integers(1, top, (rows, cols)).astype(np.float64)
    transform = (pixel, 0.0, LON - cols * pixel / 2, 0.0, -pixel, LAT + rows * pixel / 2)
    return SourceImage(pixels, np.ones((rows, cols), bool), 4326, transform)


def as_codes(source: SourceImage) -> SourceImage:
    return replace(source, pixels_yx=source.pixels_yx.astype(np.uint16))


@pytest.mark.parametrize("pixel_m", [10.0, 90.0, 700.0])
@pytest.mark.parametrize("pixel_deg", [1 / 12000, 1 / 1200, 1 / 120])
def test_a_sum_is_kept_in_both_directions(pixel_m: float, pixel_deg: float) -> None:
    """The grid reaches beyond the file on all sides, so every count has a cell to go to."""
    side = max(2, round(0.02 / pixel_deg))
    source = degrees(pixel_deg, side, side)
    extent = side * pixel_deg * 112_000 + 20 * pixel_m
    grid = around(pixel_m, round(extent / pixel_m), round(extent / pixel_m))
    counts, valid = conserve([source], grid, "sum")
    assert counts.sum() == pytest.approx(source.pixels_yx.sum(), rel=1e-12)
    assert (counts[~valid] == 0).all()
    assert valid.any()
    assert not valid.all()


def supersampled(source: SourceImage, grid: PixelGrid, k: int) -> NDArray[Any]:
    """Mean of the source's nearest pixel over k x k points a cell."""
    x = grid.left + (np.arange(grid.cols * k) + 0.5) * grid.pixel / k
    y = grid.top - (np.arange(grid.rows * k) + 0.5) * grid.pixel / k
    lon, lat = project(grid.epsg, 4326, *np.meshgrid(x, y))
    a, _, c, _, e, f = source.transform
    col, row = np.floor((lon - c) / a).astype(int), np.floor((lat - f) / e).astype(int)
    return source.pixels_yx[row, col].reshape(grid.rows, k, grid.cols, k)


@pytest.mark.parametrize(("pixel_m", "k"), [(320.0, 400), (30.0, 60), (10.0, 40)])
def test_a_mean_is_that_of_fine_supersampling(pixel_m: float, k: int) -> None:
    source = degrees(1 / 3600, 140, 140)
    grid = around(pixel_m, 4, 4)
    mean, valid = conserve([source], grid, "mean")
    assert valid.all()
    np.testing.assert_allclose(mean, supersampled(source, grid, k).mean((1, 3)), atol=100 / k)


def test_shares_of_classes_are_those_of_fine_supersampling() -> None:
    source = as_codes(degrees(1 / 12000, 300, 300, top=4))
    grid = around(320.0, 2, 2)
    codes, areas = class_areas([source], grid)
    assert codes.tolist() == [1, 2, 3]
    np.testing.assert_allclose(areas.sum(-1), 320.0**2, rtol=1e-9)
    fine = supersampled(source, grid, 800)
    for m, code in enumerate(codes):
        np.testing.assert_allclose(areas[..., m] / 320.0**2, (fine == code).mean((1, 3)), atol=6e-4)


@given(st.integers(0, 10_000), st.floats(0.2, 3.0), st.floats(0, 1), st.floats(0, 1))
def test_overlaps_of_two_lattices_are_products(seed: int, ratio: float, dx: float, dy: float) -> None:
    """In one projection the area that two pixels share is the product of what they share along each axis."""
    grid = PixelGrid(32633, 500_000.0, 5_000_000.0, 10.0, 5, 6)
    pixel = 10.0 * ratio
    rows = cols = int(np.ceil(100 / pixel)) + 2
    pixels = np.random.default_rng(seed).random((rows, cols))
    left, top = grid.left - 15 - dx * pixel, grid.top + 15 + dy * pixel
    source = SourceImage(pixels, np.ones((rows, cols), bool), 32633, (pixel, 0.0, left, 0.0, -pixel, top))
    mean, valid = conserve([source], grid, "mean")

    def along(first: float, count: int, origin: float, cells: int) -> NDArray[Any]:
        low, at = origin + np.arange(count) * pixel, first + np.arange(cells)[:, None] * 10.0
        return np.clip(np.minimum(low + pixel, at + 10.0) - np.maximum(low, at), 0, None)

    across = along(0.0, cols, left - grid.left, grid.cols)
    down = along(0.0, rows, grid.top - top, grid.rows)
    assert valid.all()
    np.testing.assert_allclose(mean, down @ pixels @ across.T / 100.0, rtol=1e-6)
    total, _ = conserve([source], grid, "sum")
    np.testing.assert_allclose(total, down @ pixels @ across.T / pixel**2, rtol=1e-6)


def test_tiles_that_repeat_each_other_count_once() -> None:
    whole = degrees(1 / 1200, 40, 40)
    a, _, c, _, e, f = whole.transform
    left = SourceImage(whole.pixels_yx[:, :25], whole.valid_yx[:, :25], 4326, whole.transform)
    right = SourceImage(whole.pixels_yx[:, 15:], whole.valid_yx[:, 15:], 4326, (a, 0.0, c + 15 * a, 0.0, e, f))
    grid = around(50.0, 100, 100)
    for how in HOW:
        one, one_valid = conserve([whole], grid, how)
        two, two_valid = conserve([left, right], grid, how)
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(two_valid, one_valid)
    _, one_areas = class_areas([as_codes(whole)], grid)
    _, two_areas = class_areas([as_codes(left), as_codes(right)], grid)
    np.testing.assert_allclose(two_areas, one_areas, atol=1e-6)


def test_what_is_missing_is_no_part_of_a_mean_and_of_no_total() -> None:
    source = degrees(1 / 1200, 40, 40)
    hole = np.ones((40, 40), bool)
    hole[10:30, 10:30] = False
    gone = SourceImage(np.where(hole, source.pixels_yx, 1e6), hole, 4326, source.transform)
    grid = around(50.0, 100, 100)
    counts, _ = conserve([gone], grid, "sum")
    assert counts.sum() == pytest.approx(source.pixels_yx[hole].sum(), rel=1e-12)
    mean, valid = conserve([gone], grid, "mean")
    assert mean.max() < 100
    assert not valid[50, 50]


def test_codes_above_255_stay_codes() -> None:
    pixels = np.where(np.arange(16).reshape(4, 4) % 2, 9120, 1110).astype(np.uint16)
    source = SourceImage(pixels, pixels > 0, 32633, (10.0, 0.0, 0.0, 0.0, -10.0, 40.0))
    codes, areas = class_areas([source], PixelGrid(32633, 0.0, 40.0, 40.0, 1, 1))
    assert dict(zip(codes.tolist(), areas[0, 0].tolist(), strict=True)) == {1110: 800.0, 9120: 800.0}
