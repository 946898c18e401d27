"""Where there are pixels, and which chips train and which are held out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from eo_batch.core.receipts import ChipState
from eo_batch.core.sensors import SENSOR_KINDS
from eo_batch.core.spec import RunSpec
from eo_batch.core.timebins import OBSERVATION, STATIC_KEY, bin_of_key
from eo_batch.pixels.figures_colour import ramp, rgb_hex
from eo_batch.pixels.figures_map import Paint
from eo_batch.stages.report import words
from eo_batch.stages.report.ground import Chip, Ground

MOST_PANELS = 24
"""Maps of coverage on one page; further time bins are counted in a sentence."""
_EVENT_KEY = re.compile(r"(\d{4})(\d\d)(\d\d)-(before|after)(\d+)")
_STEPS = 20
"""Colours of the ramp, so that squares of one colour can share a path."""

STATE_WORDS: Mapping[ChipState, str] = {
    "ok": "pixels were written",
    "no_scene": "no scene reaches the chip",
    "clouded_out": "every observation is cloud or otherwise masked",
    "no_data": "scenes reach the chip but hold no data there",
    "read_failed": "files could not be read",
}
"""What the outcome of a chip means."""

SPLIT_WORDS: Mapping[str, str] = {
    "train": "for training",
    "test": "held out for testing",
    "buffer": "buffer between the two: used by neither",
}

ChipStates = Mapping[tuple[str, str], Mapping[str, ChipState]]
"""Outcome of each chip, by (sensor, bin) and chip id."""


@dataclass(frozen=True)
class Panel:
    """One map."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Coverage:
    """Maps of coverage."""

    panels: tuple[Panel, ...]
    without_scenes: tuple[str, ...]
    """Sensors and time bins in which no scene reaches any chip: said, not drawn."""
    undrawn: int
    """Further combinations of sensor and time bin that have no map."""
    ramp: tuple[str, ...]
    """Colours from 0 to 100 per cent."""
    states: tuple[ChipState, ...]
    """Outcomes other than `ok` that occur on the maps."""
    by_block: bool
    """Whether squares are blocks of chips."""
    magnified: bool
    """Whether squares are drawn larger than they are."""
    across_zones: int
    """Chips whose ground another zone's chip counts."""


@dataclass(frozen=True)
class LabelShares:
    """How a label raster's classes are spread over the split."""

    array: str
    classes: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of a class, and its mean share of the labelled ground in each part, in the order of `Splits.counts`."""


@dataclass(frozen=True)
class Splits:
    """The map of the split."""

    svg: str
    counts: Mapping[str, int]
    """Chips by split, in the order train, test, buffer."""
    labels: tuple[LabelShares, ...]


def chip_states(ledger: pa.Table) -> ChipStates:
    """The outcomes that the ledger holds."""
    found: dict[tuple[str, str], dict[str, ChipState]] = {}
    columns = ledger.select(["level", "sensor", "bin", "chip_id", "state"]).to_pylist()
    for row in columns:
        if row["level"] == "chip":
            found.setdefault((row["sensor"], row["bin"]), {})[row["chip_id"]] = row["state"]
    return found


def bin_words(bin_key: str, step: str) -> str:
    """A time bin as a person reads it: its key where that is a month, season, year or overpass, its place about an
    event, else its first and last day."""
    if bin_key == STATIC_KEY:
        return "no time axis"
    about = _EVENT_KEY.fullmatch(bin_key)
    if about:
        return f"no. {about[5]} {about[4]} {about[1]}-{about[2]}-{about[3]}"
    if step in ("month", "season", "year", OBSERVATION):
        return bin_key
    found = bin_of_key(bin_key, step)
    return f"{found.start.date()} to {found.end.date() - timedelta(days=1)}"


def coverage_of(spec: RunSpec, ground: Ground, states: ChipStates) -> Coverage:
    """One map for each sensor and time bin, in the spec's order."""
    wanted = [place for name in spec.sensors for place in states if place[0] == name]
    bare = [place for place in wanted if set(states.get(place, {}).values()) <= {"no_scene"}]
    filled = [place for place in wanted if place not in bare]
    drawn = filled[:MOST_PANELS]
    panels = tuple(_panel(spec, ground, states.get(place, {}), place) for place in drawn)
    seen = {state for place in drawn for state in states.get(place, {}).values()}
    return Coverage(
        panels=panels,
        without_scenes=tuple(_title(place, spec.time.step) for place in bare),
        undrawn=len(filled) - len(drawn),
        ramp=tuple(rgb_hex(rgb) for rgb in ramp(np.linspace(0.0, 1.0, 9))),
        states=tuple(state for state in STATE_WORDS if state != "ok" and state in seen),
        by_block=ground.by_block,
        magnified=ground.magnified > 1,
        across_zones=len(ground.chips) - len(ground.owners),
    )


