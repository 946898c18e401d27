"""Stored numbers to storage values of the cube, before any resampling. Legend: y rows, x columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.sensors import SCL_NAMES, SensorKind

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
_SNOW_NOTE_SHARE = 0.3
"""Share of a scene classified as snow from which a person is told: cloud is often taken for snow."""


def valid_pixels(pixels_yx: Pixels, nodata: float | None, mask_yx: Mask | None = None) -> Mask:
    """Pixels that hold data: finite, different from `nodata` (which may be NaN or None), and within the mask if any."""
    whole = np.issubdtype(pixels_yx.dtype, np.integer)
    valid: Mask
    if nodata is None or np.isnan(nodata) or (whole and not float(nodata).is_integer()):
        valid = np.ones(pixels_yx.shape, bool)
    else:  # a whole number keeps the comparison in the pixels' own type
        valid = pixels_yx != (int(nodata) if whole else nodata)
    if not whole:
        valid &= np.isfinite(pixels_yx)
    if mask_yx is not None:
        valid &= mask_yx
    return valid


def possible(pixels_yx: Pixels, limits: tuple[float, float], scale: float, offset_dn: float) -> Mask:
    """Pixels whose physical value can be a measurement."""
    values = (pixels_yx.astype(np.float64) + offset_dn) * scale
    within: Mask = (values >= limits[0]) & (values <= limits[1])
    return within


def to_storage(
    pixels_yx: Pixels, valid_yx: Mask, kind: SensorKind, scale: float, offset_dn: float, is_db: bool
) -> Pixels:
    """Values in the cube's storage encoding: stored * kind.scale_factor + kind.add_offset is physical.

    Sentinel-2: (DN + offset) in ESA's present encoding, 1 to 65535, so that correction leaves dark pixels apart
    from no data. Sentinel-1: linear power. Valid values stored as whole numbers never become 0, which is their fill.
    Pixels that are not valid hold anything; validity travels beside them.
    """
    if kind.kind == "s2-l2a":
        shift = round(offset_dn - kind.add_offset / kind.scale_factor)
        if pixels_yx.dtype == np.uint16 and shift == 0:
            stored = np.maximum(pixels_yx, 1)
        elif pixels_yx.dtype == np.uint16 and 0 < shift <= 65535:
            stored = np.minimum(pixels_yx, np.uint16(65535 - shift))
            stored += np.uint16(shift)
        else:
            stored = np.clip(pixels_yx.astype(np.int32) + shift, 1, 65535).astype(np.uint16)
        return stored
    if kind.kind == "classes":
        return np.where(valid_yx, pixels_yx, 0).astype(np.uint16)
    if kind.dtype == "float32" and pixels_yx.dtype == np.float32 and (scale, offset_dn, is_db) == (1, 0, False):
        return np.where(valid_yx, pixels_yx, np.float32(0))
    values = (np.where(valid_yx, pixels_yx, 0).astype(np.float64) + offset_dn) * scale
    if is_db:
        values = 10.0 ** (values / 10.0)
    if np.issubdtype(np.dtype(kind.dtype), np.integer):
        info = np.iinfo(kind.dtype)
        stored = np.clip(np.rint((values - kind.add_offset) / kind.scale_factor), kind.fill + 1, info.max)
        return np.where(valid_yx, stored, 0).astype(kind.dtype)
    return np.where(valid_yx, values, 0).astype(np.float32)


def clear_sky(scl_yx: Pixels, invalid_classes: tuple[int, ...]) -> Mask:
    """Pixels that Sentinel-2's scene classification lets through: a class of the legend that is not excluded."""
    good = [code for code in SCL_NAMES if code not in invalid_classes]
    if scl_yx.dtype != np.uint8:
        return np.isin(scl_yx, good)
    table = np.isin(np.arange(256), good)
    clear: Mask = table[scl_yx]
    return clear


def class_counts(scl_yx: Pixels) -> dict[int, int]:
    """Pixel counts of the codes that a class raster holds."""
    if scl_yx.dtype == np.uint8:
        # Some rows at a time: bincount needs eight bytes for each of them.
        counts = np.zeros(256, np.int64)
        for row in scl_yx:
            counts += np.bincount(row, minlength=256)
        return {int(code): int(counts[code]) for code in np.flatnonzero(counts)}
    codes, found = np.unique(scl_yx, return_counts=True)
    return {int(code): int(n) for code, n in zip(codes, found, strict=True)}


def class_notes(scl_yx: Pixels) -> list[str]:
    """What a person should know of a scene classification: codes without a meaning, and snow that may be cloud."""
    counts = class_counts(scl_yx)
    notes = [
        f"scene classification holds code {code}, which the legend does not have, in {counts[code]} pixels; left out"
        for code in sorted(counts.keys() - SCL_NAMES.keys())
    ]
    shares = {code: count / scl_yx.size for code, count in counts.items()}
    if shares.get(11, 0.0) >= _SNOW_NOTE_SHARE:
        top = ", ".join(
            f"{SCL_NAMES.get(c, c)} {100 * s:.1f} %" for c, s in sorted(shares.items(), key=lambda p: -p[1])[:3]
        )
        notes.append(f"{top}: cloud is often taken for snow, have a look")
    return notes
