"""A few chips in every sensor, side by side.

Legend: c chips, b bands, y rows, x columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.core.timebins import STATIC_KEY
from eo_batch.io.cube import CubeReader
from eo_batch.pixels.figures_colour import (
    Floats,
    Mask,
    Range,
    Rgba,
    class_colour,
    class_picture,
    decibels,
    grey_picture,
    ramp,
    ramp_picture,
    range_of,
    rgb_hex,
    rgb_picture,
    shrink,
    shrink_classes,
)
from eo_batch.pixels.figures_png import png_uri
from eo_batch.stages.report import words
from eo_batch.stages.report.ground import Chip, Ground
from eo_batch.stages.report.results import Results

PICTURE_PX = 128
"""Longest side of a picture; larger chips are averaged down to it."""
CHIPS_SHOWN = 8
CLOUDED_SHOWN = 2
"""How many of them show a partly masked bin, where there are any."""

_CUT_PERCENT = 2.0
"""Per cent of the pixels beyond each end of a column's scale, so that a few extremes do not flatten the rest."""
_TRUE_COLOUR = ("B04", "B03", "B02")
_COLOURS = (_TRUE_COLOUR, ("B08", "B04", "B03"), ("B08", "B04", "B04"))
"""Bands shown as red, green and blue, the best first; the last serves where there is no green band."""


@dataclass(frozen=True)
class Column:
    """One sensor of the gallery."""

    title: str
    what: str
    """Bands and how they are shown."""
    low: str = ""
    """What the dark end of the scale means."""
    high: str = ""
    colours: tuple[str, ...] = ()
    """Colours of the scale from low to high; empty where there is none."""
    classes: tuple[tuple[str, str], ...] = ()
    """Name and colour of classes."""


@dataclass(frozen=True)
class Cell:
    """One picture, or the reason why there is none."""

    uri: str | None
    words: str


@dataclass(frozen=True)
class Picked:
    """One chip of the gallery."""

    chip: Chip
    bin_key: str
    why: str


