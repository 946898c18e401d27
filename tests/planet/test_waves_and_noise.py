"""Random fields and noise have the moments that they promise, in whatever pieces they are read."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eo_batch.pixels.planet_noise import lane, noise_key, normal, pixel_bits, speckle
from eo_batch.pixels.planet_waves import generator, grain_waves, normal_quantile, rare_bias, smooth_waves

BITS = pixel_bits(noise_key("test"), 0, 0, (700, 700))


def points(count: int, size_m: float) -> tuple[np.ndarray, np.ndarray]:
    xy = np.random.default_rng(3).uniform(-size_m, size_m, (2, count)).astype(np.float32)
    return xy[0], xy[1]


@pytest.mark.parametrize("direction_deg", [0.0, 45.0, 100.0])
def test_grain_has_mean_0_variance_1_and_the_stated_exponential_mean(direction_deg: float) -> None:
    waves = grain_waves(generator(1, "shape"), generator(1, "phase"), 40, 60.0, direction_deg, 15.0)
    value = waves(*points(200_000, 20_000)).astype(float)
    assert abs(value.mean()) < 0.01
    assert value.var() == pytest.approx(1, abs=0.02)
    assert np.exp(0.45 * value).mean() == pytest.approx(waves.exp_mean(0.45), rel=0.005)


def test_turned_grain_keeps_its_wavelengths_and_stays_in_its_fan() -> None:
    turned = [grain_waves(generator(1, "s"), generator(1, "p", d), 40, 60.0, d, 15.0) for d in (0.0, 90.0)]
    lengths = [2 * math.pi / np.hypot(w.kx, w.ky) for w in turned]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-5)
    assert lengths[0].min() >= 48
    assert lengths[0].max() <= 72
    for waves, direction in zip(turned, (0, 90), strict=True):
        deviation = np.degrees(np.arctan2(waves.ky, waves.kx)) - direction
        assert np.abs(deviation).max() <= 15.001


def test_a_field_is_a_function_of_place_not_of_the_array_it_is_asked_in() -> None:
    waves = smooth_waves(generator(1, "a"), 20, 500, 2000)
    x, y = points(100_000, 8000)
    whole = waves(x, y)
    np.testing.assert_allclose(waves(x[41_000:41_007], y[41_000:41_007]), whole[41_000:41_007], atol=1e-6)
    assert waves(x[:6].reshape(2, 3), y[:6].reshape(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.15])
def test_rare_bias_gives_the_asked_share(share: float) -> None:
    fields = np.random.default_rng(0).standard_normal((6, 400_000))
    fields[4:] += rare_bias(4, 2, share)
    winner = fields.argmax(axis=0)
    assert (winner == 4).mean() == pytest.approx(share, abs=0.003)


def test_normal_quantile_inverts_the_distribution() -> None:
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-5)
    assert normal_quantile(0.5) == pytest.approx(0, abs=1e-8)


@given(looks=st.floats(1, 30))
@settings(max_examples=10, deadline=None)
def test_speckle_has_mean_1_and_the_asked_looks(looks: float) -> None:
    value = speckle(BITS, 0, looks).astype(float)
    assert value.min() > 0
    assert value.mean() == pytest.approx(1, abs=0.01)
    assert 1 / value.var() == pytest.approx(looks, rel=0.03)


def test_speckle_follows_the_gamma_distribution() -> None:
    from scipy.stats import gamma, kstest

    value = speckle(BITS, 1, 4.4).ravel()[::25].astype(float)
    assert kstest(value, gamma(4.4, scale=1 / 4.4).cdf).statistic < 0.012


def test_normal_noise_is_normal_and_lanes_and_neighbours_are_independent() -> None:
    first, second = normal(BITS, 0), normal(BITS, 1)
    assert first.std() == pytest.approx(1, abs=0.01)
    assert abs(first.mean()) < 0.01
    for other in (second, np.roll(first, 1, axis=0), np.roll(first, 1, axis=1)):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.01
    assert np.bincount(lane(BITS, 2).ravel() >> 12, minlength=16).std() < 300  # of 30,625 in each sixteenth


def test_noise_of_a_window_is_that_part_of_the_whole() -> None:
    window = pixel_bits(noise_key("test"), 100, 37, (50, 60))
    np.testing.assert_array_equal(window, BITS[100:150, 37:97])
    assert not np.array_equal(pixel_bits(noise_key("other"), 100, 37, (50, 60)), window)
    below_zero = pixel_bits(noise_key("test"), -5, -5, (10, 10))
    np.testing.assert_array_equal(below_zero[5:, 5:], BITS[:5, :5])
