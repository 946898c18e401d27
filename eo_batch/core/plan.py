"""The plan: which cells, which scenes, which shards. Pure; searching and storing happen elsewhere.

A chips shard is one block of neighbouring cells x one time bin x one sensor: whole Zarr shards with one
writer. Blocks and time bins get their place in the cube from the axes, an append-only list, so that a
later plan extends the cube and never moves what is there.

Scenes and shards are columns, since a continent has millions of them.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.columns import Columns, Ints, alike
from eo_batch.core.errors import PlanError
from eo_batch.core.grid import Block, Cells, cells_of_area
from eo_batch.core.reach import reach
from eo_batch.core.scenes import Asset, Scene
from eo_batch.core.shards import Shard, Shards
from eo_batch.core.spec import CubeArray, RunSpec, SensorSpec
from eo_batch.core.timebins import STATIC_KEY, midnight
from eo_batch.core.utm import Floats

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Axes:
    """The cube's order of blocks and time bins: order of arrival, append-only."""

    blocks: tuple[str, ...] = ()
    bins: tuple[str, ...] = ()

    @cached_property
    def _block_index(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self.blocks)}

    @cached_property
    def _time_index(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(key for key in self.bins if key != STATIC_KEY)}

    def time_index(self, bin_key: str) -> int | None:
        """Position on the cube's time axis; None for products without one."""
        return None if bin_key == STATIC_KEY else self._time_index[bin_key]

    def first_slot(self, block: Block) -> int:
        """Position of a block's first cell on the cube's chip axis."""
        return self._block_index[block.key] * block.side**2

    def extended(self, blocks: Iterable[str], bins: Iterable[str]) -> "Axes":
        """These axes with what is new appended in the order given."""
        return Axes(
            tuple(dict.fromkeys((*self.blocks, *blocks))),
            tuple(dict.fromkeys((*self.bins, *bins))),
        )


@dataclass(frozen=True, eq=False)
class SceneColumns(Columns):
    """What a plan knows of all scenes found, refused ones included. Scenes of one neighbourhood lie together, by time.

    Their order is their own: whatever else is found, of any two the same one comes first.
    """

    sensor: NDArray[np.object_]
    """Name of the sensor in the run spec."""
    scene_id: NDArray[np.object_]
    moment_us: Ints
    """Acquisition time, microseconds since 1970, UTC."""
    epsg: NDArray[np.int32]
    """CRS of the raster, or EPSG:4326 where the catalogue tells the item's bounding box only."""
    bounds: Floats
    """(scene, 4) x_min, y_min, x_max, y_max in that CRS."""
    refusal: NDArray[np.object_]
    """Why a scene can't be used; None for those that can."""
    digest: NDArray[np.void]
    """Of all that decides pixels, 16 bytes each."""

    def __len__(self) -> int:
        return len(self.moment_us)

    def left_out(self, sensor: str) -> int:
        """How many scenes of a sensor can't be used."""
        return int(((self.sensor == sensor) & (self.refusal != None)).sum())  # noqa: E711  # element by element


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know about the outside world."""

    cells: Cells
    scenes: SceneColumns
    shards: Shards

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks with at least one cell, in lattice order."""
        return self.shards.blocks

    def scene_ids(self, shard: Shard) -> tuple[str, ...]:
        """Ids of a shard's scenes."""
        return tuple(self.scenes.scene_id[list(shard.scenes)].tolist())


def left_out(cloud_pct: float | None, orbit_state: str | None, sensor: SensorSpec) -> str | None:
    """Why the spec leaves out a scene of such cloud cover and orbit; None if it does not."""
    if cloud_pct is not None and cloud_pct > sensor.max_cloud_pct:
        return f"cloud cover {cloud_pct:.1f} % is over max_cloud_pct={sensor.max_cloud_pct:g}"
    if sensor.orbit is not None and orbit_state != sensor.orbit:
        return f"orbit is {orbit_state or 'unknown'}, not {sensor.orbit}"
    return None


def check_orbits(name: str, sensor: SensorSpec, orbits: Iterable[str | None]) -> None:
    """Raise PlanError if the orbit directions of a sensor's usable scenes mix."""
    known = sorted({str(orbit) for orbit in orbits})
    if sensor.kind == "s1" and sensor.orbit is None and len(known) > 1:
        raise PlanError(
            f"sensors.{name} has scenes of orbits {', '.join(known)}, which must not "
            f"be mixed; set sensors.{name}.orbit=ascending or descending (or add a sensor for each)"
        )


