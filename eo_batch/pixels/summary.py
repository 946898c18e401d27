"""What is kept of every chip beside its pixels: sums from which statistics and class shares are made.

Legend: c chips of the block, b bands, y rows, x columns, m classes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.spec import CubeArray
from eo_batch.pixels.moments import moments_of, moments_of_stored
from eo_batch.pixels.radiometry import valid_pixels

ClassAreas = tuple[NDArray[Any], NDArray[np.float64]]
"""Codes (m), and the area of each, square metres: (m) of one chip, (c, m) of the chips of a block."""
_DB = np.float32(10 / np.log(10))
"""Decibels of a natural logarithm."""
_NONE: ClassAreas = np.zeros(0, np.uint16), np.zeros(0)


def summary_rows(
    array: CubeArray, bin_key: str, chip_id: str, pixels_byx: NDArray[np.generic], areas: Mapping[str, ClassAreas]
) -> Iterator[dict[str, object]]:
    """Per band of a chip: count, mean and squared deviations on the scale that models see; per class its pixels, and
    the area that it takes of the chip in the files' own pixels (`areas`, by band; none where no file reaches it)."""
    kind = array.spec.info
    for stored, band in zip(pixels_byx, array.band_names, strict=True):
        about: dict[str, object] = {"chip_id": chip_id, "bin": bin_key, "array": array.name, "band": band}
        if kind.kind == "classes":
            pixels = dict(zip(*np.unique(stored, return_counts=True), strict=True))
            for code, area in zip(*areas.get(band, _NONE), strict=True):
                if area > 0:
                    yield about | {"code": int(code), "n": int(pixels.get(code, 0)), "area_m2": float(area)}
            continue
        if stored.dtype == np.uint16 and kind.fill == 0 and kind.model_scale != "db":
            sums = moments_of_stored(stored, kind.scale_factor, kind.add_offset)
        else:
            good = valid_pixels(stored, None if np.isnan(kind.fill) else kind.fill)
            if kind.model_scale == "db":
                good &= stored > 0  # of linear power as it is stored
                sums = moments_of(_DB * np.log(stored[good]))
            else:
                sums = moments_of(stored[good].astype(np.float64) * kind.scale_factor + kind.add_offset)
        yield about | {"n": sums.n, "mean": sums.mean, "m2": sums.m2}
