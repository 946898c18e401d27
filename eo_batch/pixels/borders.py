"""The noisy strip inside the edge of a radar swath. Legend: y rows, x columns."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def swath_border(valid_yx: Mask, width_px: int) -> Mask:
    """Valid pixels within `width_px` of where the swath ends, in rows and columns.

    The swath ends at regions without data that are wider than 2 * width_px; smaller holes (layover, shadow) are
    part of the scene and keep their surroundings. What lies beyond the window is taken to go on as its edge does, so
    the window needs a margin of 3 * width_px.
    """
    if width_px < 1 or valid_yx.all():
        return np.zeros(valid_yx.shape, bool)
    wide = ~_dilated(valid_yx, width_px)
    return _dilated(wide, 2 * width_px) & valid_yx


def _dilated(mask_yx: Mask, reach_px: int) -> Mask:
    """Pixels with a True pixel within `reach_px` rows and columns."""
    for axis in (0, 1):
        length = mask_yx.shape[axis]
        # Running counts: the number of True pixels in a span is a difference of two of them.
        counts = np.cumsum(mask_yx, axis=axis, dtype=np.int32)
        high = np.take(counts, np.minimum(np.arange(length) + reach_px, length - 1), axis=axis)
        low = np.take(counts, np.maximum(np.arange(length) - reach_px - 1, 0), axis=axis)
        starts_at_edge = np.arange(length) - reach_px - 1 < 0
        low = np.where(starts_at_edge[:, None] if axis == 0 else starts_at_edge[None, :], 0, low)
        mask_yx = high > low
    return mask_yx
