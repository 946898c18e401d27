"""Scenes by the million: what many have in common is kept once, and the addresses of their files in Arrow's buffers.

A *kind* is a scene without what is its own: id, tile, platform, time, box, cloud cover, and the addresses of its files.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eo_batch.core.columns import Ints
from eo_batch.core.digest import JsonValue, canonical_json
from eo_batch.core.errors import PlanError, RadiometryError
from eo_batch.core.frames import frame_of, misplaced
from eo_batch.core.observations import known_bins, look_of
from eo_batch.core.plan import SceneColumns, check_orbits, left_out
from eo_batch.core.scenes import Asset, Scene, pair_days
from eo_batch.core.spec import RunSpec
from eo_batch.core.stacitems import SAME_SENSING, Listed, resolve_duplicates
from eo_batch.core.timebins import OBSERVATION, microseconds, moment_of
from eo_batch.core.utm import WGS84, Floats

_NOWHEN = datetime(1970, 1, 1, tzinfo=UTC)
_NOWHERE = (0.0, 0.0, 0.0, 0.0)
_HREFS = pa.list_(pa.large_string())
MISPLACED = "its item contradicts itself: by the projection fields its files lie elsewhere than its bbox"
_SQUARE_DEG = 1.0
"""Side of a neighbourhood whose scenes lie together: about a Sentinel-2 tile."""


@dataclass(frozen=True, eq=False)
class SceneTable:
    """Scenes with their files, as columns of equal length."""

    kinds: tuple[Scene, ...]
    kind: NDArray[np.int32]
    """Position of each scene's kind in `kinds`."""
    scene_id: pa.StringArray
    tile: pa.StringArray
    platform: pa.StringArray
    moment_us: Ints
    """Acquisition time, microseconds since 1970, UTC."""
    bbox: Floats
    """(scene, 4) west, south, east, north."""
    cloud_pct: Floats
    """NaN where the catalogue does not tell."""
    refusal: NDArray[np.object_]
    hrefs: pa.ListArray
    """Addresses of each scene's files, in the order of its kind's."""
    spare: Ints
    """Position of each scene's spare in `spares`; -1 for none."""
    spares: "SceneTable | None" = None

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, rows: Ints) -> "SceneTable":
        """Some of the scenes, in the order given; spares stay where they are."""
        at = pa.array(rows)
        own = {name: getattr(self, name)[rows] for name in ("kind", "moment_us", "bbox", "cloud_pct", "refusal")}
        arrow = {name: getattr(self, name).take(at) for name in ("scene_id", "tile", "platform", "hrefs")}
        return SceneTable(self.kinds, **own, **arrow, spare=self.spare[rows], spares=self.spares)

    def column(self, name: str) -> list[object]:
        """A field of its kind for each kind, in order."""
        return [getattr(kind, name) for kind in self.kinds]

    def scenes(self) -> list[Scene]:
        """All of them as values."""
        spares = self.spares.scenes() if self.spares is not None else []
        columns = (getattr(self, name).to_pylist() for name in ("scene_id", "tile", "platform", "hrefs"))
        found = []
        for row, (scene_id, tile, platform, hrefs) in enumerate(zip(*columns, strict=True)):
            kind, spare = self.kinds[self.kind[row]], int(self.spare[row])
            cloud, bbox = float(self.cloud_pct[row]), self.bbox[row].tolist()
            scene = replace(
                kind,
                scene_id=scene_id,
                tile=tile,
                platform=platform,
                moment=moment_of(int(self.moment_us[row])),
                bbox=(bbox[0], bbox[1], bbox[2], bbox[3]),
                cloud_pct=None if np.isnan(cloud) else cloud,
                refusal=self.refusal[row],
                assets=tuple(replace(a, href=href) for a, href in zip(kind.assets, hrefs, strict=True)),
            )
            if spare >= 0:
                scene = replace(scene, spare=spares[spare].assets, spare_id=spares[spare].scene_id)
            found.append(scene)
        return found

    def columns(self) -> SceneColumns:
        """What a plan keeps in mind of them."""
        frames = [frame_of(kind) for kind in self.kinds]
        epsg_k = np.array([WGS84 if frame is None else frame[0] for frame in frames], np.int32)
        bounds_k = np.array([_NOWHERE if frame is None else frame[1] for frame in frames]).reshape(-1, 4)
        unknown_k = np.array([frame is None for frame in frames], bool)
        unknown = unknown_k[self.kind]
        bounds = bounds_k[self.kind]
        bounds[unknown] = self.bbox[unknown]
        bounds[unknown & (self.bbox[:, 2] < self.bbox[:, 0]), 2] += 360
        sensors = np.array(self.column("sensor"), object)
        ids = self.scene_id.to_numpy(zero_copy_only=False)
        looks = _objects([look_of(kind) for kind in self.kinds])[self.kind]
        return SceneColumns(
            sensors[self.kind], ids, self.moment_us, epsg_k[self.kind], bounds, self.refusal, looks, _digests(self)
        )


