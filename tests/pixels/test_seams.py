"""Files that continue each other are resampled as if they were one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eo_batch.core.utm import project
from eo_batch.pixels.align import align
from eo_batch.pixels.grids import PixelGrid, SourceImage
from eo_batch.pixels.seams import joined, mosaic

LON, LAT, DEGREES = 14.0, 48.0, 1 / 3600
SIDE = 120


def terrain() -> SourceImage:
    """120 x 120 pixels of 30 m around a whole degree, with a hole."""
    y, x = np.mgrid[:SIDE, :SIDE]
    heights = (500 + 40 * np.sin(x / 5) * np.cos(y / 7)).astype(np.float32)
    valid = np.ones((SIDE, SIDE), bool)
    valid[20:23, 50:70] = False
    left, top = LON - SIDE / 2 * DEGREES, LAT + SIDE / 2 * DEGREES
    return SourceImage(np.where(valid, heights, 0), valid, 4326, (DEGREES, 0.0, left, 0.0, -DEGREES, top))


def part(whole: SourceImage, rows: slice, cols: slice) -> SourceImage:
    """A window of an image, as a file of its own whose header was written with rounding."""
    a, _, c, _, e, f = whole.transform
    corner = (c + a * (cols.start or 0) + 1e-9, f + e * (rows.start or 0) - 1e-9)
    return SourceImage(
        whole.pixels_yx[rows, cols], whole.valid_yx[rows, cols], 4326, (a, 0, corner[0], 0, e, corner[1])
    )


def grid() -> PixelGrid:
    x, y = project(4326, 32633, np.array([LON]), np.array([LAT]))
    return PixelGrid(32633, float(x[0]) - 900, float(y[0]) + 1200, 10.0, 240, 180)


HALF = SIDE // 2
QUARTERS = [(rows, cols) for rows in (slice(HALF), slice(HALF, None)) for cols in (slice(HALF), slice(HALF, None))]


def same(found: tuple[NDArray[Any], NDArray[np.bool_]], wanted: SourceImage) -> None:
    aligned = align(wanted, grid(), "bilinear")
    np.testing.assert_array_equal(found[1], aligned.valid_yx)
    np.testing.assert_allclose(found[0][found[1]], aligned.pixels_yx[found[1]], atol=1e-2)


def test_four_tiles_around_a_corner_are_as_one() -> None:
    whole = terrain()
    quarters = [part(whole, *at) for at in QUARTERS]
    [image] = joined(quarters)
    np.testing.assert_array_equal(image.pixels_yx, whole.pixels_yx)
    np.testing.assert_array_equal(image.valid_yx, whole.valid_yx)
    same(mosaic(quarters, grid(), "bilinear"), whole)
    apart = [align(quarter, grid(), "bilinear") for quarter in quarters]
    seen = np.select([one.valid_yx for one in apart], [one.pixels_yx for one in apart])
    valid = align(whole, grid(), "bilinear").valid_yx
    off = np.abs(seen - align(whole, grid(), "bilinear").pixels_yx)[valid]
    assert off.max() > 1, "file by file the seam shows"


def test_of_tiles_that_overlap_the_first_counts() -> None:
    whole = terrain()
    west, east = part(whole, slice(None), slice(80)), part(whole, slice(None), slice(40, None))
    other = replace(east, pixels_yx=east.pixels_yx + 7)
    [image] = joined([west, other])
    np.testing.assert_array_equal(image.pixels_yx[:, :80], whole.pixels_yx[:, :80])
    valid = whole.valid_yx[:, 80:]
    np.testing.assert_array_equal(image.pixels_yx[:, 80:][valid], (whole.pixels_yx + np.float32(7))[:, 80:][valid])


@pytest.mark.parametrize("change", ["shifted", "finer", "other CRS", "other type", "far away", "turned"])
def test_what_is_on_no_common_lattice_stays_apart(change: str) -> None:
    whole = terrain()
    west, east = part(whole, slice(None), slice(HALF)), part(whole, slice(None), slice(HALF, None))
    a, _, c, _, e, f = east.transform
    other = {
        "shifted": replace(east, transform=(a, 0, c + a / 2, 0, e, f)),
        "finer": replace(east, transform=(a / 2, 0, c, 0, e, f)),
        "other CRS": replace(east, epsg=32633),
        "other type": replace(east, pixels_yx=east.pixels_yx.astype(np.float64)),
        "far away": replace(east, transform=(a, 0, c + 1000 * a, 0, e, f)),
        "turned": replace(east, transform=(a, a / 9, c, a / 9, e, f)),
    }[change]
    assert joined([west, other]) == [west, other]


def test_a_single_file_is_aligned_as_it_is() -> None:
    whole = terrain()
    assert joined([whole])[0] is whole
    same(mosaic([whole], grid(), "bilinear"), whole)
