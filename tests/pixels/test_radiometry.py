"""Stored numbers to the cube's encoding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eo_batch.core.sensors import SCL_INVALID, SCL_NAMES, SENSOR_KINDS
from eo_batch.pixels.radiometry import class_counts, clear_sky, to_storage, valid_pixels

S2, S1 = SENSOR_KINDS["s2-l2a"], SENSOR_KINDS["s1"]


@given(st.integers(0, 65535), st.sampled_from([0.0, -1000.0]))
def test_reflectance_survives_the_encoding(dn: int, offset_dn: float) -> None:
    """Whatever offset a file still carries, the cube's scale and offset give (DN + offset) / 10000."""
    pixels = np.array([[dn]], np.uint16)
    stored = to_storage(pixels, np.ones((1, 1), bool), S2, 0.0001, offset_dn, False)
    assert stored.dtype == np.uint16
    physical = stored[0, 0] * S2.scale_factor + S2.add_offset
    wanted = (dn + offset_dn) / 10_000
    assert physical == pytest.approx(np.clip(wanted, 0.0001 - 0.1, 65535 * 0.0001 - 0.1), abs=1e-9)
    assert stored[0, 0] > 0  # 0 means no data


def test_harmonised_and_unharmonised_files_of_one_scene_agree() -> None:
    """The same ground, once as ESA writes it and once with the offset taken out."""
    esa = np.arange(1, 4000, dtype=np.uint16)[None]
    harmonised = np.maximum(esa.astype(int) - 1000, 1).astype(np.uint16)
    valid = np.ones(esa.shape, bool)
    left, right = to_storage(esa, valid, S2, 1e-4, -1000, False), to_storage(harmonised, valid, S2, 1e-4, 0, False)
    np.testing.assert_array_equal(left[esa > 1000], right[esa > 1000])
    assert (left[esa <= 1000] < 1001).all()  # dark ground stays dark, below what the publisher floored to 1


@pytest.mark.parametrize(("decibel", "power"), [(0.0, 1.0), (-10.0, 0.1), (-20.0, 0.01), (3.0, 1.9952623)])
def test_decibels_become_power(decibel: float, power: float) -> None:
    stored = np.array([[round(decibel / 0.0001)]], np.int32)
    value = to_storage(stored, np.ones((1, 1), bool), S1, 0.0001, 0.0, True)
    assert value.dtype == np.float32
    assert value[0, 0] == pytest.approx(power, rel=1e-6)
    linear = to_storage(np.array([[power]], np.float32), np.ones((1, 1), bool), S1, 1.0, 0.0, False)
    assert linear[0, 0] == np.float32(power)


@pytest.mark.parametrize("kind", SENSOR_KINDS)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_valid_pixels_are_not_0_and_others_are_numbers(kind: str, dtype: type) -> None:
    """0 stands for no data where the type has no NaN; a NaN beside a valid pixel would spread in resampling."""
    pixels = np.array([[7, 9]], dtype)
    if dtype is np.float32:
        if kind in ("s2-l2a", "classes"):
            return  # integer products
        pixels[0, 1] = np.nan
    stored = to_storage(pixels, np.array([[True, False]]), SENSOR_KINDS[kind], 1.0, 0.0, kind == "s1")
    assert stored.dtype == np.dtype(SENSOR_KINDS[kind].dtype)
    assert stored[0, 0] != 0
    assert np.isfinite(stored[0, 1])


def test_continuous_scale_and_offset() -> None:
    stored = to_storage(np.array([[10]], np.uint8), np.ones((1, 1), bool), SENSOR_KINDS["continuous"], 0.5, -40, False)
    assert stored[0, 0] == (10 - 40) * 0.5


@pytest.mark.parametrize(
    ("pixels", "nodata", "valid"),
    [
        (np.array([0, 1, 2], np.uint16), 0.0, [False, True, True]),
        (np.array([0, 1, 2], np.uint16), None, [True, True, True]),
        (np.array([0, 1, 2], np.uint16), float("nan"), [True, True, True]),
        (np.array([0, 1, 2], np.uint16), -32768.0, [True, True, True]),
        (np.array([np.nan, 0, np.inf], np.float32), None, [False, True, False]),
        (np.array([np.nan, 0, -32768], np.float32), -32768.0, [False, True, False]),
        (np.array([np.nan, 0, 1], np.float32), float("nan"), [False, True, True]),
        (np.array([-32767, 0, 1], np.int16), -32767.0, [False, True, True]),
        (np.array([0, 1, 2], np.uint8), 0.5, [True, True, True]),
        (np.array([0, 1, 2], np.uint8), -9999.0, [True, True, True]),
    ],
)
def test_pixels_that_hold_data(pixels: np.ndarray, nodata: float | None, valid: list[bool]) -> None:
    before = pixels.copy()
    np.testing.assert_array_equal(valid_pixels(pixels, nodata), valid)
    np.testing.assert_array_equal(pixels, before)


def test_scene_classification() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert set(codes[clear_sky(codes, SCL_INVALID)]) == {2, 4, 5, 6, 7, 11}
    assert set(codes[clear_sky(codes, ())]) == set(SCL_NAMES)  # codes outside the legend never pass


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_class_counts(dtype: type) -> None:
    assert class_counts(np.array([[4, 12], [12, 255]], dtype)) == {4: 1, 12: 2, 255: 1}
    assert class_counts(np.zeros((0, 3), dtype)) == {}