def scene_table(scenes: Iterable[Scene]) -> SceneTable:
    """The table of scenes at hand, in their order."""
    listed = list(scenes)
    kinds: dict[Scene, int] = {}
    kind = [kinds.setdefault(kind_of(scene), len(kinds)) for scene in listed]
    spares = [replace(s, scene_id=s.spare_id or "", assets=s.spare, spare=(), spare_id=None) for s in listed if s.spare]
    has_spare = np.array([bool(scene.spare) for scene in listed], bool)
    cloud = [np.nan if scene.cloud_pct is None else scene.cloud_pct for scene in listed]
    return SceneTable(
        tuple(kinds),
        np.array(kind, np.int32),
        pa.array([scene.scene_id for scene in listed], pa.string()),
        pa.array([scene.tile for scene in listed], pa.string()),
        pa.array([scene.platform for scene in listed], pa.string()),
        np.array([microseconds(scene.moment) for scene in listed], np.int64),
        np.array([scene.bbox for scene in listed], np.float64).reshape(-1, 4),
        np.array(cloud, np.float64),
        _objects([scene.refusal for scene in listed]),
        pa.array([[asset.href for asset in scene.assets] for scene in listed], _HREFS),
        np.where(has_spare, np.cumsum(has_spare) - 1, -1),
        scene_table(spares) if spares else None,
    )


def kind_of(scene: Scene) -> Scene:
    """A scene without what is its own."""
    return replace(
        scene,
        scene_id="",
        tile="",
        platform="",
        moment=_NOWHEN,
        bbox=_NOWHERE,
        cloud_pct=None,
        refusal=None,
        assets=tuple(replace(asset, href="") for asset in scene.assets),
        spare=(),
        spare_id=None,
    )


def concat(tables: Sequence[SceneTable]) -> SceneTable:
    """All scenes of tables without spares, in order."""
    if len(tables) == 1:
        return tables[0]
    kinds: dict[Scene, int] = {}
    moved = [np.array([kinds.setdefault(k, len(kinds)) for k in table.kinds], np.int32) for table in tables]
    own = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in ("moment_us", "bbox", "cloud_pct", "refusal", "spare")
    }
    arrow = {
        name: pa.concat_arrays([getattr(t, name) for t in tables]) for name in ("scene_id", "tile", "platform", "hrefs")
    }
    kind = np.concatenate([numbers[table.kind] for numbers, table in zip(moved, tables, strict=True)])
    return SceneTable(tuple(kinds), kind, **own, **arrow, spares=None)


