"""From numbers to colours: ranges, ramps, class colours, and vectors as colours.

Legend: n chips, b bands, y rows, x columns, c channels, f features.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]
Rgba = NDArray[np.uint8]

_RAMP = np.array(
    [
        (43, 16, 68), (62, 40, 113), (60, 74, 138), (46, 106, 142), (37, 137, 138),
        (50, 166, 122), (108, 191, 91), (181, 207, 63), (247, 225, 74),
    ],
    np.float64,
)  # fmt: skip
"""Dark violet over teal to yellow: lightness rises evenly, so that it reads without colour vision, too."""

_BRIGHTEN = 1 / 1.4
"""Exponent for reflectance: vegetation and soil are dark, and a screen shows dark tones poorly."""

CLASS_COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377",
    "#bb7744", "#7a7acc", "#44aa99", "#dd9955", "#999933", "#cc6699",
)  # fmt: skip
"""Colours of classes and series, told apart on light and on dark ground."""


@dataclass(frozen=True)
class Range:
    """What the ends of a colour scale mean."""

    low: float
    """Value shown darkest, in the unit of the data."""
    high: float
    """Value shown lightest."""

    def scaled(self, values: Floats) -> NDArray[np.float64]:
        """0 at `low`, 1 at `high`, clipped."""
        span = max(self.high - self.low, np.finfo(np.float64).tiny)
        return np.clip((np.asarray(values, np.float64) - self.low) / span, 0.0, 1.0)


def range_of(values: Floats, valid: Mask, percent: float = 1.0) -> Range | None:
    """The range that leaves `percent` of the valid values out on either side; None if nothing is valid.

    A constant gets a range around it, so that it is drawn in the middle.
    """
    good = np.asarray(values, np.float64)[valid]
    if not good.size:
        return None
    low, high = (float(q) for q in np.percentile(good, [percent, 100 - percent]))
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        half = max(abs(low) * 0.5, 0.5)
        return Range(low - half, low + half)
    return Range(low, high)


def shrink(pixels_byx: Floats, valid_byx: Mask, side_px: int) -> tuple[NDArray[np.float64], Mask]:
    """Means over squares of pixels so that no side is longer than `side_px`; invalid pixels do not count.

    Rows and columns that fill no whole square are left out.
    """
    bands, height, width = pixels_byx.shape
    factor = -(-max(height, width) // side_px)
    rows, cols = height // factor, width // factor
    cut = (slice(None), slice(rows * factor), slice(cols * factor))
    shape = (bands, rows, factor, cols, factor)
    good = valid_byx[cut].reshape(shape)
    values = np.where(good, pixels_byx[cut].reshape(shape), 0.0).astype(np.float64)
    count = good.sum(axis=(2, 4))
    return values.sum(axis=(2, 4)) / np.maximum(count, 1), count > 0


def shrink_classes(codes_yx: NDArray[np.integer], side_px: int) -> NDArray[np.integer]:
    """Every k-th pixel, so that no side is longer than `side_px`: codes are never averaged."""
    factor = -(-max(codes_yx.shape) // side_px)
    return codes_yx[factor // 2 :: factor, factor // 2 :: factor]


def decibels(power: Floats, valid: Mask) -> tuple[NDArray[np.float64], Mask]:
    """10·log10 of linear power; what is not above 0 becomes invalid."""
    good = valid & (power > 0)
    return 10.0 * np.log10(np.where(good, power, 1.0).astype(np.float64)), good


def ramp(share: Floats) -> NDArray[np.uint8]:
    """Colours (…, 3) of shares between 0 and 1."""
    place = np.clip(np.asarray(share, np.float64), 0.0, 1.0) * (len(_RAMP) - 1)
    steps = np.arange(len(_RAMP))
    channels = [np.interp(place, steps, _RAMP[:, i]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def rgb_picture(pixels_byx: Floats, valid_byx: Mask, spans: Sequence[Range]) -> Rgba:
    """Three bands as red, green and blue, each over its range; transparent unless all three are valid."""
    scaled = [span.scaled(band_yx) for span, band_yx in zip(spans, pixels_byx, strict=True)]
    rgb_yxc = np.stack(scaled, axis=-1) ** _BRIGHTEN * 255
    valid_yx: Mask = np.asarray(valid_byx.all(axis=0), bool)
    return _with_opacity(rgb_yxc.round().astype(np.uint8), valid_yx)


def grey_picture(values_yx: Floats, valid_yx: Mask, span: Range) -> Rgba:
    """One band from black to white; transparent where invalid."""
    grey = (span.scaled(values_yx) * 255).round().astype(np.uint8)
    return _with_opacity(np.repeat(grey[..., None], 3, axis=2), valid_yx)


def ramp_picture(values_yx: Floats, valid_yx: Mask, span: Range) -> Rgba:
    """One band in colours; transparent where invalid."""
    return _with_opacity(ramp(span.scaled(values_yx)), valid_yx)


def class_picture(codes_yx: NDArray[np.integer], colours: dict[int, str]) -> Rgba:
    """Each class in its colour (`#rrggbb`); transparent where the code is not in `colours`."""
    rgba = np.zeros((*codes_yx.shape, 4), np.uint8)
    for code, colour in colours.items():
        rgba[codes_yx == code] = (*hex_rgb(colour), 255)
    return rgba


def class_colour(number: int) -> str:
    """The colour of the n-th class or series, as `#rrggbb`; beyond the table, hues by the golden angle."""
    if number < len(CLASS_COLOURS):
        return CLASS_COLOURS[number]
    red, green, blue = colorsys.hls_to_rgb(number * 0.381966 % 1.0, 0.55, 0.5)
    return rgb_hex((round(red * 255), round(green * 255), round(blue * 255)))


def hex_rgb(colour: str) -> tuple[int, int, int]:
    """The channels of `#rrggbb`."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def rgb_hex(rgb_c: tuple[int, int, int] | NDArray[np.uint8]) -> str:
    """`#rrggbb`."""
    return "#" + "".join(f"{int(value):02x}" for value in rgb_c)


