"""Observations of a few pixels to composite, and a plain account of one pixel. Legend: t observations, b bands."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from eo_batch.pixels.observations import Observation

FILL = {np.dtype(np.uint16): 0.0, np.dtype(np.float32): float("nan")}


@st.composite
def observed(draw: st.DrawFn, most: int = 40, bands: int = 4) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels (t, b, y, x) of either storage type, with ties, and validity (t, y, x). Invalid floats may be NaN or
    infinite."""
    t, b = draw(st.integers(1, most)), draw(st.integers(1, bands))
    shape = (t, b, draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    valid = draw(hnp.arrays(bool, (t, *shape[2:]), elements=st.sampled_from([True, True, False])))
    few = draw(st.lists(st.integers(1, 65535), min_size=1, max_size=4))
    values = st.sampled_from([1, 65535, *few]) if draw(st.booleans()) else st.integers(1, 65535)
    pixels = draw(hnp.arrays(np.uint16, shape, elements=values))
    if draw(st.booleans()):
        return pixels, valid
    power = pixels.astype(np.float32) * np.float32(draw(st.sampled_from([1.0, 1 / 65536, 3e-9, 1e12])))
    junk = draw(st.sampled_from([np.nan, np.inf, -np.inf, 0.0]))
    return np.where(valid[:, None], power, np.float32(junk)).astype(np.float32), valid


def observations(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> list[Observation]:
    """The same as composites take it."""
    return [Observation(list(bands), mask) for bands, mask in zip(pixels, valid, strict=True)]


def points(pixels: NDArray[Any], valid: NDArray[np.bool_], y: int, x: int) -> list[tuple[int, list[float]]]:
    """The valid observations of one pixel: position in time, and its bands in double precision."""
    return [(t, [float(v) for v in pixels[t, :, y, x]]) for t in range(len(pixels)) if valid[t, y, x]]