def make_plan(spec: RunSpec, scenes: SceneColumns, chips_digest: str) -> Plan:
    """The plan of a spec over scenes that a search found. Deterministic.

    chips_digest: identity of the chips stage, part of each shard's digest.

    Raises PlanError if there is nothing to do or a shard would need too much memory.
    """
    cells = cells_of_area(spec.area.polygon(), spec.grid.chip_m)
    blocks, places = cells.blocks_and_places(spec.grid.block_chips)
    bin_keys = tuple(dict.fromkeys(key for sensor in spec.sensors.values() for key in spec.bins_of(sensor)))
    parts = [
        _Part(number, bin_keys.index(key), rows, counts)
        for number, name in enumerate(spec.sensors)
        for key, rows, counts in _scenes_of_blocks(spec, name, scenes, blocks)
    ]
    if not any(len(part.scenes) for part in parts):
        why = "; ".join(sorted({text for text in scenes.refusal if text})[:3])
        why = why or "the catalogue has none there and then"
        raise PlanError(f"no usable scene covers the area in {spec.time.start} to {spec.time.end}: {why}")
    shards = _shards(spec, blocks, places, bin_keys, parts, scenes.digest, chips_digest)
    _check_memory(shards, spec)
    return Plan(cells, scenes, shards)


@dataclass(frozen=True)
class _Part:
    """The shards of one sensor and time bin: one for each block."""

    sensor: int
    bin: int
    scenes: NDArray[np.int32]
    """Positions of scenes, block after block."""
    counts: Ints
    """How many each block has."""


def _scenes_of_blocks(
    spec: RunSpec, name: str, scenes: SceneColumns, blocks: Sequence[Block]
) -> Iterator[tuple[str, NDArray[np.int32], Ints]]:
    """Of each time bin of a sensor its key, the usable scenes that reach each block, and how many these are."""
    own = np.flatnonzero((scenes.sensor == name) & (scenes.refusal == None))  # noqa: E711  # element by element
    first, frame = alike(scenes.epsg[own], *scenes.bounds[own].T)
    frames = own[first]
    pixel_m = max(array.pixel_m for array in spec.arrays() if array.sensor == name)
    start, block_of = reach(blocks, scenes.epsg[frames], scenes.bounds[frames], pixel_m)
    small = np.min_scalar_type(len(blocks))  # numpy sorts small integers by their digits
    for key in spec.bins_of(spec.sensors[name]):
        inside = in_bin(scenes.moment_us[own], spec, key)
        rows, touching = own[inside].astype(np.int32), frame[inside]
        counts = start[touching + 1] - start[touching]
        ends = np.cumsum(counts)
        at = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(start[touching] - (ends - counts), counts)
        block = block_of[at].astype(small)
        by_block = np.argsort(block, kind="stable")
        yield key, np.repeat(rows, counts)[by_block], np.bincount(block, minlength=len(blocks))


