"""Linear probe on frozen features, and what the difference between two encoders is worth.

Dims: `n` chip, `f` feature, `c` class, `s` seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t  # type: ignore[import-untyped]
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from eo_batch.core.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProbeFit:
    """What a probe reads from held-out chips."""

    r2_c: Floats
    """Coefficient of determination of each class; 0 is what predicting the test chips' mean gets (chance), 1
    is perfect. NaN where the class does not vary in the test chips."""

    alpha: float
    """Ridge penalty that cross-validation within the training chips chose."""

    predicted_nc: Floats
    """Predictions for the test chips."""

    @property
    def r2_mean(self) -> float:
        """Mean over the classes that vary; NaN where none does."""
        return float(np.nanmean(self.r2_c)) if np.isfinite(self.r2_c).any() else float("nan")


@dataclass(frozen=True)
class Margin:
    """By how much one encoder beats another, over paired seeds."""

    mean: float
    """Mean difference of the scores."""

    std: float
    """Sample standard deviation of the differences; NaN for one seed."""

    low: float
    """Lower end of the confidence interval of the mean; NaN for one seed."""

    high: float
    """Upper end."""

    seeds: int
    """Number of pairs."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def r_squared(truth_nc: Floats, predicted_nc: Floats) -> Floats:
    """Coefficient of determination of each column; NaN where the truth is constant."""
    residual_c = np.square(truth_nc - predicted_nc).sum(axis=0)
    total_c = np.square(truth_nc - truth_nc.mean(axis=0)).sum(axis=0)
    varies_c = np.ptp(truth_nc, axis=0) > 0
    return np.where(varies_c, 1.0 - residual_c / np.where(varies_c, total_c, 1.0), np.nan)


def ridge(alpha: float) -> Pipeline:
    """The probe: missing features get the training mean and say so in a feature of their own, every feature
    gets unit variance, and a ridge regression reads all classes at once."""
    imputer = SimpleImputer(strategy="mean", add_indicator=True, keep_empty_features=True)
    return make_pipeline(imputer, StandardScaler(), Ridge(alpha=alpha))


def fit_probe(
    train_nf: Floats,
    train_nc: Floats,
    groups_n: Sequence[str],
    test_nf: Floats,
    test_nc: Floats,
    alphas: Sequence[float],
    folds: int,
) -> ProbeFit:
    """Choose the penalty within the training chips, fit on all of them, score on the test chips.

    Chips of one group (neighbours) are never divided between folds, because neighbours resemble each other.
    Where there are fewer groups than folds, the chips themselves are divided. Raises DataError where there
    are too few chips to fit or to score.
    """
    if len(train_nf) < 2 * folds or len(test_nf) < 2:
        msg = f"{len(train_nf)} training and {len(test_nf)} test chips do not make a probe of {folds} folds"
        raise DataError(f"{msg}: enlarge the area or the split's shares, or lower probe.folds")
    grouped = len(set(groups_n)) >= folds
    splitter = GroupKFold(folds) if grouped else KFold(folds, shuffle=True, random_state=0)
    search = GridSearchCV(ridge(1.0), {"ridge__alpha": list(alphas)}, cv=splitter, scoring=_score)
    search.fit(train_nf, train_nc, groups=list(groups_n) if grouped else None)
    predicted_nc = np.asarray(search.predict(test_nf), dtype=np.float64).reshape(test_nc.shape)
    return ProbeFit(r_squared(test_nc, predicted_nc), float(search.best_params_["ridge__alpha"]), predicted_nc)


def _score(estimator: Pipeline, features_nf: Floats, truth_nc: Floats) -> float:
    """Negative squared error: unlike R², it needs no class to vary within a fold."""
    predicted_nc = np.asarray(estimator.predict(features_nf)).reshape(truth_nc.shape)
    return -float(np.square(predicted_nc - truth_nc).mean())


def paired_margin(scores_s: Sequence[float], baseline_s: Sequence[float], confidence: float = 0.95) -> Margin:
    """Mean of the paired differences with Student's t interval (n - 1 degrees of freedom)."""
    difference_s = np.asarray(scores_s, dtype=np.float64) - np.asarray(baseline_s, dtype=np.float64)
    count, mean = len(difference_s), float(difference_s.mean())
    if count < 2:
        return Margin(mean, float("nan"), float("nan"), float("nan"), count)
    std = float(difference_s.std(ddof=1))
    half = float(student_t.ppf(0.5 + confidence / 2, count - 1)) * std / count**0.5
    return Margin(mean, std, mean - half, mean + half, count)
