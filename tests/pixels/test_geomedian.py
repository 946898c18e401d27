"""The geometric median against a slow search in double precision, and against what defines it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from numpy.typing import NDArray

from eo_batch.pixels.composite import median
from eo_batch.pixels.geomedian import TOLERANCE, geomedian, geometric_median
from tests.pixels.observing import FILL, observations, observed, points

SLOW = settings(deadline=None, max_examples=60)
Case = tuple[NDArray[Any], NDArray[np.bool_]]
Points = list[list[float]]


def total(at: list[float], seen: Points) -> float:
    return math.fsum(math.dist(at, point) for point in seen)


def least_total(seen: Points) -> float:
    """The least sum of distances to the points: at an observation, or where plain Weiszfeld ends from beside the mean
    and from beside the best observation."""
    bands = range(len(seen[0]))
    spread = max(math.dist(seen[0], point) for point in seen)
    nearest = min(seen, key=lambda point: total(point, seen))
    best = total(nearest, seen)
    mean = [math.fsum(point[b] for point in seen) / len(seen) for b in bands]
    for share in (0.001, 0.9):
        at = [
            share * m + (1 - share) * p + 1e-7 * spread * b for b, (m, p) in enumerate(zip(mean, nearest, strict=True))
        ]
        for _ in range(1000):
            far = [math.dist(at, point) for point in seen]
            if min(far) == 0:
                break
            sums = math.fsum(1 / d for d in far)
            after = [math.fsum(p[b] / d for d, p in zip(far, seen, strict=True)) / sums for b in bands]
            moved, at = math.dist(at, after), after
            if moved <= 1e-12 * spread:
                break
        best = min(best, total(at, seen))
    return best


@given(observed(most=9))
@SLOW
def test_no_point_has_a_smaller_sum_of_distances(case: Case) -> None:
    pixels, valid = case
    wide = np.where(valid[:, None], pixels, 0).astype(np.float64)
    for y, x in np.argwhere(valid.any(axis=0))[:2]:
        found = geometric_median(wide[:, :, y, x][:, :, None], valid[:, y, x][:, None])[:, 0]
        seen = [point for _, point in points(pixels, valid, y, x)]
        assert total(list(found), seen) <= least_total(seen) * (1 + TOLERANCE)


@given(observed())
@SLOW
def test_stored_values_are_the_median_but_for_rounding(case: Case) -> None:
    pixels, valid = case
    result = geomedian(observations(pixels, valid), FILL[pixels.dtype])
    assert result.dtype == pixels.dtype
    assert result.shape == pixels.shape[1:]
    for y, x in np.ndindex(result.shape[1:]):
        seen = [point for _, point in points(pixels, valid, y, x)]
        if not seen:
            np.testing.assert_array_equal(result[:, y, x], np.full(len(result), FILL[pixels.dtype], pixels.dtype))
        elif pixels.dtype == np.uint16:
            off = math.sqrt(len(result)) / 2  # half a unit in each band
            assert total(list(result[:, y, x]), seen) <= least_total(seen) * (1 + TOLERANCE) + off * len(seen)


@pytest.mark.parametrize(("count", "bands"), [(3, 2), (3, 6), (4, 3), (5, 4), (12, 4), (12, 10), (40, 6)])
def test_the_minimum_is_stationary(count: int, bands: int) -> None:
    """Unit vectors to the observations cancel at the minimum, or are held by an observation that lies there
    (Kuhn 1973). In general position that names one point."""
    rng = np.random.default_rng(count * bands)
    x_tbn = np.round(rng.normal(3000, 400, (count, bands, 400)) + rng.normal(0, 300, (count, 1, 400)))
    valid_tn = rng.random((count, 400)) < 0.8
    valid_tn[:3] = True
    y_bn = geometric_median(x_tbn, valid_tn)
    held = 0
    for n in range(400):
        seen = x_tbn[valid_tn[:, n], :, n]
        apart = seen - y_bn[:, n]
        far = np.sqrt((apart**2).sum(1))
        here = int((far == 0).sum())
        pull = float(np.linalg.norm((apart[far > 0] / far[far > 0, None]).sum(0)))
        held += here > 0
        assert pull <= here if here else pull * far.min() < 1e-3 * far.mean()
    assert held > 0 or count > 4


def test_in_a_triangle_it_is_fermats_point() -> None:
    """All sides are seen under 120 degrees from it: for this triangle at (0, 1/sqrt 3)."""
    corners = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])[:, :, None]
    found = geometric_median(corners, np.ones((3, 1), bool))[:, 0]
    np.testing.assert_allclose(found, [0, 1 / math.sqrt(3)], atol=TOLERANCE)


def test_an_obtuse_corner_is_the_median_itself() -> None:
    """From 120 degrees on, Fermat's point is the corner; iterations alone get there ever more slowly."""
    corners = np.array([[0.0, 0.0], [10.0, 1.0], [-10.0, 1.0]])[:, :, None]
    np.testing.assert_array_equal(geometric_median(corners, np.ones((3, 1), bool))[:, 0], [0, 0])


def test_far_observations_do_not_blur_near_ones() -> None:
    """The median lies among values that differ by one while others are a cloud's: steps of two sizes lead there."""
    seen = [[2.0, 2.0], [1.0, 1.0], [2.0, 65535.0], [1.0, 1.0], [65535.0, 2.0], [2.0, 1.0]]
    found = geometric_median(np.array(seen)[:, :, None], np.ones((len(seen), 1), bool))[:, 0]
    assert np.all((found > 1) & (found < 2))
    assert total(list(found), seen) <= least_total(seen) + 0.1


@given(observed(most=7, bands=1))
@SLOW
@example((np.array([[[[1]]], [[[4]]]], np.uint16), np.ones((2, 1, 1), bool)))
def test_of_one_band_it_is_the_median(case: Case) -> None:
    pixels, valid = case
    fill = FILL[pixels.dtype]
    result = geomedian(observations(pixels, valid), fill)
    np.testing.assert_array_equal(result[0], median(list(pixels[:, 0]), list(valid), fill))


def test_of_two_observations_it_is_the_middle() -> None:
    pixels = np.array([[[[10]], [[20]]], [[[13]], [[40]]]], np.uint16)
    np.testing.assert_array_equal(geomedian(observations(pixels, np.ones((2, 1, 1), bool)), 0)[:, 0, 0], [12, 30])


def test_the_scale_of_the_values_does_not_matter() -> None:
    """No length in the stop rule depends on units."""
    rng = np.random.default_rng(5)
    x_tbn, valid_tn = rng.normal(3, 1, (7, 4, 500)), rng.random((7, 500)) < 0.7
    valid_tn[0] = True
    for factor in (1e-9, 1e6):
        found = geometric_median(x_tbn * factor, valid_tn)
        np.testing.assert_allclose(found, geometric_median(x_tbn, valid_tn) * factor, rtol=TOLERANCE)
