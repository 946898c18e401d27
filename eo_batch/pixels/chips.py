"""Between a block's image and its chips. Legend: b bands, y rows, x columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def chips_of(image_byx: NDArray[Any], side: int) -> NDArray[Any]:
    """(b, side*px, side*px), first row northernmost, as (side, side, b, px, px) without a copy: rows of chips in block
    order, that is northwards."""
    n_bands, height, width = image_byx.shape
    px_y, px_x = height // side, width // side
    return image_byx.reshape(n_bands, side, px_y, side, px_x).transpose(1, 3, 0, 2, 4)[::-1]


def any_of(mask_yx: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Whether a mask holds anywhere in each chip, in block order: (side²,)."""
    found: NDArray[np.bool_] = chips_of(mask_yx[None], side).any((2, 3, 4)).ravel()
    return found


def share_of(mask_yx: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
    """Share of each chip's pixels where a mask holds, in block order: (side²,)."""
    found: NDArray[np.float64] = chips_of(mask_yx[None], side).mean((2, 3, 4)).ravel()
    return found