@dataclass(frozen=True)
class VectorColours:
    """Vectors as colours: near vectors get near colours."""

    rgb_nc: NDArray[np.uint8]
    """One colour a vector."""
    explained: float
    """Share of the vectors' variance that lies along the three components shown."""


def pca_colours(vectors_nf: Floats) -> VectorColours:
    """The first three principal components as red, green and blue, each between its 2nd and 98th percentile.

    A component's sign makes the feature with the largest weight positive, so that equal vectors give equal
    colours. Components that do not exist, or hold only rounding, stay in the middle.
    """
    centred_nf = np.asarray(vectors_nf, np.float64) - np.mean(vectors_nf, axis=0, dtype=np.float64)
    _, strength_k, axes_kf = np.linalg.svd(centred_nf, full_matrices=False)
    total = float(np.square(strength_k).sum())
    rgb_nc = np.full((len(centred_nf), 3), 128, np.uint8)
    kept = 0
    for k, axis_f in enumerate(axes_kf[:3]):
        if strength_k[k] <= 1e-9 * max(float(strength_k[0]), 1e-12):
            break
        sign = 1.0 if axis_f[np.argmax(np.abs(axis_f))] > 0 else -1.0
        score_n = centred_nf @ axis_f * sign
        span = range_of(score_n, np.ones(score_n.shape, bool), percent=2.0)
        assert span is not None  # there is at least one vector
        rgb_nc[:, k] = (25 + 220 * span.scaled(score_n)).round().astype(np.uint8)
        kept = k + 1
    explained = float(np.square(strength_k[:kept]).sum()) / total if total > 0 else 0.0
    return VectorColours(rgb_nc, explained)


def _with_opacity(rgb_yxc: NDArray[np.uint8], valid_yx: Mask) -> Rgba:
    rgba = np.concatenate([rgb_yxc, np.where(valid_yx, 255, 0).astype(np.uint8)[..., None]], axis=2)
    rgba[~valid_yx] = 0
    return np.ascontiguousarray(rgba)
