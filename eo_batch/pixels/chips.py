"""Between a block's image and its chips. Legend: c chips in block order, b bands, y rows, x columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cut(image_byx: NDArray[Any], side: int) -> NDArray[Any]:
    """(b, side*px, side*px), first row northernmost, to (side², b, px, px) in block order (rows northwards)."""
    n_bands, height, width = image_byx.shape
    px_y, px_x = height // side, width // side
    tiles = image_byx.reshape(n_bands, side, px_y, side, px_x).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(tiles[::-1].reshape(side * side, n_bands, px_y, px_x))


def join(chips_cbyx: NDArray[Any], side: int) -> NDArray[Any]:
    """The inverse of `cut`."""
    _, n_bands, px_y, px_x = chips_cbyx.shape
    tiles = chips_cbyx.reshape(side, side, n_bands, px_y, px_x)[::-1]
    return np.ascontiguousarray(tiles.transpose(2, 0, 3, 1, 4).reshape(n_bands, side * px_y, side * px_x))
