"""The plan: which cells, which scenes, which shards. Pure; searching and storing happen elsewhere.

A chips shard is one block of neighbouring cells x one time bin x one sensor: whole Zarr shards with one
writer. Blocks and time bins get their place in the cube from the axes, an append-only list, so that a
later plan extends the cube and never moves what is there.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import shapely

from eo_batch.core.digest import JsonValue, digest
from eo_batch.core.errors import PlanError, RadiometryError
from eo_batch.core.grid import Block, Cell, PlannedCell, block_longitude, block_of, cells_of_area
from eo_batch.core.observations import in_order, scenes_by_bin
from eo_batch.core.scenes import Asset, Scene
from eo_batch.core.spec import CubeArray, RunSpec, SensorSpec
from eo_batch.core.timebins import STATIC_KEY
from eo_batch.core.utm import Floats, project

_WGS84 = 4326
_MARGIN_PX = 2
"""Pixels around a block that a resampling kernel may touch."""
_EDGE_POINTS = 9
"""Points along each edge of a block when its outline is carried into another CRS."""


@dataclass(frozen=True)
class Axes:
    """The cube's order of blocks and time bins: order of arrival, append-only."""

    blocks: tuple[str, ...] = ()
    bins: tuple[str, ...] = ()

    def time_index(self, bin_key: str) -> int | None:
        """Position on the cube's time axis; None for products without one."""
        return None if bin_key == STATIC_KEY else [key for key in self.bins if key != STATIC_KEY].index(bin_key)

    def first_slot(self, block: Block) -> int:
        """Position of a block's first cell on the cube's chip axis."""
        return self.blocks.index(block.key) * block.side**2

    def extended(self, blocks: Iterable[str], bins: Iterable[str]) -> "Axes":
        """These axes with what is new appended in the order given."""
        return Axes(
            tuple(dict.fromkeys((*self.blocks, *blocks))),
            tuple(dict.fromkeys((*self.bins, *bins))),
        )


@dataclass(frozen=True)
class Shard:
    """One unit of chip making."""

    index: int
    """Position in the plan."""
    sensor: str
    block: Block
    bin_key: str
    chip_ids: tuple[str, ...]
    """Cells of the block that the area touches, in block order."""
    scene_ids: tuple[str, ...]
    """Usable scenes that reach the block in this bin, by time."""
    inputs: str
    """Digests of everything the shard's content depends on: of its cells, a dash, of its scenes."""
    memory_bytes: int
    """Projected peak memory of making the shard."""
    read_bytes: int
    """Projected uncompressed bytes of source pixels."""
    write_bytes: int
    """Uncompressed bytes of the shard's pixels."""

    @property
    def key(self) -> str:
        """Stable name within the chips stage: `s2/2023-08/u33n-…`."""
        return f"{self.sensor}/{self.bin_key}/{self.block.key}"