@dataclass(frozen=True)
class Gallery:
    """Rows of chips, columns of sensors."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Picked, tuple[Cell, ...]], ...]


def gallery_of(results: Results, ground: Ground) -> Gallery:
    """The gallery of a run; no rows where no chip holds a pixel."""
    picked = pick_chips(results.spec, ground)
    if not picked:
        return Gallery((), ())
    reader = results.cube()
    drawn = [_draw(results, reader, array, picked) for array in shown_arrays(results.spec)]
    rows = tuple((pick, tuple(cells[i] for _, cells in drawn)) for i, pick in enumerate(picked))
    return Gallery(tuple(column for column, _ in drawn), rows)


def shown_arrays(spec: RunSpec) -> list[CubeArray]:
    """One array a sensor: that with the bands of a colour picture, else its finest."""
    chosen: dict[str, CubeArray] = {}
    for array in spec.arrays():
        best = chosen.get(array.sensor)
        if best is None or (colour_bands(array.band_names) and not colour_bands(best.band_names)):
            chosen[array.sensor] = array
    return list(chosen.values())


def pick_chips(spec: RunSpec, ground: Ground) -> list[Picked]:
    """Chips spread over splits and ground, a few of them partly masked; always the same ones for the same run."""
    timed = [name for name, sensor in spec.sensors.items() if not sensor.info.static]
    candidates = [chip for chip in ground.owners if any(share > 0 for share in chip.valid.values())]
    picked = _clouded(timed, candidates)
    taken = {pick.chip.chip_id for pick in picked}
    rest = [chip for chip in candidates if chip.chip_id not in taken]
    sides = [side for side in ("train", "test", "buffer") if any(chip.split == side for chip in rest)]
    room = CHIPS_SHOWN - len(picked)
    # The buffer gets one chip: nothing is learnt or measured there. It goes first, so that the others share the rest.
    for number, side in enumerate(reversed(sides)):
        share = 1 if side == "buffer" else -(-room // (len(sides) - number))
        here = [chip for chip in rest if chip.split == side]
        best = max(fullest_bin(chip, timed)[0] for chip in here)
        full = [chip for chip in here if fullest_bin(chip, timed)[0] >= best - 0.02]
        chosen = spread(full, share)
        room -= len(chosen)
        picked.extend(Picked(chip, fullest_bin(chip, timed)[1], _SIDE[side]) for chip in chosen)
    order = {side: i for i, side in enumerate(_SIDE)}
    return sorted(picked, key=lambda p: (order[p.chip.split], p.chip.chip_id))


_SIDE = {"train": "training", "test": "held out", "buffer": "buffer"}


def _clouded(timed: Sequence[str], chips: Sequence[Chip]) -> list[Picked]:
    """The chips and bins whose share of valid pixels is closest to a half."""
    found = []
    for chip in chips:
        partly = [(abs(s - 0.5), key) for (name, key), s in chip.valid.items() if name in timed and 0.1 < s < 0.9]
        if partly:
            distance, key = min(partly)
            found.append((distance, chip.chip_id, Picked(chip, key, f"{_SIDE[chip.split]}, partly masked")))
    found.sort(key=lambda entry: entry[:2])
    return [pick for _, _, pick in found[:CLOUDED_SHOWN]]


def fullest_bin(chip: Chip, timed: Sequence[str]) -> tuple[float, str]:
    """The largest mean share over sensors that a time bin has, and the bin."""
    bins: dict[str, list[float]] = {}
    for (name, key), share in chip.valid.items():
        if name in timed:
            bins.setdefault(key, []).append(share)
    if not bins:
        return max(chip.valid.values()), STATIC_KEY
    best = min(bins, key=lambda key: (-float(np.sum(bins[key])), key))
    return float(np.sum(bins[best])) / len(timed), best


def spread(chips: Sequence[Chip], number: int) -> list[Chip]:
    """Chips far from each other: each next one is the farthest from all before."""
    if not chips or number < 1:
        return []
    place = np.array([(chip.lon * np.cos(np.radians(chip.lat)), chip.lat) for chip in chips])
    first = int(np.argmin(np.square(place - place.min(axis=0)).sum(axis=1)))
    order = [first]
    distance = np.square(place - place[first]).sum(axis=1)
    while len(order) < min(number, len(chips)):
        farthest = int(np.argmax(distance))
        order.append(farthest)
        distance = np.minimum(distance, np.square(place - place[farthest]).sum(axis=1))
    return [chips[i] for i in order]


def colour_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Sentinel-2 bands that make a colour picture as red, green and blue; none where the bands make none."""
    return next((names for names in _COLOURS if set(names) <= set(bands)), ())


def _draw(
    results: Results, reader: CubeReader, array: CubeArray, picked: Sequence[Picked]
) -> tuple[Column, tuple[Cell, ...]]:
    names = colour_bands(array.band_names) or array.band_names[:1]
    bands = [array.band_names.index(name) for name in names]
    static = array.spec.info.static
    values: list[Floats] = []
    valids: list[Mask] = []
    for pick in picked:
        # Read chip by chip: a row may hold another bin than its neighbours, and there are few of them.
        index = None if static else results.axes.time_index(pick.bin_key)
        pixels_cbyx, valid_cbyx = reader.read(array.name, [pick.chip.slot], index)
        values.append(pixels_cbyx[0, bands])
        valids.append(valid_cbyx[0, bands])
    if array.spec.kind == "classes":
        return _classes(array, names, [v[0].astype(np.int64) for v in values])
    return _measured(array, names, [shrink(v, m, PICTURE_PX) for v, m in zip(values, valids, strict=True)])


def _classes(
    array: CubeArray, names: Sequence[str], codes: Sequence[NDArray[np.int64]]
) -> tuple[Column, tuple[Cell, ...]]:
    present = sorted({int(code) for picture in codes for code in np.unique(picture)} - {int(array.spec.info.fill)})
    colours = {code: class_colour(i) for i, code in enumerate(present)}
    cells = []
    for picture in codes:
        small = shrink_classes(picture, PICTURE_PX)
        shares = {code: float((picture == code).mean()) for code in present}
        most = max(shares, key=lambda code: shares[code], default=None)
        if most is None or shares[most] == 0:
            cells.append(Cell(None, "no labels here"))
        else:
            said = f"mostly {array.spec.class_name(most)} ({words.percent(shares[most])})"
            cells.append(Cell(png_uri(class_picture(small, colours)), said))
    legend = tuple((array.spec.class_name(code), colour) for code, colour in colours.items())
    column = Column(array.sensor, "classes", classes=legend)
    return column, tuple(cells)