def without_duplicates(table: SceneTable) -> SceneTable:
    """One scene per (sensor, tile, platform, sensing), by `resolve_duplicates`; neighbours lie together, by time."""
    names = np.array([kind.sensor for kind in table.kinds], str)
    sensor = np.unique(names, return_inverse=True)[1][table.kind]
    platform, tile = (column.dictionary_encode().indices.to_numpy() for column in (table.platform, table.tile))
    order = np.lexsort((table.moment_us, tile, platform, sensor))
    whence = np.stack([sensor, platform, tile])[:, order]
    gap_us = SAME_SENSING // SAME_SENSING.resolution
    follows = (whence[:, 1:] == whence[:, :-1]).all(0) & (np.diff(table.moment_us[order]) <= gap_us)
    first = np.flatnonzero(np.concatenate([[True], ~follows])) if len(order) else np.zeros(0, np.int64)
    size = np.diff(first, append=len(order))
    chosen, spare = [order[first[size == 1]]], [np.full(int((size == 1).sum()), -1)]
    for begin, length in zip(first[size > 1].tolist(), size[size > 1].tolist(), strict=True):
        pairs = resolve_duplicates([_listed(table, int(row)) for row in order[begin : begin + length]])
        chosen.append(np.array([one.row for one, _ in pairs]))
        spare.append(np.array([-1 if other is None else other.row for _, other in pairs]))
    rows, spares = np.concatenate(chosen), np.concatenate(spare)
    together = _by_neighbourhood(table, rows, sensor)
    rows, spares = rows[together], spares[together]
    has_spare = spares >= 0
    found = replace(table.take(rows), spare=np.where(has_spare, np.cumsum(has_spare) - 1, -1))
    return replace(found, spares=table.take(spares[has_spare]) if has_spare.any() else None)


def _listed(table: SceneTable, row: int) -> Listed:
    baseline = table.kinds[table.kind[row]].baseline
    return Listed(row, table.scene_id[row].as_py(), baseline, table.refusal[row] is None)


def _by_neighbourhood(table: SceneTable, rows: Ints, sensor: Ints) -> Ints:
    """Order of rows by (sensor, square of the ground, time, tile, id, platform, collection)."""
    west, south, east, north = table.bbox[rows].T
    middle = np.where(west > east, (west + east + 360) / 2, (west + east) / 2)
    with np.errstate(invalid="ignore"):
        square = np.stack([np.floor((south + north) / 2 / _SQUARE_DEG), np.floor(middle % 360 / _SQUARE_DEG)])
    keys = np.stack([table.moment_us[rows], *square.astype(np.int64)[::-1], sensor[rows]])
    order = np.lexsort(keys)
    same = (keys[:, order][:, 1:] == keys[:, order][:, :-1]).all(0)
    collections = [kind.collection for kind in table.kinds]
    for begin, end in _runs(same):
        own = {int(j): int(rows[j]) for j in order[begin:end]}
        names = [
            (
                *(getattr(table, name)[i].as_py() for name in ("tile", "scene_id", "platform")),
                collections[table.kind[i]],
                j,
            )
            for j, i in own.items()
        ]
        order[begin:end] = [name[-1] for name in sorted(names)]
    return order


def _runs(same: NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """Half-open ranges of elements of which each is the same as the one before it."""
    edges = np.diff(np.concatenate([[0], same.astype(np.int8), [0]]))
    return zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) + 1).tolist(), strict=True)


def usable(table: SceneTable, spec: RunSpec) -> SceneTable:
    """The scenes with a refusal written into those that the spec leaves out.

    Raises RadiometryError if files can't be classified, and PlanError if orbit directions mix.
    """
    facts = [(spec.sensors[kind.sensor], kind.orbit_state) for kind in table.kinds]
    refusal = table.refusal.copy()
    cloud = table.cloud_pct.astype(object)
    cloud[np.isnan(table.cloud_pct)] = None
    for row in np.flatnonzero(refusal == None).tolist():  # noqa: E711  # element by element
        sensor, orbit = facts[table.kind[row]]
        refusal[row] = left_out(cloud[row], orbit, sensor)
    elsewhere = misplaced(table.kinds, table.kind, table.bbox) & (refusal == None)  # noqa: E711  # element by element
    refusal[elsewhere] = MISPLACED
    ambiguous = np.flatnonzero(np.array(table.column("ambiguous"), bool)[table.kind])
    if len(ambiguous):
        first = int(ambiguous[0])
        sensor_name = table.kinds[table.kind[first]].sensor
        raise RadiometryError(
            f"{len(ambiguous)} of {len(table)} scenes can't be used: {sensor_name} {table.scene_id[first]}: "
            f"{refusal[first]}"
        )
    kept = np.flatnonzero(refusal == None)  # noqa: E711  # element by element
    used, at = np.unique(table.kind[kept], return_index=True)
    ids = table.scene_id.take(pa.array(kept[at])).to_pylist()
    named = [(table.kinds[k], scene_id) for k, scene_id in zip(used.tolist(), ids, strict=True)]
    for name, sensor in spec.sensors.items():
        check_orbits(name, sensor, {kind.orbit_state: scene_id for kind, scene_id in named if kind.sensor == name})
    found = replace(table, refusal=refusal)
    _check_phases(found, spec)
    return found


