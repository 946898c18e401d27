"""Observations: which scenes are one look at the ground, and which time bin a look is in. Pure."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from eo_batch.core.scenes import Scene
from eo_batch.core.spec import SensorSpec, TimeSpec
from eo_batch.core.timebins import OBSERVATION, STATIC_KEY, event_keys


def observation_day(scene: Scene, near_lon: float | None = None) -> str:
    """Solar day and platform-independent overpass of a scene: scenes that share it form one mosaic.

    Days are counted by the sun (15° an hour), since the UTC day can change within one pass.

    near_lon: longitude of the ground that the mosaic is for, degrees. Without it the scene's own counts, by which
    one pass over the antimeridian falls on two days: the calendar's date changes there.
    """
    lon = _middle_lon(scene) if near_lon is None else near_lon
    return str((scene.moment + timedelta(hours=lon / 15)).date())


def observations(scenes: Iterable[Scene], sensor: SensorSpec, lon: float) -> dict[str, list[Scene]]:
    """The scenes of a sensor over ground at a longitude, by overpass and in the order of time.

    An overpass is a day, `2023-08-05`; of Sentinel-1, which sees ground far north twice a day and from two sides, it is
    a track of a day, `2023-08-05-r044`, where the catalogue tells the track. The key depends on the scene alone.
    """
    found: dict[str, list[Scene]] = {}
    for scene in sorted(scenes, key=lambda scene: (scene.moment, scene.tile, scene.scene_id)):
        key = observation_day(scene, lon)
        if sensor.kind == "s1" and scene.relative_orbit is not None:
            key = f"{key}-r{scene.relative_orbit:03d}"
        found.setdefault(key, []).append(scene)
    return found


def scenes_by_bin(scenes: Sequence[Scene], time: TimeSpec, sensor: SensorSpec, lon: float) -> dict[str, list[Scene]]:
    """The scenes of a sensor that reach one block at a longitude, by the key of their time bin.

    All bins that are known before the search are there, empty ones too; with step observation those that have a scene.
    """
    if sensor.info.static:
        return {STATIC_KEY: list(scenes)}
    inside = [scene for scene in scenes if time.start <= scene.moment.date() < time.end]
    if time.step != OBSERVATION:
        return {b.key: [scene for scene in inside if b.holds(scene.moment)] for b in time.bins()}
    if time.event is None:
        return observations(inside, sensor, lon)
    event, n_before, n_after = time.event.date, time.event.before, time.event.after
    before = list(observations((s for s in inside if s.moment.date() < event), sensor, lon).values())[::-1]
    after = list(observations((s for s in inside if s.moment.date() > event), sensor, lon).values())
    nothing: list[Scene] = []
    looks = [before[k] if k < len(before) else nothing for k in reversed(range(n_before))]
    looks += [after[k] if k < len(after) else nothing for k in range(n_after)]
    return dict(zip(event_keys(event, n_before, n_after), looks, strict=True))


def in_order(bins: Iterable[str], time: TimeSpec) -> list[str]:
    """Keys of the bins of several blocks, each once, in the order of time."""
    keys = dict.fromkeys(bins)
    return sorted(keys) if time.step == OBSERVATION and time.event is None else list(keys)


def _middle_lon(scene: Scene) -> float:
    west, _, east, _ = scene.bbox
    if west > east:
        return ((west + east + 360) / 2 + 180) % 360 - 180
    # A box around the globe is how some publishers write a scene that crosses the antimeridian.
    return (west + east) / 2 if east - west < 180 else -180.0