def _panel(spec: RunSpec, ground: Ground, states: Mapping[str, ChipState], place: tuple[str, str]) -> Panel:
    sensor, _ = place

    def paint(chips: Sequence[Chip]) -> Paint:
        share = float(np.mean([chip.valid.get(place, 0.0) for chip in chips]))
        found = {states.get(chip.chip_id, "no_scene") for chip in chips}
        if "ok" not in found:
            state = next(s for s in ("read_failed", "clouded_out", "no_data", "no_scene") if s in found)
            return Paint(f".state-{state}", STATE_WORDS[state])
        step = round(share * _STEPS) / _STEPS
        return Paint(rgb_hex(ramp(np.array(step))), f"{words.percent(share)} valid")

    shares = [chip.valid.get(place, 0.0) for chip in ground.owners]
    empty = sum(states.get(chip.chip_id) != "ok" for chip in ground.owners)
    kind = SENSOR_KINDS[spec.sensors[sensor].kind]
    caption = f"{words.percent(float(np.mean(shares)) if shares else None)} of pixels valid"
    if empty:
        caption += f"; {words.count(empty)} of {words.count(len(shares), 'chip')} without any"
    title = _title(place, spec.time.step)
    about = f"Map of {title} ({kind.title}): {caption}"
    return Panel(title, caption, ground.map(paint, about, 330))


def _title(place: tuple[str, str], step: str) -> str:
    sensor, bin_key = place
    return sensor if bin_key == STATIC_KEY else f"{sensor} · {bin_words(bin_key, step)}"


def splits_of(ground: Ground, chips: pa.Table, spec: RunSpec) -> Splits:
    """The map of training, held-out and buffer chips, and how their labels differ."""

    def paint(chips: Sequence[Chip]) -> Paint:
        sides = [chip.split for chip in chips]
        most = max(SPLIT_WORDS, key=lambda side: sides.count(side))  # type: ignore[arg-type]
        return Paint(f".split-{most}", SPLIT_WORDS[most])

    counts = {side: sum(chip.split == side for chip in ground.chips) for side in SPLIT_WORDS}
    about = "Map of the split: " + ", ".join(f"{n} {side}" for side, n in counts.items())
    return Splits(ground.map(paint, about, 460), counts, _label_shares(chips, spec))


def _label_shares(chips: pa.Table, spec: RunSpec) -> tuple[LabelShares, ...]:
    columns = [name for name in chips.column_names if name.startswith("share:")]
    frame = chips.filter(chips["owner"]).select(["split", *columns]).to_pydict()
    sides = np.array(frame["split"], dtype=object)
    rows: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for name in columns:
        _, array, code = name.split(":")
        shares = np.array([np.nan if share is None else share for share in frame[name]], np.float64)
        labelled = np.isfinite(shares)
        means = [shares[(sides == side) & labelled] for side in SPLIT_WORDS]
        said = tuple(words.percent(float(part.mean()) if part.size else None) for part in means)
        rows.setdefault(array, []).append((int(code), said))
    sensors = {array.name: array.spec for array in spec.arrays()}
    return tuple(
        LabelShares(array, tuple((sensors[array].class_name(code), said) for code, said in sorted(found)))
        for array, found in rows.items()
    )