def _measured(
    array: CubeArray, names: Sequence[str], pictures: Sequence[tuple[NDArray[np.float64], Mask]]
) -> tuple[Column, tuple[Cell, ...]]:
    if array.spec.info.model_scale == "db":
        pictures = [decibels(values, valid) for values, valid in pictures]
    spans = band_ranges(names, [values for values, _ in pictures], [valid for _, valid in pictures])
    if not spans:
        empty = Cell(None, "no valid pixel here")
        return Column(array.sensor, ", ".join(names)), tuple(empty for _ in pictures)
    cells = tuple(_cell(array, values, valid, spans) for values, valid in pictures)
    if len(set(spans)) > 1:
        return Column(array.sensor, f"{shown_as(array, names)}, each band over its own range"), cells
    scale = tuple(rgb_hex(rgb) for rgb in ramp(np.linspace(0, 1, 9))) if _ramped(array) else ("#000000", "#ffffff")
    low, high = words.plain(spans[0].low), words.plain(spans[0].high)
    return Column(array.sensor, shown_as(array, names), low, high, scale), cells


def band_ranges(
    names: Sequence[str], values: Sequence[NDArray[np.float64]], valid: Sequence[Mask]
) -> tuple[Range, ...]:
    """The range of each shown band over all pictures (b, y, x); none where nothing is valid.

    The bands of true colour share one, or it would not be true; in false colours, near infrared would drown the rest.
    """
    flat_bn = np.concatenate([picture.reshape(len(names), -1) for picture in values], axis=1)
    good_bn = np.concatenate([mask.reshape(len(names), -1) for mask in valid], axis=1)
    if tuple(names) == _TRUE_COLOUR:
        flat_bn, good_bn = (np.broadcast_to(part.ravel(), (3, part.size)) for part in (flat_bn, good_bn))
    found = [range_of(flat_n, good_n, _CUT_PERCENT) for flat_n, good_n in zip(flat_bn, good_bn, strict=True)]
    known = tuple(span for span in found if span is not None)
    return known if len(known) == len(found) else ()


def _cell(array: CubeArray, values_byx: NDArray[np.float64], valid_byx: Mask, spans: Sequence[Range]) -> Cell:
    if not valid_byx.any():
        return Cell(None, "no valid pixel here")
    share = float(valid_byx.all(axis=0).mean())
    return Cell(png_uri(picture(array, values_byx, valid_byx, spans)), f"{words.percent(share)} valid")


def picture(array: CubeArray, values_byx: NDArray[np.float64], valid_byx: Mask, spans: Sequence[Range]) -> Rgba:
    """Three bands in colour, one in grey, or on the colour ramp where it is no radiance."""
    if len(values_byx) == 3:
        return rgb_picture(values_byx, valid_byx, spans)
    one = ramp_picture if _ramped(array) else grey_picture
    return one(values_byx[0], valid_byx[0], spans[0])


def _ramped(array: CubeArray) -> bool:
    return array.spec.kind in ("dem", "continuous")


def shown_as(array: CubeArray, names: Sequence[str]) -> str:
    """What a picture of these bands is, in words."""
    if len(names) == 3:
        return "true colour" if tuple(names) == _TRUE_COLOUR else f"false colour ({', '.join(names)})"
    return f"{', '.join(names)}, {unit_of(array)}"


def unit_of(array: CubeArray) -> str:
    """Unit of an array as it is shown."""
    if array.spec.info.model_scale == "db":
        return "dB"
    return {"s2-l2a": "reflectance", "dem": "m"}.get(array.spec.kind, array.spec.info.units)
