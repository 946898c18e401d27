"""Observations: which scenes are one look at the ground, and which time bin a look is in. Pure.

Bins that are known before the search follow from a scene's time. With step `observation` they follow from the scenes
and the ground, since days are counted by the sun: scenes over blocks are then pairs of positions, without an object
for each.
"""

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.columns import Ints, alike
from eo_batch.core.scenes import Scene
from eo_batch.core.spec import SensorSpec
from eo_batch.core.timebins import STATIC_KEY, event_keys, microseconds, midnight
from eo_batch.core.timespec import EventSpec, TimeSpec
from eo_batch.core.utm import Floats

_DAY_US = 86_400_000_000
_HOUR_DEG = 15
"""Degrees of longitude that the sun passes in an hour."""


def observation_day(scene: Scene, near_lon: float | None = None) -> str:
    """Solar day and platform-independent overpass of a scene: scenes that share it form one mosaic.

    Days are counted by the sun (15° an hour), since the UTC day can change within one pass.

    Interferograms are told apart by both their days instead.

    near_lon: longitude of the ground that the mosaic is for, degrees. Without it the scene's own counts, by which
    one pass over the antimeridian falls on two days: the calendar's date changes there.
    """
    if scene.pair is not None:
        return scene.pair
    lon = _middle_lon(scene) if near_lon is None else near_lon
    return str((scene.moment + timedelta(hours=lon / _HOUR_DEG)).date())


def look_of(scene: Scene) -> str | None:
    """What tells the overpasses of one day apart, where the catalogue tells it: the track of a radar, `r044`, or both
    days of an interferogram's pair, `2018-01-06-2018-01-30`."""
    if scene.pair is not None:
        return scene.pair.replace("/", "-")
    return None if scene.relative_orbit is None else f"r{scene.relative_orbit:03d}"


def observations(scenes: Iterable[Scene], sensor: SensorSpec, lon: float) -> dict[str, list[Scene]]:
    """The scenes of a sensor over ground at a longitude, by overpass and in the order of time.

    An overpass is a day, `2023-08-05`; of Sentinel-1, which sees ground far north twice a day and from two sides, it is
    a track of a day, `2023-08-05-r044`, where the catalogue tells the track; of interferograms it is the pair's two
    days, `2018-01-06-2018-01-30`. The key depends on the scene alone.
    """
    found: dict[str, list[Scene]] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.moment, scene.tile, scene.scene_id)):
        look = look_of(scene) if sensor.kind in _LOOKS else None
        day = None if sensor.kind == "interferogram" and look else observation_day(scene, lon)
        found.setdefault("-".join(part for part in (day, look) if part), []).append(scene)
    return found


_LOOKS = ("s1", "interferogram")
"""Kinds of which a day can hold several overpasses."""


def known_bins(time: TimeSpec, sensor: SensorSpec, moment_us: Ints) -> tuple[tuple[str, ...], Ints]:
    """Keys of the bins that are known before the search, in order, and the position in them of the bin of each time
    (microseconds since 1970): -1 where it is in none, or not in the spec's range. Not for step observation."""
    if sensor.info.static:
        return (STATIC_KEY,), np.zeros(len(moment_us), np.int64)
    bins = time.bins()
    starts, ends = np.array([(microseconds(b.start), microseconds(b.end)) for b in bins]).T
    number = np.searchsorted(starts, moment_us, "right") - 1
    inside = _in_range(time, moment_us) & (number >= 0) & (moment_us < ends[number])
    return tuple(b.key for b in bins), np.where(inside, number, -1)


def overpass_bins(
    time: TimeSpec,
    sensor: SensorSpec,
    moment_us: Ints,
    look: NDArray[np.object_],
    lon: Floats,
    scene: Ints,
    ground: Ints,
) -> tuple[tuple[str, ...], Ints]:
    """Keys of the bins of step observation, in order, and for each scene over ground the position of its bin; -1 where
    it is in none.

    moment_us, look: of each scene, microseconds since 1970 and as `look_of` tells.
    lon: of each piece of ground, degrees.
    scene, ground: positions of a scene and of ground that it reaches.
    """
    if sensor.kind in _LOOKS:
        texts, code = np.unique(np.array([text or "" for text in look], str), return_inverse=True)
    else:
        texts, code = np.array([""]), np.zeros(len(look), np.int64)
    moment, own = moment_us[scene], code[scene]
    shift_us = np.rint(lon * (3.6e9 / _HOUR_DEG)).astype(np.int64)
    day = (moment + shift_us[ground]) // _DAY_US
    if sensor.kind == "interferogram":
        day[(texts != "")[own]] = 0  # a pair's days are in its look
    number = np.full(len(scene), -1, np.int64)
    inside = np.flatnonzero(_in_range(time, moment))
    first, found = alike(day[inside], own[inside])
    if time.event is not None:
        number[inside] = _about(time.event, moment[inside], found, ground[inside])
        return tuple(event_keys(time.event.date, time.event.before, time.event.after)), number
    names = []
    for at in inside[first].tolist():
        text = str(texts[own[at]])
        dated = sensor.kind != "interferogram" or not text
        names.append("-".join(part for part in (str(np.datetime64(int(day[at]), "D")) if dated else "", text) if part))
    order = np.argsort(np.array(names, str), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    number[inside] = place[found]
    return tuple(names[at] for at in order.tolist()), number


def _about(event: EventSpec, moment_us: Ints, overpass: Ints, ground: Ints) -> Ints:
    """Positions among an event's bins: overpasses of each ground, counted from the event; -1 for those in none."""
    begin = microseconds(midnight(event.date))
    side = np.where(moment_us < begin, -1, np.where(moment_us < begin + _DAY_US, 0, 1))
    first, look = alike(ground, side, overpass)
    earliest = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(earliest, look, moment_us)
    order = np.lexsort((overpass[first], earliest, side[first], ground[first]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    _, run = alike(ground[first], side[first])
    size = np.bincount(run)
    rank = place - (np.cumsum(size) - size)[run]
    before = side[first] < 0
    away = np.where(before, size[run] - 1 - rank, rank)
    number = np.where(before, event.before - 1 - away, event.before + away)
    wanted = (side[first] != 0) & (away < np.where(before, event.before, event.after))
    return np.where(wanted, number, -1)[look]


def _in_range(time: TimeSpec, moment_us: Ints) -> NDArray[np.bool_]:
    start, end = (microseconds(midnight(day)) for day in (time.start, time.end))
    return (start <= moment_us) & (moment_us < end)


def _middle_lon(scene: Scene) -> float:
    west, _, east, _ = scene.bbox
    if west > east:
        return ((west + east + 360) / 2 + 180) % 360 - 180
    # A box around the globe is how some publishers write a scene that crosses the antimeridian.
    return (west + east) / 2 if east - west < 180 else -180.0
