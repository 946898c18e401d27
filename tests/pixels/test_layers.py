"""Layers give the same pixels in strips as one alignment of the whole image. Legend: y rows, x columns."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eo_batch.io.windows import RawImage
from eo_batch.pixels.align import align
from eo_batch.pixels.grids import PixelGrid, SourceImage
from eo_batch.pixels.layers import layer_of

GRID = PixelGrid(32633, 500000.0, 5400000.0, 10.0, 24, 18)


def convert(pixels: NDArray[Any], mask: NDArray[np.bool_] | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Some conversion that changes type and validity."""
    valid = (pixels != 7) if mask is None else mask & (pixels != 7)
    return np.where(valid, pixels.astype(np.uint16) + 100, 0).astype(np.uint16), valid


@st.composite
def sources(draw: st.DrawFn, ratios: st.SearchStrategy[float], nested: bool) -> RawImage:
    """A file over, beside or around the grid."""
    rows, cols, seed = draw(st.integers(1, 30)), draw(st.integers(1, 30)), draw(st.integers(0, 99))
    pixel = GRID.pixel * draw(ratios)
    shift = 0.0 if nested else draw(st.sampled_from([2.5, 3.0]))
    left = GRID.left + GRID.pixel * draw(st.integers(-20, 20)) + shift
    top = GRID.top + GRID.pixel * draw(st.integers(-20, 30)) - shift
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 12, (rows, cols)).astype(np.uint8)
    mask = rng.random((rows, cols)) < 0.8 if draw(st.booleans()) else None
    return RawImage(pixels, mask, GRID.epsg, (pixel, 0.0, left, 0.0, -pixel, top), None, 0, 0)


def same_in_strips(source: RawImage, method: Any, step: int) -> None:
    pixels, valid = convert(source.pixels_yx, source.mask_yx)
    whole = align(SourceImage(pixels, valid, source.epsg, source.transform), GRID, method)
    layer = layer_of(source, GRID, method, convert)
    for first in range(0, GRID.rows, step):
        last = min(first + step, GRID.rows)
        part = layer.rows(first, last)
        assert part.pixels_yx.dtype == np.uint16
        valid = np.zeros((last - first, GRID.cols), bool)
        valid[part.at] = part.valid_yx
        np.testing.assert_array_equal(valid, whole.valid_yx[first:last])
        expected = whole.pixels_yx[first:last][part.at]
        np.testing.assert_array_equal(part.pixels_yx[part.valid_yx], expected[part.valid_yx])


@given(sources(st.sampled_from([1.0, 2.0, 3.0]), nested=True), st.sampled_from([1, 5, 24]))
def test_nested_classes(source: RawImage, step: int) -> None:
    same_in_strips(source, "nearest", step)


@given(sources(st.sampled_from([0.25, 0.5, 1.0]), nested=True), st.sampled_from([1, 7]))
def test_nested_measurements(source: RawImage, step: int) -> None:
    same_in_strips(source, "bilinear", step)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@given(sources(st.sampled_from([0.5, 1.0, 2.0]), nested=False), st.sampled_from([4, 24]))
def test_what_is_resampled(method: str, source: SourceImage, step: int) -> None:
    same_in_strips(source, method, step)


def test_nothing_is_converted_before_it_is_asked_for() -> None:
    asked: list[tuple[int, ...]] = []

    def noted(pixels: NDArray[Any], mask: NDArray[np.bool_] | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        asked.append(pixels.shape)
        return pixels, pixels > 0

    image = np.ones((50, 50), np.uint8)
    source = RawImage(image, None, GRID.epsg, (10.0, 0.0, GRID.left, 0.0, -10.0, GRID.top), None, 0, 0)
    layer = layer_of(source, GRID, "nearest", noted)
    assert not asked
    layer.rows(4, 6)
    assert asked == [(2, GRID.cols)], "what lies beyond the block is left out"
