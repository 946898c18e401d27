"""What a probe reads, one row a chip: embeddings, or band statistics as the baseline that knows no texture.

Dims: `n` chip, `f` feature.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mean_over_bins(vectors: Sequence[tuple[str, NDArray[np.float32]]], chip_ids: Sequence[str]) -> Floats:
    """Features `(n, f)` of the chips: each the mean of its vectors, which come as (chip id, vector) for every time
    bin in which the chip could be embedded. NaN for chips without any."""
    width = len(vectors[0][1]) if vectors else 0
    rows = {chip_id: row for row, chip_id in enumerate(chip_ids)}
    sums, counts = np.zeros((len(chip_ids), width)), np.zeros(len(chip_ids))
    for chip_id, vector in vectors:
        row = rows.get(chip_id)
        if row is not None:
            sums[row] += vector
            counts[row] += 1
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


def band_statistics(
    moments: Mapping[tuple[str, str, str], Sequence[tuple[float, float]]],
    bands: Sequence[tuple[str, str]],
    chip_ids: Sequence[str],
) -> Floats:
    """Features `(n, 2 · bands)` of the chips: mean and standard deviation of each band's pixels.

    `moments` holds (mean, deviation) for every time bin, by (chip id, array, band); the two are averaged over bins.
    `bands` are the (array, band) in order. NaN where a chip has no valid pixel in a band.
    """
    table = np.full((len(chip_ids), len(bands), 2), np.nan)
    for n, chip_id in enumerate(chip_ids):
        for f, (array, band) in enumerate(bands):
            found = moments.get((chip_id, array, band))
            if found:
                table[n, f] = np.mean(found, axis=0)
    return table.reshape(len(chip_ids), 2 * len(bands))
