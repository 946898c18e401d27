"""The baseline that knows no texture: mean and deviation of every band of a chip.

Dims: `n` sample, `b` band, `y` row, `x` column, `f` feature.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def band_statistics(
    pixels_nbyx: Mapping[str, NDArray[np.float32]], valid_nbyx: Mapping[str, NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], list[str]]:
    """Features `(n, f)` and their names, sensors in the order given: all means of a sensor, then all
    deviations.

    Taken over valid pixels; NaN where a chip has none in a band.
    """
    columns_nb: list[NDArray[np.float64]] = []
    names: list[str] = []
    for sensor, pixels in pixels_nbyx.items():
        valid = valid_nbyx[sensor]
        count_nb = valid.sum(axis=(2, 3)).astype(np.float64)
        count_nb[count_nb == 0] = np.nan
        values = np.where(valid, pixels, 0).astype(np.float64)
        mean_nb = values.sum(axis=(2, 3)) / count_nb
        centred = np.where(valid, values - np.nan_to_num(mean_nb)[:, :, None, None], 0.0)
        std_nb = np.sqrt(np.square(centred).sum(axis=(2, 3)) / count_nb)
        columns_nb += [mean_nb, std_nb]
        names += [f"{sensor}.{band}.{kind}" for kind in ("mean", "std") for band in range(pixels.shape[1])]
    return np.concatenate(columns_nb, axis=1), names