def only_scenes_differ(inputs: str, others: str) -> bool:
    """Whether two shards' inputs are of the same cells but of other scenes."""
    return inputs != others and inputs.split("-")[0] == others.split("-")[0]


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know about the outside world."""

    cells: tuple[PlannedCell, ...]
    blocks: tuple[Block, ...]
    """Blocks with at least one cell, in lattice order."""
    scenes: tuple[Scene, ...]
    """All scenes found, refused ones included."""
    shards: tuple[Shard, ...]

    def scene(self, sensor: str, scene_id: str) -> Scene:
        """A scene of a sensor by id."""
        return next(s for s in self.scenes if s.sensor == sensor and s.scene_id == scene_id)


def usable(scenes: Iterable[Scene], spec: RunSpec) -> list[Scene]:
    """The scenes with a refusal written into those that the spec leaves out.

    Raises RadiometryError if files can't be classified, and PlanError if orbit directions mix.
    """
    judged = [_judge(scene, spec.sensors[scene.sensor]) for scene in scenes]
    ambiguous = [scene for scene in judged if scene.ambiguous]
    if ambiguous:
        first = ambiguous[0]
        raise RadiometryError(
            f"{len(ambiguous)} of {len(judged)} scenes can't be used: {first.sensor} {first.scene_id}: {first.refusal}"
        )
    for name, sensor in spec.sensors.items():
        if sensor.kind == "s1" and sensor.orbit is None:
            orbits = {scene.orbit_state for scene in judged if scene.sensor == name and scene.refusal is None}
            if len(orbits) > 1:
                raise PlanError(
                    f"sensors.{name} has scenes of orbits {', '.join(sorted(str(o) for o in orbits))}, which must not "
                    f"be mixed; set sensors.{name}.orbit=ascending or descending (or add a sensor for each)"
                )
    return judged


def _judge(scene: Scene, sensor: SensorSpec) -> Scene:
    if scene.refusal is not None:
        return scene
    if scene.cloud_pct is not None and scene.cloud_pct > sensor.max_cloud_pct:
        limit = f"max_cloud_pct={sensor.max_cloud_pct:g}"
        return replace(scene, refusal=f"cloud cover {scene.cloud_pct:.1f} % is over {limit}")
    if sensor.orbit is not None and scene.orbit_state != sensor.orbit:
        return replace(scene, refusal=f"orbit is {scene.orbit_state or 'unknown'}, not {sensor.orbit}")
    return scene


def make_plan(spec: RunSpec, scenes: Sequence[Scene], chips_digest: str) -> Plan:
    """The plan of a spec over scenes that a search found. Deterministic.

    chips_digest: identity of the chips stage, part of each shard's digest.

    Raises PlanError if there is nothing to do or a shard would need too much memory.
    """
    cells = tuple(cells_of_area(spec.area.polygon(), spec.grid.chip_m))
    judged = usable(scenes, spec)
    by_block: dict[Block, list[Cell]] = {}
    for planned in cells:
        by_block.setdefault(block_of(planned.cell, spec.grid.block_chips), []).append(planned.cell)
    blocks = tuple(sorted(by_block))
    shards: list[Shard] = []
    for name, sensor in spec.sensors.items():
        found = [s for s in judged if s.sensor == name and s.refusal is None]
        reach = _reach(blocks, found, max(a.pixel_m for a in spec.arrays() if a.sensor == name))
        arrays = [array for array in spec.arrays() if array.sensor == name]
        binned = [
            scenes_by_bin([s for s in found if number in reach[s.scene_id]], spec.time, sensor, block_longitude(block))
            for number, block in enumerate(blocks)
        ]
        for bin_key in in_order((key for bins in binned for key in bins), spec.time):
            for block, bins in zip(blocks, binned, strict=True):
                if bin_key in bins:
                    cells_of = by_block[block]
                    shards.append(
                        _shard(len(shards), name, block, bin_key, cells_of, bins[bin_key], arrays, chips_digest)
                    )
    if not any(shard.scene_ids for shard in shards):
        why = "; ".join(sorted({s.refusal for s in judged if s.refusal})[:3]) or "the catalogue has none there and then"
        raise PlanError(f"no usable scene covers the area in {spec.time.start} to {spec.time.end}: {why}")
    _check_memory(shards, spec)
    return Plan(cells, blocks, tuple(judged), tuple(shards))


def _shard(
    index: int,
    sensor: str,
    block: Block,
    bin_key: str,
    cells: Sequence[Cell],
    scenes: Sequence[Scene],
    arrays: Sequence[CubeArray],
    chips_digest: str,
) -> Shard:
    chip_ids = tuple(cell.chip_id for cell in sorted(cells, key=block.place))
    content = [_json_scene(scene) for scene in scenes]
    ground = digest({"chips": chips_digest, "block": block.key, "bin": bin_key, "cells": chip_ids})
    inputs = f"{ground}-{digest(content)}"
    pixels = {array.name: (array.chip_px * block.side) ** 2 for array in arrays}
    read = sum(
        pixels[array.name] * len(array.bands) * len(scenes) * np.dtype(array.spec.info.dtype).itemsize
        for array in arrays
    )
    write = sum(
        array.chip_px**2 * len(cells) * len(array.bands) * np.dtype(array.spec.info.dtype).itemsize for array in arrays
    )
    return Shard(
        index,
        sensor,
        block,
        bin_key,
        chip_ids,
        tuple(scene.scene_id for scene in scenes),
        inputs,
        max((projected_memory(array, block.side, len(scenes)) for array in arrays), default=0),
        read,
        write,
    )


BASE_MEMORY = 250_000_000
"""Resident memory of a worker before it reads a pixel, bytes (measured: `benchmarks/README.md`)."""


def projected_memory(array: CubeArray, block_side: int, n_scenes: int) -> int:
    """Peak bytes of making one array of a shard: one band is composited over time while the next is being read, or all
    bands are held where they are composited together."""
    pixels = (array.chip_px * block_side) ** 2
    item = max(np.dtype(array.spec.info.dtype).itemsize, 2)
    # Two bands of a scene are held, the later one both as read and as aligned, beside them what is clear and valid.
    stacks = n_scenes * pixels * (3 * item + 4)
    if array.spec.takes_whole_pixels:
        # All bands of a scene are held, resampled ones with a mask each; of one row of chips also their values in turn.
        strip = pixels // block_side
        stacks = n_scenes * len(array.bands) * (pixels + strip) * (item + 1) + n_scenes * pixels * (item + 4)
    return BASE_MEMORY + stacks + pixels * (len(array.bands) * item + 8)


def _check_memory(shards: Sequence[Shard], spec: RunSpec) -> None:
    limit = spec.limits.shard_memory_gb * 1e9
    worst = max(shards, key=lambda shard: shard.memory_bytes)
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
            f"shard {worst.key} would need {needed_gb:g} GB for {len(worst.scene_ids)} scenes, over "
            f"limits.shard_memory_gb={spec.limits.shard_memory_gb:g}; {smaller}a shorter time.step, "
            f"a lower max_cloud_pct, or raise the limit to limits.shard_memory_gb={needed_gb:g}"
        )


def _reach(blocks: Sequence[Block], scenes: Sequence[Scene], pixel_m: float) -> dict[str, set[int]]:
    """Positions of the blocks that each scene's raster (or, if unknown, its bounding box) touches."""
    reach: dict[str, set[int]] = {scene.scene_id: set() for scene in scenes}
    by_crs: dict[int, list[Scene]] = {}
    for scene in scenes:
        by_crs.setdefault(_frame(scene)[0], []).append(scene)
    for epsg, group in by_crs.items():
        tree = shapely.STRtree([_outline(block, epsg, pixel_m) for block in blocks])
        shifts = (-360.0, 0.0, 360.0) if epsg == _WGS84 else (0.0,)
        for scene in group:
            x_min, y_min, x_max, y_max = _frame(scene)[1]
            for shift in shifts:
                box = shapely.box(x_min + shift, y_min, x_max + shift, y_max)
                reach[scene.scene_id].update(int(i) for i in tree.query(box, predicate="intersects"))
    return reach