def _check_phases(table: SceneTable, spec: RunSpec) -> None:
    """Raise PlanError where phases over intervals of several lengths would be averaged."""
    for name, sensor in spec.sensors.items():
        if spec.time.step == OBSERVATION or "unwrapped_phase" not in [band.name for band in sensor.read_rows()]:
            continue  # a bin of one observation holds one pair
        own = np.flatnonzero((np.array(table.column("sensor"), object)[table.kind] == name) & (table.refusal == None))  # noqa: E711
        keys, number = known_bins(spec.time, sensor, table.moment_us[own])
        for at, key in enumerate(keys):
            pairs = {table.kinds[k].pair for k in table.kind[own[number == at]]}
            days = sorted({pair_days(pair) for pair in pairs if pair is not None})
            if len(days) > 1:
                raise PlanError(
                    f"sensors.{name}: bin {key} holds pairs of {', '.join(map(str, days))} days, whose phases must not "
                    "be averaged; store phase_rate instead of unwrapped_phase, or choose one length with "
                    "min_baseline_days and max_baseline_days, or a shorter time.step"
                )


def _digests(table: SceneTable) -> NDArray[np.void]:
    """Of what of each scene decides pixels: its id and time, its files and its spare's."""
    files = _file_digests(table)
    spares = _file_digests(table.spares) if table.spares is not None else []
    ids, moments = table.scene_id.to_pylist(), table.moment_us.tolist()
    found = bytearray()
    for scene_id, moment, own, spare in zip(ids, moments, files, table.spare.tolist(), strict=True):
        other = spares[spare] if spare >= 0 else b""
        found += hashlib.sha256(b"%b%b|%d|%b" % (own, other, moment, scene_id.encode())).digest()[:16]
    return np.frombuffer(bytes(found), "V16")


def _file_digests(table: SceneTable) -> list[bytes]:
    kinds = [
        hashlib.sha256(canonical_json([_content(asset) for asset in kind.assets]).encode()) for kind in table.kinds
    ]
    offsets = _offsets(table.hrefs)
    hrefs = table.hrefs.values
    _, where, text = hrefs.buffers()
    ends = np.frombuffer(where, np.int64)[hrefs.offset : hrefs.offset + len(hrefs) + 1] if where else np.zeros(1, int)
    lengths = np.diff(ends).astype("<i4").tobytes()  # so that two addresses differ from the same text cut elsewhere
    data = memoryview(text) if text is not None else memoryview(b"")
    begins, at = ends[offsets].tolist(), offsets.tolist()
    found = []
    for row, kind in enumerate(table.kind.tolist()):
        one = kinds[kind].copy()
        one.update(lengths[4 * at[row] : 4 * at[row + 1]])
        one.update(data[begins[row] : begins[row + 1]])
        found.append(one.digest()[:16])
    return found


def _content(asset: Asset) -> JsonValue:
    """What of a file decides pixels, but for its address."""
    return vars(asset) | {
        "href": "",
        "nodata": None if asset.nodata is None else str(asset.nodata),  # NaN has no JSON
        "offset_reason": "",  # words for people, which change no pixel
    }


def _offsets(lists: pa.ListArray) -> NDArray[np.int32]:
    return np.asarray(lists.offsets)


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    found = np.empty(len(values), object)
    found[:] = values
    return found
