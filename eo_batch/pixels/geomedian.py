"""The geometric median over bands. Legend: t observations, b bands, n pixels in line, y rows, x columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.pixels.composite import median
from eo_batch.pixels.observations import Floats, Mask, Observation, distance, nearest, parts

TOLERANCE = 1e-5
"""Length of the step after which a pixel is done, relative to the mean distance of its observations."""
MOST_STEPS = 200
"""Steps after which a pixel is taken as it is; most need six, and hardly any twenty."""
_ROUNDING = 1e-12
_RIDGE = 1e-6
"""Added to the curvature, which is none along a line of observations."""
_TINY = float(np.finfo(np.float64).tiny)


def geomedian(observations_t: Sequence[Observation], fill: float) -> NDArray[Any]:
    """The point with the least sum of distances to the valid observations, (b, y, x); `fill` where there is none.

    Distances are Euclidean over the bands' stored values (Roberts, Mueller and McIntyre 2017, High-dimensional pixel
    composites from Earth observation time series, IEEE TGRS 55(11), 6254-6264,
    https://doi.org/10.1109/TGRS.2017.2723896). Integers are rounded, halves up. Where the point is not unique (two
    observations, or an even number on one line), two give their middle, more give the medoid; one band gives the
    median.
    """
    first = observations_t[0]
    dtype = first.pixels_b[0].dtype
    valid_tyx = [one.valid_yx for one in observations_t]
    if len(first.pixels_b) == 1:
        return median([one.pixels_b[0] for one in observations_t], valid_tyx, fill)[None]
    out = np.full((len(first.pixels_b), *first.valid_yx.shape), fill, dtype)
    for rows, x_tbn, valid_tn in parts(observations_t):
        some_n = valid_tn.any(axis=0)
        found_bn = geometric_median(x_tbn[:, :, some_n], valid_tn[:, some_n])
        if np.issubdtype(dtype, np.integer):
            np.floor(found_bn + 0.5, out=found_bn)
        out[:, rows][:, some_n.reshape(-1, out.shape[2])] = found_bn.astype(dtype)
    return out


def geometric_median(x_tbn: Floats, valid_tn: Mask) -> Floats:
    """The geometric median (b, n) of values (t, b, n), each pixel of which has a valid observation.

    If it is an observation, it is the medoid, and the pull of the others on the medoid proves it. Else the first step
    leads away from there, Weiszfeld's in the form of Vardi and Zhang (2000, The multivariate L1-median and associated
    data depth, PNAS 97(4), 1423-1426), to where the sum of distances is less than at any observation, so smooth on all
    the way down. Newton's steps follow, each cut by four until it lowers the sum. A pixel is done when a step is below
    `TOLERANCE`.
    """
    count_n = valid_tn.sum(axis=0)
    at_bn = np.take_along_axis(x_tbn, nearest(x_tbn, valid_tn)[None, None], axis=0)[0]
    around = _Surroundings.of(x_tbn, valid_tn, at_bn)
    step_bn = around.first_step()
    y_bn: Floats = np.where(count_n > 2, at_bn, np.where(valid_tn[:, None], x_tbn, 0.0).sum(axis=0) / count_n)
    going = np.flatnonzero((count_n > 2) & (distance(step_bn) > 0))
    x_tbn, valid_tn, at_bn, step_bn = x_tbn[:, :, going], valid_tn[:, going], at_bn[:, going], step_bn[:, going]
    total_n = around.total_n[going]
    for _ in range(MOST_STEPS):
        if not going.size:
            break
        around = _Surroundings.of(x_tbn, valid_tn, at_bn + step_bn)
        lower_n = around.total_n < total_n
        at_bn = np.where(lower_n, at_bn + step_bn, at_bn)
        total_n = np.where(lower_n, around.total_n, total_n)
        step_bn = np.where(lower_n, around.newton_step(), step_bn / 4).astype(np.float64)
        y_bn[:, going] = at_bn
        more_n = distance(step_bn) > TOLERANCE * total_n / valid_tn.sum(axis=0)
        going, total_n = going[more_n], total_n[more_n]
        x_tbn, valid_tn, at_bn, step_bn = x_tbn[:, :, more_n], valid_tn[:, more_n], at_bn[:, more_n], step_bn[:, more_n]
    return y_bn


@dataclass(frozen=True)
class _Surroundings:
    """What the sum of distances to the valid observations is like around one point of each pixel."""

    apart_tbn: Floats
    """From the point to each observation."""
    weight_tn: Floats
    """1 / distance; 0 for invalid observations and those at the point."""
    pull_bn: Floats
    """Sum of unit vectors to the observations: where the sum of distances falls, and how fast."""
    here_n: NDArray[np.intp]
    """Observations at the point itself."""
    total_n: Floats
    """Sum of distances."""

    @classmethod
    def of(cls, x_tbn: Floats, valid_tn: Mask, y_bn: Floats) -> "_Surroundings":
        apart_tbn = x_tbn - y_bn
        far_tn = distance(np.moveaxis(apart_tbn, 1, 0))
        at_tn = valid_tn & (far_tn == 0)
        weight_tn = np.zeros_like(far_tn)
        np.divide(1.0, far_tn, out=weight_tn, where=valid_tn & ~at_tn)
        pull_bn = (apart_tbn * weight_tn[:, None]).sum(axis=0)
        return cls(apart_tbn, weight_tn, pull_bn, at_tn.sum(axis=0), (far_tn * valid_tn).sum(axis=0))

    def first_step(self) -> Floats:
        """Away from an observation; 0 where the pull of the others does not move it, since it is the minimum (Kuhn
        1973, A note on Fermat's problem, Mathematical Programming 4, 98-107)."""
        pull_n = distance(self.pull_bn)
        moved_n = pull_n > self.here_n * (1 + _ROUNDING)
        part_n = np.where(moved_n, 1 - self.here_n / np.maximum(pull_n, 1), 0)  # one is there at least
        step: Floats = self.pull_bn / np.maximum(self.weight_tn.sum(axis=0), _TINY) * part_n
        return step

    def newton_step(self) -> Floats:
        bent_tbn = self.apart_tbn * (self.weight_tn * np.sqrt(self.weight_tn))[:, None]
        weight_n = np.maximum(self.weight_tn.sum(axis=0), _TINY)
        bands = range(len(self.pull_bn))
        hessian_nbb = np.empty((weight_n.size, len(bands), len(bands)))
        for b in bands:
            for c in bands[: b + 1]:
                hessian_nbb[:, b, c] = hessian_nbb[:, c, b] = -(bent_tbn[:, b] * bent_tbn[:, c]).sum(axis=0)
            hessian_nbb[:, b, b] += weight_n * (1 + _RIDGE)
        step: Floats = np.asarray(np.linalg.solve(hessian_nbb, self.pull_bn.T[:, :, None])[:, :, 0].T, np.float64)
        return step