def _frame(scene: Scene) -> tuple[int, tuple[float, float, float, float]]:
    """CRS and bounds of the scene's raster: from the first file that tells both, else the item's bbox."""
    for asset in scene.assets:
        if asset.epsg is not None and asset.transform is not None and asset.shape is not None:
            return asset.epsg, asset_bounds(asset)
    west, south, east, north = scene.bbox
    return _WGS84, (west, south, east if east >= west else east + 360, north)


def asset_bounds(asset: Asset) -> tuple[float, float, float, float]:
    """(x_min, y_min, x_max, y_max) of a file whose catalogue tells its grid, in its own CRS."""
    assert asset.transform is not None  # callers have looked
    assert asset.shape is not None
    a, b, c, d, e, f = asset.transform
    rows, cols = asset.shape
    xs = [c, c + a * cols, c + b * rows, c + a * cols + b * rows]
    ys = [f, f + d * cols, f + e * rows, f + d * cols + e * rows]
    return min(xs), min(ys), max(xs), max(ys)


def _outline(block: Block, epsg: int, pixel_m: float) -> shapely.Polygon:
    """A block's outline with a margin, in another CRS; longitudes are unwrapped around the block."""
    margin = _MARGIN_PX * pixel_m
    x_min, y_min, x_max, y_max = block.bounds
    ring_x, ring_y = _ring(x_min - margin, y_min - margin, x_max + margin, y_max + margin)
    x, y = project(block.epsg, epsg, ring_x, ring_y)
    if epsg == _WGS84:
        x = x[0] + (x - x[0] + 180) % 360 - 180
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return shapely.Polygon()
    x, y = x[finite], y[finite]
    return shapely.box(float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _ring(x_min: float, y_min: float, x_max: float, y_max: float) -> tuple[Floats, Floats]:
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)
    x = x_min + (x_max - x_min) * np.concatenate([along, np.ones_like(along), along[::-1], np.zeros_like(along)])
    y = y_min + (y_max - y_min) * np.concatenate([np.zeros_like(along), along, np.ones_like(along), along[::-1]])
    return x, y


def _json_scene(scene: Scene) -> JsonValue:
    """What of a scene decides pixels."""

    def files(assets: Iterable[Asset]) -> list[JsonValue]:
        return [
            asdict(asset)
            | {"nodata": None if asset.nodata is None else str(asset.nodata)}  # NaN has no JSON
            | {"offset_reason": ""}  # words for people, which change no pixel
            for asset in assets
        ]

    return {
        "id": scene.scene_id,
        "time": scene.moment.isoformat(),
        "assets": files(scene.assets),
        "spare": files(scene.spare),
    }
