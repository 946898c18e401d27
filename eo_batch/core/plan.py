"""The plan: which cells, which scenes, which shards. Pure; searching and storing happen elsewhere.

A chips shard is one block of neighbouring cells x one time bin x one sensor: whole Zarr shards with one
writer. Blocks and time bins get their place in the cube from the axes, an append-only list, so that a
later plan extends the cube and never moves what is there.

Scenes and shards are columns, since a continent has millions of them.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.columns import Columns, Ints, alike
from eo_batch.core.errors import PlanError
from eo_batch.core.grid import Block, Cells, block_longitude, cells_of_area
from eo_batch.core.observations import known_bins, overpass_bins
from eo_batch.core.reach import reach
from eo_batch.core.scenes import Asset
from eo_batch.core.sensors import VECTORS
from eo_batch.core.shards import Shard, Shards
from eo_batch.core.spec import CubeArray, RunSpec, SensorSpec
from eo_batch.core.timebins import OBSERVATION, STATIC_KEY
from eo_batch.core.utm import Floats


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
    look: NDArray[np.object_]
    """What tells overpasses of one day apart, as `core/observations.py` has it; None where nothing does."""
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


def check_orbits(name: str, sensor: SensorSpec, examples: Mapping[str | None, str]) -> None:
    """Raise PlanError if the orbit directions of a sensor's usable scenes mix; examples: a scene's id for each."""
    if sensor.kind == "s1" and sensor.orbit is None and len(examples) > 1:
        known = ", ".join(sorted(f"{orbit or 'unknown'} ({scene_id})" for orbit, scene_id in examples.items()))
        raise PlanError(
            f"sensors.{name} has scenes of orbits {known}, which must not "
            f"be mixed; set sensors.{name}.orbit=ascending or descending (or add a sensor for each)"
        )


def make_plan(spec: RunSpec, scenes: SceneColumns, chips_digest: str) -> Plan:
    """The plan of a spec over scenes that a search found. Deterministic.

    chips_digest: identity of the chips stage, part of each shard's digest.

    Raises PlanError if there is nothing to do or a shard would need too much memory.
    """
    cells = cells_of_area(spec.area.polygon(), spec.grid.chip_m)
    blocks, places = cells.blocks_and_places(spec.grid.block_chips)
    bins: dict[str, int] = {}
    parts = [
        _Part(number, bins.setdefault(key, len(bins)), own, rows, counts)
        for number, name in enumerate(spec.sensors)
        for key, own, rows, counts in _scenes_of_blocks(spec, name, scenes, blocks)
    ]
    if not any(len(part.scenes) for part in parts):
        examples = dict(zip(scenes.refusal, scenes.scene_id, strict=True))
        why = "; ".join(sorted(f"{text} ({scene_id})" for text, scene_id in examples.items() if text)[:3])
        beside = scenes.scene_id[scenes.refusal == None]  # noqa: E711  # element by element
        if len(beside):
            why = f"{why}; ".removeprefix("; ") + f"{len(beside)} have grid or time elsewhere, such as {beside[0]}"
        why = why or "the catalogue has none there and then"
        raise PlanError(f"no usable scene covers the area in {spec.time.start} to {spec.time.end}: {why}")
    shards = _shards(spec, blocks, places, tuple(bins), parts, scenes.digest, chips_digest)
    _check_memory(shards, spec)
    return Plan(cells, scenes, shards)


@dataclass(frozen=True)
class _Part:
    """The shards of one sensor and time bin."""

    sensor: int
    bin: int
    blocks: Ints
    """Positions of the blocks that have a shard, ascending."""
    scenes: NDArray[np.int32]
    """Positions of scenes, block after block."""
    counts: Ints
    """How many each of the blocks has."""


def _scenes_of_blocks(
    spec: RunSpec, name: str, scenes: SceneColumns, blocks: Sequence[Block]
) -> Iterator[tuple[str, Ints, NDArray[np.int32], Ints]]:
    """Of each time bin of a sensor its key, its blocks, the usable scenes that reach each, and how many these are.

    A bin that is known before the search has all blocks, be it without scenes; an overpass those that it reaches.
    """
    own = np.flatnonzero((scenes.sensor == name) & (scenes.refusal == None))  # noqa: E711  # element by element
    first, frame = alike(scenes.epsg[own], *scenes.bounds[own].T)
    frames = own[first]
    pixel_m = max(array.pixel_m for array in spec.arrays() if array.sensor == name)
    start, block_of = reach(blocks, scenes.epsg[frames], scenes.bounds[frames], pixel_m)
    sensor, everywhere = spec.sensors[name], np.arange(len(blocks))
    if spec.time.step != OBSERVATION or sensor.info.static:
        small = np.min_scalar_type(len(blocks))  # numpy sorts small integers by their digits
        keys, number = known_bins(spec.time, sensor, scenes.moment_us[own])
        for at, key in enumerate(keys):
            inside = number == at
            rows, block = _pairs(own[inside].astype(np.int32), start, block_of, frame[inside])
            by_block = np.argsort(block.astype(small), kind="stable")
            yield key, everywhere, rows[by_block], np.bincount(block, minlength=len(blocks))
        return
    scene, block = _pairs(np.arange(len(own), dtype=np.int32), start, block_of, frame)
    lon = np.array([block_longitude(block) for block in blocks])
    row, ground = scene.astype(np.int64), block.astype(np.int64)
    keys, number = overpass_bins(spec.time, sensor, scenes.moment_us[own], scenes.look[own], lon, row, ground)
    order = np.lexsort((scene, block, number))
    edges = np.searchsorted(number[order], np.arange(len(keys) + 1))
    for key, begin, end in zip(keys, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = order[begin:end]
        rows = own[scene[inside]].astype(np.int32)
        counts = np.bincount(block[inside], minlength=len(blocks))
        reached = np.flatnonzero(counts) if spec.time.found else everywhere
        yield key, reached, rows, counts[reached]


def _pairs(
    row: NDArray[np.int32], start: Ints, block_of: NDArray[np.int32], frame: Ints
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Each row once for every block that its frame touches, and that block."""
    counts = start[frame + 1] - start[frame]
    ends = np.cumsum(counts)
    at = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(start[frame] - (ends - counts), counts)
    return np.repeat(row, counts), block_of[at]


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
    shards = [len(part.blocks) for part in parts]
    block = np.concatenate([part.blocks for part in parts])
    cells = places.sum(1)[block]
    sensor = np.repeat(np.array([part.sensor for part in parts], np.int32), shards)
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
        np.repeat(np.array([part.bin for part in parts], np.int32), shards),
        block.astype(np.int32),
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
    for block, end in zip(part.blocks.tolist(), ends.tolist(), strict=True):
        where = ground[block].copy()
        where.update(bin_key.encode())
        yield f"{where.hexdigest()[:12]}-{hashlib.sha256(content[begin:end]).hexdigest()[:12]}"
        begin = end


