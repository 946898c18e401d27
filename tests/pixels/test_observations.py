"""Composites that take one observation a pixel, against loops over pixels. Legend: t observations, b bands, y, x."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eo_batch.pixels.observations import Observation, first_valid, latest_valid, least_cloudy, medoid
from tests.pixels.observing import FILL, observations, observed, points

SLOW = settings(deadline=None, max_examples=60)
Case = tuple[NDArray[Any], NDArray[np.bool_]]


def check(result: NDArray[Any], case: Case, choose: Callable[[int, int], int | None]) -> None:
    """Every pixel has all bands of the observation that `choose` names, bit by bit; None names none."""
    pixels, _ = case
    assert result.dtype == pixels.dtype
    assert result.shape == pixels.shape[1:]
    for y, x in np.ndindex(result.shape[1:]):
        t = choose(y, x)
        wanted = np.full(len(result), FILL[pixels.dtype], pixels.dtype) if t is None else pixels[t, :, y, x]
        np.testing.assert_array_equal(result[:, y, x], wanted)


@given(observed())
@SLOW
def test_latest_valid(case: Case) -> None:
    def last(y: int, x: int) -> int | None:
        return max((t for t, _ in points(*case, y, x)), default=None)

    check(latest_valid(observations(*case), FILL[case[0].dtype]), case, last)


@given(observed())
@SLOW
def test_the_tiles_of_an_overpass_are_joined_by_the_first_that_is_valid_in_all_bands(case: Case) -> None:
    joined = first_valid(observations(*case))
    np.testing.assert_array_equal(joined.valid_yx, case[1].any(axis=0))
    for y, x in np.argwhere(joined.valid_yx):
        first = min(t for t, _ in points(*case, y, x))
        assert [band[y, x] for band in joined.pixels_b] == list(case[0][first, :, y, x])


@given(observed(), st.integers(1, 2))
@SLOW
def test_least_cloudy(case: Case, side: int) -> None:
    pixels, valid = (np.tile(array, (side, side)) for array in case)

    def best(y: int, x: int) -> int | None:
        top, left = y // side * side, x // side * side
        ranked = []
        for t in range(len(pixels)):
            chip = [bool(valid[t, row, col]) for row in range(top, top + side) for col in range(left, left + side)]
            if valid[t, y, x]:
                ranked.append((-sum(chip), t))
        return min(ranked)[1] if ranked else None

    check(least_cloudy(observations(pixels, valid), side, FILL[pixels.dtype]), (pixels, valid), best)


def test_a_chip_is_one_image_but_for_its_holes() -> None:
    """Three dates over two chips of 2 px: the clearest differs between the chips; a hole takes the next clearest."""
    values = np.broadcast_to(np.array([10, 20, 30], np.uint16)[:, None, None, None], (3, 2, 2, 4)).copy()
    valid = np.ones((3, 2, 4), bool)
    valid[0, :, 1:] = False  # clear in the first column
    valid[1, 0, 0] = False  # left chip: one hole
    valid[1, :, 2:] = False
    valid[2, :, :2] = [[True, False], [False, False]]
    valid[2, 1, 3] = False  # a hole that nothing fills
    image = least_cloudy(observations(values, valid), 2, 0)
    np.testing.assert_array_equal(image, [[[10, 20, 30, 30], [20, 20, 30, 0]]] * 2)


def test_of_equally_clear_observations_the_earliest_is_taken() -> None:
    values = np.arange(1, 4, dtype=np.uint16).reshape(3, 1, 1, 1)
    assert least_cloudy(observations(values, np.ones((3, 1, 1), bool)), 1, 0)[0, 0, 0] == 1


def sums(seen: list[tuple[int, list[float]]]) -> list[float]:
    """Of each point the sum of its distances to the others, in the order of time."""
    found = []
    for t, point in seen:
        total = 0.0
        for other, other_point in seen:
            if other != t:
                squares = 0.0
                for a, b in zip(point, other_point, strict=True):
                    squares += (a - b) ** 2
                total += math.sqrt(squares)
        found.append(total)
    return found


@given(observed())
@SLOW
def test_medoid(case: Case) -> None:
    def nearest(y: int, x: int) -> int | None:
        seen = points(*case, y, x)
        totals = sums(seen)
        return seen[totals.index(min(totals))][0] if seen else None

    check(medoid(observations(*case), FILL[case[0].dtype]), case, nearest)


def test_of_two_observations_the_earlier_is_the_medoid() -> None:
    pixels = np.array([[[[7]], [[9]]], [[[9]], [[7]]]], np.uint16)
    np.testing.assert_array_equal(medoid(observations(pixels, np.ones((2, 1, 1), bool)), 0)[:, 0, 0], [7, 9])


def test_a_medoid_is_no_median_of_each_band() -> None:
    """Band by band the middle would be (2, 2), a colour that was never seen."""
    pixels = np.array([[1, 2], [2, 9], [9, 1]], np.uint16).reshape(3, 2, 1, 1)
    np.testing.assert_array_equal(medoid(observations(pixels, np.ones((3, 1, 1), bool)), 0)[:, 0, 0], [1, 2])


@pytest.mark.parametrize("seed", range(3))
def test_images_of_many_parts(seed: int) -> None:
    """More pixels than one part holds: each row is what it is alone."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 65536, (12, 4, 130, 1000)).astype(np.uint16)
    valid = rng.random((12, 130, 1000)) < 0.6
    whole = medoid(observations(pixels, valid), 0)
    for row in (0, 57, 129):
        part = slice(row, row + 1)
        np.testing.assert_array_equal(whole[:, part], medoid(observations(pixels[:, :, part], valid[:, part]), 0))


def test_observations_that_are_not_in_line_in_memory() -> None:
    pixels = np.arange(1, 49, dtype=np.uint16).reshape(2, 2, 4, 3)
    valid = np.ones((2, 4, 3), bool)
    turned = [
        Observation([np.asfortranarray(p) for p in one.pixels_b], one.valid_yx) for one in observations(pixels, valid)
    ]
    for join in (latest_valid, medoid):
        np.testing.assert_array_equal(join(turned, 0), join(observations(pixels, valid), 0))
