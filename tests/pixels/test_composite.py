"""Composites against a slow account of each pixel. Legend: t observations, y rows, x columns."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from eo_batch.pixels.composite import fill_in, mean, median, valid_count

Stack = tuple[NDArray[Any], NDArray[np.bool_]]


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    """(t, y, x) pixels of either storage type with validity; ends of the range are common."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)))
    if draw(st.booleans()):
        values = st.sampled_from([0, 1, 2, 65534, 65535]) | st.integers(0, 65535)
        pixels = draw(hnp.arrays(np.uint16, shape, elements=values))
    else:
        floats = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
        pixels = draw(hnp.arrays(np.float32, shape, elements=floats | st.sampled_from([0.0, -0.0, 2.0**-90])))
    return pixels, draw(hnp.arrays(bool, shape))


def taken(stack: Stack, y: int, x: int) -> list[Fraction]:
    pixels, valid = stack
    return [Fraction(pixels[t, y, x].item()) for t in range(len(pixels)) if valid[t, y, x]]


def stored(value: Fraction, dtype: np.dtype[Any]) -> Any:
    """An exact value as storage holds it: integers with halves up, floats to nearest."""
    if np.issubdtype(dtype, np.integer):
        return dtype.type(math.floor(value + Fraction(1, 2)))
    return dtype.type(float(value))


FILL = {np.dtype(np.uint16): 0.0, np.dtype(np.float32): float("nan")}
FULL = (np.array([[[65535]], [[65535]], [[65534]]], np.uint16), np.ones((3, 1, 1), bool))


def check(result: NDArray[Any], wanted: list[list[Any]], dtype: np.dtype[Any]) -> None:
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.array(wanted, dtype))


@given(stacks())
@example(FULL)
def test_median(stack: Stack) -> None:
    pixels, valid = stack
    fill = FILL[pixels.dtype]

    def one(y: int, x: int) -> Any:
        values = sorted(taken(stack, y, x))
        n = len(values)
        return stored((values[(n - 1) // 2] + values[n // 2]) / 2, pixels.dtype) if n else fill

    _, rows, cols = pixels.shape
    check(median(pixels, valid, fill), [[one(y, x) for x in range(cols)] for y in range(rows)], pixels.dtype)


@given(stacks())
@example(FULL)
def test_mean(stack: Stack) -> None:
    pixels, valid = stack
    fill = FILL[pixels.dtype]

    def one(y: int, x: int) -> Any:
        values = taken(stack, y, x)
        return stored(sum(values, Fraction(0)) / len(values), pixels.dtype) if values else fill

    _, rows, cols = pixels.shape
    wanted = np.array([[one(y, x) for x in range(cols)] for y in range(rows)], pixels.dtype)
    result = mean(pixels, valid, fill)
    assert result.dtype == pixels.dtype
    if pixels.dtype == np.uint16:
        np.testing.assert_array_equal(result, wanted)
    else:  # sums in double precision: their rounding is relative to the largest summand
        scale = float(np.abs(np.where(valid, pixels, 0)).max(initial=0))
        np.testing.assert_allclose(result, wanted, rtol=2e-7, atol=scale * 1e-15)


@given(stacks())
def test_a_mosaic_takes_the_first_valid_observation(stack: Stack) -> None:
    pixels, valid = stack
    result, result_valid = np.zeros_like(pixels[0]), np.zeros_like(valid[0])
    for more, of_it in zip(pixels, valid, strict=True):
        fill_in(result, result_valid, more, of_it)
    assert result.dtype == pixels.dtype
    assert result.shape == result_valid.shape == pixels.shape[1:]
    for y, x in np.ndindex(result.shape):
        found = [t for t in range(len(pixels)) if valid[t, y, x]]
        assert result_valid[y, x] == bool(found)
        if found:
            assert result[y, x] == pixels[found[0], y, x]


@given(stacks())
def test_valid_count(stack: Stack) -> None:
    _, valid = stack
    counts = valid_count(valid)
    assert counts.dtype == np.uint8
    for y, x in np.ndindex(counts.shape):
        assert counts[y, x] == sum(valid[t, y, x] for t in range(len(valid)))


@pytest.mark.parametrize(("observations", "count"), [(254, 254), (255, 255), (256, 255), (600, 255)])
def test_counts_stop_at_what_a_byte_holds(observations: int, count: int) -> None:
    assert valid_count(np.ones((observations, 1, 1), bool))[0, 0] == count


@given(stacks(), st.randoms(use_true_random=False))
def test_the_order_of_observations_does_not_matter(stack: Stack, random: Any) -> None:
    pixels, valid = stack
    order = list(range(len(pixels)))
    random.shuffle(order)
    fill = FILL[pixels.dtype]
    np.testing.assert_array_equal(median(pixels[order], valid[order], fill), median(pixels, valid, fill))


@given(stacks())
def test_invalid_pixels_have_no_say(stack: Stack) -> None:
    pixels, valid = stack
    fill = FILL[pixels.dtype]
    junk = np.where(valid, pixels, 65535 if pixels.dtype == np.uint16 else np.nan).astype(pixels.dtype)
    for join in (median, mean):
        np.testing.assert_array_equal(join(junk, valid, fill), join(pixels, valid, fill))


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 70])
def test_images_of_many_strips(count: int) -> None:
    rng = np.random.default_rng(count)
    shape = (count, 300, 1000 if count < 16 else 100)
    pixels = rng.integers(1, 65536, shape).astype(np.uint16)
    valid = rng.random(shape) < 0.6
    masked = np.ma.array(pixels, mask=~valid)
    middle = np.floor(np.ma.median(masked, 0).filled(0) + 0.5)
    np.testing.assert_array_equal(median(list(pixels), list(valid), 0), middle)
    np.testing.assert_array_equal(mean(list(pixels), list(valid), 0), np.floor(masked.mean(0).filled(0) + 0.5))