BASE_MEMORY = 250_000_000
"""Resident memory of a worker before it reads a pixel, bytes (measured: `benchmarks/README.md`)."""


def projected_memory(array: CubeArray, block_side: int, n_scenes: int) -> int:
    """Peak bytes of making one array of a shard: one band is composited over time while the next is being read, or all
    bands are held where they are composited together."""
    pixels = (array.chip_px * block_side) ** 2
    item = max(np.dtype(array.spec.info.dtype).itemsize, 2)
    # Two bands of a scene are held as they were read, the later one also aligned, beside them what is clear and valid.
    read = round(pixels * _fineness(array))
    stacks = n_scenes * (2 * read * item + pixels * (item + 4))
    if array.spec.takes_whole_pixels:
        # All bands of a scene are held, resampled ones with a mask each; of one row of chips also their values in turn.
        strip, bands = pixels // block_side, len(array.read_names)
        stacks = n_scenes * bands * (read + strip) * (item + 1) + n_scenes * pixels * (item + 4)
    return BASE_MEMORY + stacks + pixels * (len(array.bands) * item + 8 + _area_bytes(array))


_FINE_MAPS = 2.0
"""Pixels of a map's file in one of the grid's, where nothing tells: those of WorldCover lie 1.8 times as close at 48
degrees north (measured: `benchmarks/README.md`)."""


def _fineness(array: CubeArray) -> float:
    """Pixels of a file in one of the grid's, 1 at least."""
    kind = array.spec.info
    if kind.kind in VECTORS:
        return 1.0
    if not kind.bands:
        return _FINE_MAPS
    return max(1.0, array.pixel_m / (min(band.native_m for band in array.bands) * array.spec.pixel_scale)) ** 2


def _area_bytes(array: CubeArray) -> int:
    """Bytes for each pixel where what files hold is dealt out by area: sums and covers of cells, or parts of a file."""
    kind = array.spec.info
    if kind.kind == "classes":
        return 8
    return 24 if kind.resampling in ("mean", "sum") and kind.kind not in VECTORS else 0


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


def asset_bounds(asset: Asset) -> tuple[float, float, float, float]:
    """(x_min, y_min, x_max, y_max) of a file whose catalogue tells its grid, in its own CRS."""
    assert asset.transform is not None  # callers have looked
    assert asset.shape is not None
    a, b, c, d, e, f = asset.transform
    rows, cols = asset.shape
    xs = [c, c + a * cols, c + b * rows, c + a * cols + b * rows]
    ys = [f, f + d * cols, f + e * rows, f + d * cols + e * rows]
    return min(xs), min(ys), max(xs), max(ys)
