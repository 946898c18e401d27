"""Probe, margins, band statistics and the way from physical pixels to model pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from sklearn.metrics import r2_score

from eo_batch.core.errors import DataError
from eo_batch.models.features import band_statistics, mean_over_bins
from eo_batch.models.heads import fit_probe, paired_margin, r_squared
from eo_batch.models.inputs import BandScaling, standardise

ALPHAS = (0.01, 1.0, 100.0, 10_000.0)


def linear_data(count: int, noise: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(99).normal(size=(5, 3))
    features = rng.normal(size=(count, 5)) * [1, 10, 0.01, 1, 1]
    return features, (features / [1, 10, 0.01, 1, 1]) @ weights + noise * rng.normal(size=(count, 3))


def probe(train, test, alphas=ALPHAS, groups=None):
    groups = groups or [str(i // 5) for i in range(len(train[0]))]
    return fit_probe(*train, groups, *test, alphas, folds=5)


def test_a_linear_truth_is_read_whatever_the_scale_of_features():
    fit = probe(linear_data(200, 0.0), linear_data(80, 0.0, seed=1))
    assert fit.r2_c == pytest.approx(1.0, abs=1e-6)
    assert fit.alpha == ALPHAS[0]


def test_features_that_know_nothing_score_chance():
    rng = np.random.default_rng(5)
    train, test = linear_data(200, 0.0), linear_data(80, 0.0, seed=1)
    fit = probe((rng.normal(size=(200, 30)), train[1]), (rng.normal(size=(80, 30)), test[1]))
    assert abs(fit.r2_mean) < 0.1
    assert fit.alpha == ALPHAS[-1]


def test_missing_features_are_told_from_values():
    """A feature that is missing exactly where the target is high tells the target."""
    rng = np.random.default_rng(5)
    target = (rng.random((200, 1)) < 0.3).astype(float)
    features = np.where(target > 0, np.nan, rng.normal(size=(200, 1)))
    fit = probe((features[:150], target[:150]), (features[150:], target[150:]))
    assert fit.r2_mean > 0.99


def test_one_class_alone_and_a_class_that_does_not_vary():
    train, test = linear_data(100, 0.1), linear_data(40, 0.1, seed=1)
    alone = probe((train[0], train[1][:, :1]), (test[0], test[1][:, :1]))
    assert alone.r2_c.shape == (1,)
    constant = test[1].copy()
    constant[:, 2] = 0.5
    fit = probe(train, (test[0], constant))
    assert np.isnan(fit.r2_c[2])
    assert fit.r2_mean == pytest.approx(fit.r2_c[:2].mean())


def test_too_few_chips_are_refused():
    with pytest.raises(DataError, match="6 training and 40 test"):
        probe(linear_data(6, 0.1), linear_data(40, 0.1))


def test_neighbours_never_judge_one_another():
    """Copies of one chip in several folds would make any feature look good and choose no penalty."""
    rng = np.random.default_rng(1)
    features, target = (
        np.repeat(rng.normal(size=(30, 40)), 6, axis=0),
        np.repeat(rng.normal(size=(30, 1)), 6, axis=0),
    )
    test = rng.normal(size=(50, 40)), rng.normal(size=(50, 1))
    grouped = probe((features, target), test, groups=[str(i // 6) for i in range(180)])
    divided = probe((features, target), test, groups=[str(i % 6) for i in range(180)])
    assert grouped.alpha == ALPHAS[-1]
    assert divided.alpha == ALPHAS[0]


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_r_squared_is_that_of_scikit_learn(count, seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.normal(size=(count, 2)), rng.normal(size=(count, 2))
    assert r_squared(truth, predicted) == pytest.approx(r2_score(truth, predicted, multioutput="raw_values"))


def test_the_interval_is_that_of_a_paired_t_test():
    scores, baseline = [0.81, 0.79, 0.84, 0.80, 0.83], [0.6, 0.55, 0.61, 0.62, 0.58]
    margin = paired_margin(scores, baseline)
    low, high = ttest_1samp(np.subtract(scores, baseline), 0).confidence_interval(0.95)
    assert (margin.low, margin.high) == pytest.approx((low, high))
    assert margin.mean == pytest.approx(0.222)
    assert margin.excludes_zero
    assert not paired_margin([1.0, 0.0, 0.5], [0.5, 0.5, 0.0]).excludes_zero


def test_one_seed_has_a_margin_but_no_interval():
    margin = paired_margin([0.8], [0.5])
    assert margin.mean == pytest.approx(0.3)
    assert np.isnan([margin.std, margin.low, margin.high]).all()
    assert not margin.excludes_zero


def test_band_statistics_are_averaged_over_bins_and_missing_ones_are_nan():
    moments = {("a", "s1", "VV"): [(1.0, 0.5), (3.0, 1.5)], ("b", "s2", "B04"): [(7.0, 0.1)]}
    features = band_statistics(moments, [("s1", "VV"), ("s2", "B04")], ["b", "a"])
    assert features[0].tolist()[2:] == [7.0, 0.1]
    assert features[1].tolist()[:2] == [2.0, 1.0]
    assert np.isnan(features[0, :2]).all()
    assert np.isnan(features[1, 2:]).all()


def test_vectors_are_averaged_over_the_bins_that_have_one():
    vectors = [("a", np.float32([1, 2])), ("b", np.float32([5, 5])), ("a", np.float32([3, 4]))]
    features = mean_over_bins(vectors, ["c", "a"])
    assert np.isnan(features[0]).all()
    assert features[1].tolist() == [2.0, 3.0]


def test_decibels_are_taken_before_standardising():
    power = np.full((1, 1, 2, 2), 0.01, np.float32)  # -20 dB
    power[0, 0, 0, 1], power[0, 0, 1, 0] = 0.1, -5.0
    valid = np.ones(power.shape, bool)
    valid[0, 0, 1, 1] = False
    pixels, kept = standardise(power, valid, BandScaling("db", (-20.0,), (5.0,)), "s1_10m")
    assert pixels[0, 0].ravel() == pytest.approx([0.0, 2.0, 0.0, 0.0], abs=1e-5)
    assert kept[0, 0].ravel().tolist() == [True, True, False, False]  # no logarithm of a negative power
    assert pixels.dtype == np.float32


def test_linear_scaling_and_constant_bands():
    values = np.array([[[[1.0, 3.0]], [[7.0, 7.0]]]], np.float32)
    pixels, valid = standardise(
        values, np.ones((1, 1, 2), bool)[:, None], BandScaling("linear", (2.0, 7.0), (1.0, 0.0)), "a"
    )
    assert pixels[0, :, 0].tolist() == [[-1.0, 1.0], [0.0, 0.0]]
    assert valid.shape == pixels.shape


def test_broken_input_is_refused_naming_the_array():
    values = np.ones((1, 1, 2, 2), np.float32)
    values[0, 0, 0, 0] = np.nan
    scaling = BandScaling("linear", (0.0,), (1.0,))
    with pytest.raises(DataError, match="s2_10m: 1 pixels"):
        standardise(values, np.ones(values.shape, bool), scaling, "s2_10m")
    assert standardise(values, np.isfinite(values), scaling, "s2_10m")[0][0, 0, 0, 0] == 0
    with pytest.raises(DataError, match="1 bands, its statistics have 2"):
        standardise(values, np.isfinite(values), BandScaling("linear", (0.0, 0.0), (1.0, 1.0)), "s2_10m")
