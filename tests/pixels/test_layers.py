"""Layers give the same pixels in strips as one alignment of the whole image. Legend: y rows, x columns."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eo_batch.pixels.align import PixelGrid, SourceImage, align
from eo_batch.pixels.layers import layer_of

GRID = PixelGrid(32633, 500000.0, 5400000.0, 10.0, 24, 18)


def convert(pixels: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Some conversion that changes type and validity."""
    valid = mask & (pixels != 7)
    return np.where(valid, pixels.astype(np.uint16) + 100, 0).astype(np.uint16), valid


@st.composite
def sources(draw: st.DrawFn, ratios: st.SearchStrategy[float], nested: bool) -> SourceImage:
    """A file over, beside or around the grid."""
    rows, cols, seed = draw(st.integers(1, 30)), draw(st.integers(1, 30)), draw(st.integers(0, 99))
    pixel = GRID.pixel * draw(ratios)
    shift = 0.0 if nested else draw(st.sampled_from([2.5, 3.0]))
    left = GRID.left + GRID.pixel * draw(st.integers(-20, 20)) + shift
    top = GRID.top + GRID.pixel * draw(st.integers(-20, 30)) - shift
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 12, (rows, cols)).astype(np.uint8)
    return SourceImage(pixels, rng.random((rows, cols)) < 0.8, GRID.epsg, (pixel, 0.0, left, 0.0, -pixel, top))


def same_in_strips(source: SourceImage, method: Any, step: int) -> None:
    pixels, valid = convert(source.pixels_yx, source.valid_yx)
    whole = align(SourceImage(pixels, valid, source.epsg, source.transform), GRID, method)
    layer = layer_of(source, GRID, method, convert)
    for first in range(0, GRID.rows, step):
        last = min(first + step, GRID.rows)
        strip, strip_valid = layer.rows(first, last)
        assert strip.dtype == np.uint16
        np.testing.assert_array_equal(strip_valid, whole.valid_yx[first:last])
        np.testing.assert_array_equal(strip[strip_valid], whole.pixels_yx[first:last][strip_valid])


@given(sources(st.sampled_from([1.0, 2.0, 3.0]), nested=True), st.sampled_from([1, 5, 24]))
def test_nested_classes(source: SourceImage, step: int) -> None:
    same_in_strips(source, "nearest", step)


@given(sources(st.just(1.0), nested=True), st.sampled_from([1, 7]))
def test_nested_measurements(source: SourceImage, step: int) -> None:
    same_in_strips(source, "bilinear", step)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@given(sources(st.sampled_from([0.5, 1.0, 2.0]), nested=False), st.sampled_from([4, 24]))
def test_what_is_resampled(method: str, source: SourceImage, step: int) -> None:
    same_in_strips(source, method, step)


def test_nothing_is_converted_before_it_is_asked_for() -> None:
    asked: list[tuple[int, ...]] = []

    def noted(pixels: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        asked.append(pixels.shape)
        return pixels, mask

    source = SourceImage(
        np.ones((50, 50), np.uint8), np.ones((50, 50), bool), GRID.epsg, (10.0, 0.0, GRID.left, 0.0, -10.0, GRID.top)
    )
    layer = layer_of(source, GRID, "nearest", noted)
    assert not asked
    layer.rows(4, 6)
    assert asked == [(2, GRID.cols)], "what lies beyond the block is left out"
