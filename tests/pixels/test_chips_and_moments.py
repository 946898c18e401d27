"""Chips of a block's image, and moments that merge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eo_batch.core.grid import Block
from eo_batch.pixels.chips import any_of, chips_of, share_of
from eo_batch.pixels.moments import EMPTY, Moments, merge, moments_of, moments_of_stored


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_chips_are_views_of_the_image(side: int, bands: int, px: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 2**16, (bands, side * px, side * px), np.uint16)
    chips = chips_of(image, side)
    assert chips.shape == (side, side, bands, px, px)
    assert np.shares_memory(chips, image)
    for row, col in np.ndindex(side, side):
        top = (side - 1 - row) * px
        np.testing.assert_array_equal(chips[row, col], image[:, top : top + px, col * px : (col + 1) * px])
    mask = image[0] > 40_000
    each = chips_of(mask[None], side).reshape(side**2, -1)
    np.testing.assert_array_equal(any_of(mask, side), each.any(1))
    np.testing.assert_allclose(share_of(mask, side), each.mean(1))


def test_chips_lie_where_their_cells_do() -> None:
    """Images begin in the north, cells count northwards: each pixel must keep its ground."""
    side, px, chip_m = 3, 4, 40
    block = Block(32633, 7, 11, chip_m, side)
    x_min, _, _, y_max = block.bounds
    pixel_m = chip_m // px
    steps = np.arange(side * px)
    x_yx, y_yx = np.meshgrid(x_min + (steps + 0.5) * pixel_m, y_max - (steps + 0.5) * pixel_m)
    chips = chips_of(np.stack([x_yx, y_yx]), side)
    for cell in block.cells():
        x0, y0, x1, y1 = cell.bounds
        x, y = chips[divmod(block.place(cell), side)]
        assert x0 < x.min() < x.max() < x1
        assert y0 < y.min() < y.max() < y1
        assert (np.diff(x, axis=1) == pixel_m).all()  # columns eastwards
        assert (np.diff(y, axis=0) == -pixel_m).all()  # rows southwards


parts = st.lists(
    hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(-1e4, 1e4, allow_subnormal=False)), max_size=6
)


def merged(populations: list[np.ndarray]) -> Moments:
    total = EMPTY
    for values in populations:
        total = merge(total, moments_of(values))
    return total


@given(parts)
def test_merged_moments_are_those_of_everything_together(populations: list[np.ndarray]) -> None:
    everything = np.concatenate([np.zeros(0), *populations])
    total = merged(populations)
    assert total.n == everything.size
    if everything.size:
        assert total.mean == pytest.approx(everything.mean(), rel=1e-9, abs=1e-9)
        assert total.std == pytest.approx(everything.std() if everything.size > 1 else 0, rel=1e-6, abs=1e-5)
    else:
        assert total == EMPTY


@given(parts)
def test_the_order_of_merging_does_not_matter(populations: list[np.ndarray]) -> None:
    forth, back = merged(populations), merged(populations[::-1])
    assert forth.n == back.n
    assert forth.mean == pytest.approx(back.mean, rel=1e-9, abs=1e-9)
    assert forth.m2 == pytest.approx(back.m2, rel=1e-6, abs=1e-4)


def test_a_small_spread_on_a_large_level_survives() -> None:
    """Sums of squares would lose it: 1e6 squared leaves no room for 1e-3 in a single pass."""
    values = 1e6 + 1e-3 * np.random.default_rng(0).standard_normal(100_000)
    total = merged(np.array_split(values, 37))
    assert total.std == pytest.approx(values.std(), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_storage_types_do_not_overflow(dtype: type) -> None:
    values = np.full((1000, 1000), 200, dtype)
    assert moments_of(values) == Moments(1_000_000, 200.0, 0.0)


def test_few_values_have_no_spread() -> None:
    assert EMPTY.std == 0
    assert moments_of(np.array([3.0])) == Moments(1, 3.0, 0.0)
    assert moments_of(np.array([3.0])).std == 0


@given(hnp.arrays(np.uint16, (4, 5), elements=st.sampled_from([0, 1, 65535]) | st.integers(0, 65535)))
def test_moments_of_stored_numbers(stored: np.ndarray) -> None:
    found = moments_of_stored(stored, 0.0001, -0.1)
    wanted = moments_of(stored[stored > 0] * 0.0001 - 0.1)
    assert found.n == wanted.n
    assert found.mean == pytest.approx(wanted.mean, rel=1e-12, abs=1e-12)
    assert found.m2 == pytest.approx(wanted.m2, rel=1e-9, abs=1e-15)