def in_bin(moment_us: Ints, spec: RunSpec, bin_key: str) -> NDArray[np.bool_]:
    """Which times (microseconds since 1970) belong to a time bin: in it, and in the spec's range."""
    if bin_key == STATIC_KEY:
        return np.ones(len(moment_us), bool)
    time_bin = next(b for b in spec.time.bins() if b.key == bin_key)
    start, end = max(time_bin.start, midnight(spec.time.start)), min(time_bin.end, midnight(spec.time.end))
    return (microseconds(start) <= moment_us) & (moment_us < microseconds(end))


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """The time, UTC, of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _shards(
    spec: RunSpec,
    blocks: tuple[Block, ...],
    places: NDArray[np.bool_],
    bin_keys: tuple[str, ...],
    parts: Sequence[_Part],
    digests: NDArray[np.void],
    chips_digest: str,
) -> Shards:
    sensors = tuple(spec.sensors)
    counts = np.concatenate([part.counts for part in parts])
    cells = np.tile(places.sum(1), len(parts))
    sensor = np.repeat(np.array([part.sensor for part in parts], np.int32), len(blocks))
    memory, read, write = (np.zeros(len(counts), np.int64) for _ in range(3))
    for number, name in enumerate(sensors):
        own = sensor == number
        for array in (array for array in spec.arrays() if array.sensor == name):
            value = len(array.bands) * np.dtype(array.spec.info.dtype).itemsize
            needs = [projected_memory(array, spec.grid.block_chips, n) for n in range(int(counts.max()) + 1)]
            memory[own] = np.maximum(memory[own], np.array(needs)[counts[own]])
            read[own] += (array.chip_px * spec.grid.block_chips) ** 2 * value * counts[own]
            write[own] += array.chip_px**2 * value * cells[own]
    ground = [
        hashlib.sha256(f"{chips_digest}|{block.key}|".encode() + np.packbits(own).tobytes())
        for block, own in zip(blocks, places, strict=True)
    ]
    inputs = [text for part in parts for text in _inputs(part, bin_keys[part.bin], ground, digests)]
    return Shards(
        blocks,
        places,
        sensors,
        bin_keys,
        sensor,
        np.repeat(np.array([part.bin for part in parts], np.int32), len(blocks)),
        np.tile(np.arange(len(blocks), dtype=np.int32), len(parts)),
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([part.scenes for part in parts]),
        np.array(inputs, object),
        memory,
        read,
        write,
    )


def _inputs(part: _Part, bin_key: str, ground: Sequence["hashlib._Hash"], digests: NDArray[np.void]) -> Iterator[str]:
    """Digests of the shards of a part: of the cells, then of the scenes in the plan's order."""
    content = digests[part.scenes].tobytes()
    ends = np.cumsum(part.counts) * digests.dtype.itemsize
    begin = 0
    for block, end in zip(ground, ends.tolist(), strict=True):
        where = block.copy()
        where.update(bin_key.encode())
        yield f"{where.hexdigest()[:12]}-{hashlib.sha256(content[begin:end]).hexdigest()[:12]}"
        begin = end


BASE_MEMORY = 250_000_000
"""Resident memory of a worker before it reads a pixel, bytes (measured: `benchmarks/README.md`)."""


def projected_memory(array: CubeArray, block_side: int, n_scenes: int) -> int:
    """Peak bytes of making one array of a shard: one band is composited over time while the next is being read."""
    pixels = (array.chip_px * block_side) ** 2
    item = max(np.dtype(array.spec.info.dtype).itemsize, 2)
    # Two bands of a scene are held, the later one both as read and as aligned, beside them what is clear and valid.
    stacks = n_scenes * pixels * (3 * item + 4)
    return BASE_MEMORY + stacks + pixels * (len(array.bands) * item + 8)


def _check_memory(shards: Shards, spec: RunSpec) -> None:
    limit = spec.limits.shard_memory_gb * 1e9
    worst = shards[int(np.argmax(shards.memory_bytes))]
    if worst.memory_bytes > limit:
        sides = [spec.grid.block_chips // 2**k for k in range(1, 7)]
        fits = [
            side
            for side in sides
            if side >= 1
            and (worst.memory_bytes - BASE_MEMORY) * (side / spec.grid.block_chips) ** 2 + BASE_MEMORY <= limit
        ]
        smaller = f"use grid.block_chips={fits[0]}, " if fits else "use smaller chips, "
        needed_gb = math.ceil(worst.memory_bytes / 1e8) / 10
        raise PlanError(
            f"shard {worst.key} would need {needed_gb:g} GB for {len(worst.scenes)} scenes, over "
            f"limits.shard_memory_gb={spec.limits.shard_memory_gb:g}; {smaller}a shorter time.step, "
            f"a lower max_cloud_pct, or raise the limit to limits.shard_memory_gb={needed_gb:g}"
        )


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
    return str((scene.moment + timedelta(hours=lon / 15)).date())


def _middle_lon(scene: Scene) -> float:
    west, _, east, _ = scene.bbox
    if west > east:
        return ((west + east + 360) / 2 + 180) % 360 - 180
    # A box around the globe is how some publishers write a scene that crosses the antimeridian.
    return (west + east) / 2 if east - west < 180 else -180.0


def asset_bounds(asset: Asset) -> tuple[float, float, float, float]:
    """(x_min, y_min, x_max, y_max) of a file whose catalogue tells its grid, in its own CRS."""
    assert asset.transform is not None  # callers have looked
    assert asset.shape is not None
    a, b, c, d, e, f = asset.transform
    rows, cols = asset.shape
    xs = [c, c + a * cols, c + b * rows, c + a * cols + b * rows]
    ys = [f, f + d * cols, f + e * rows, f + d * cols + e * rows]
    return min(xs), min(ys), max(xs), max(ys)
