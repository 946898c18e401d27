"""Stage `chips`: one block of chips x one time bin x one sensor, from source files to whole Zarr shards.

Legend: t scenes or observations, b bands, c chips of the block, y rows, x columns.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eo_batch.core import layout
from eo_batch.core.grid import Block, block_longitude
from eo_batch.core.identity import Identity
from eo_batch.core.observations import observations
from eo_batch.core.plan import Axes, asset_bounds
from eo_batch.core.receipts import ChipState, Note, Receipt
from eo_batch.core.scenes import Asset, Scene, SceneKey
from eo_batch.core.sensors import VECTORS, ZERO_IS_NODATA
from eo_batch.core.shards import Shard
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.core.utm import WGS84
from eo_batch.io.cube import write_block
from eo_batch.io.rasters import AssetReader, RasterReader
from eo_batch.io.sources import Sources, in_order
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes
from eo_batch.io.vectors import VectorReader
from eo_batch.io.windows import RawImage
from eo_batch.pixels.areas import class_areas, conserve, overlaid
from eo_batch.pixels.borders import swath_border
from eo_batch.pixels.chips import any_of, chips_of, share_of
from eo_batch.pixels.derived import derive, halo_px
from eo_batch.pixels.grids import PixelGrid, SourceImage, outline_in
from eo_batch.pixels.joining import Joined
from eo_batch.pixels.layers import Convert, Layer, Whole, layer_of
from eo_batch.pixels.radiometry import class_notes, clear_sky, possible, to_storage, valid_pixels
from eo_batch.pixels.seams import mosaic
from eo_batch.pixels.summary import ClassAreas, summary_rows
from eo_batch.pixels.vectors import draw
from eo_batch.settings import Settings

Mask = NDArray[np.bool_]
_Skies = Mapping[SceneKey, Layer | None]
"""Where the sky is clear, by a scene's id; None where that is not asked."""
_KERNEL_PX = 2
"""Pixels around the block that a resampling kernel may touch."""


def run(spec: RunSpec, shard: Shard, scenes: Sequence[Scene], axes: Axes, store: Store, settings: Settings) -> Receipt:
    """Make one shard of its scenes. Raises ShardFailed, StoreError."""
    files = AssetReader(settings)
    reader: RasterReader = files
    sensor = spec.sensors[shard.sensor]
    if sensor.kind in VECTORS:
        (array,) = (array for array in spec.arrays() if array.sensor == shard.sensor)
        grid = grid_of(shard.block, array.pixel_m)
        drawn = partial(draw, kind=sensor.kind, grid=grid)
        reader = VectorReader(files, sensor.where, drawn, grid.epsg, grid.transform)
    return asyncio.run(make(spec, shard, scenes, axes, store, reader))


async def make(
    spec: RunSpec, shard: Shard, scenes: Sequence[Scene], axes: Axes, store: Store, reader: RasterReader
) -> Receipt:
    """As `run`, with any reader."""
    work = _Work(spec, shard, _ordered(spec, shard, scenes), reader)
    arrays = [array for array in spec.arrays() if array.sensor == shard.sensor]
    prefix = Identity(spec).prefix("chips")
    written: dict[str, tuple[int, str]] = {}
    rows: list[dict[str, object]] = []
    await work.read_classes()
    made = [await work.make_array(array) for array in arrays]
    work.sources.check_lost(shard.key, spec.limits.max_missing)
    for array, image in zip(arrays, made, strict=True):
        chips = work.chips(image)
        written |= write_block(store, prefix, axes, array, shard.block, shard.bin_key, chips)
        for chip_id, place in work.places.items():
            if (chip := chips[place]) is not None:
                areas = {band: (codes, areas_cm[place]) for band, (codes, areas_cm) in work.class_areas.items()}
                rows.extend(summary_rows(array, shard.bin_key, chip_id, chip[0], areas))
    data = parquet_bytes(pa.Table.from_pylist(rows, schema=_SUMMARY))
    key = layout.summary(prefix, shard.key)
    store.put(key, data)
    written[key.removeprefix(f"{prefix}/")] = (len(data), "")
    outcomes = in_order(work.sources.outcomes)
    return Receipt(
        stage="chips",
        shard=shard.key,
        inputs=shard.inputs,
        outputs={name: size for name, (size, _) in written.items()},
        digests={name: sha for name, (_, sha) in written.items() if sha},
        chips=work.states(arrays, made),
        valid=work.valid_shares(made),
        sources=outcomes,
        notes=tuple(work.notes),
        bytes_in=sum(s.bytes_in for s in outcomes),
        requests=sum(s.requests for s in outcomes),
    )


@dataclass(frozen=True)
class _Image:
    """One array of the block."""

    pixels_byx: NDArray[np.generic]
    valid_yx: NDArray[np.uint8]
    """Observations in which every band is valid."""
    seen_yx: Mask
    """Whether any scene holds data there, clouds included."""
    covered_yx: Mask
    """Whether any scene's grid reaches there."""

    def derived(self, given: Sequence[str], array: CubeArray) -> "_Image":
        """The image of the array's bands, some of which are computed from `given`; the halo is cut off."""
        pixels, defined = derive(self.pixels_byx, given, array.band_names, array.pixel_m)
        inner = (slice(halo_px(array.band_names), -halo_px(array.band_names) or None),) * 2
        valid = np.where(defined, self.valid_yx[inner], 0).astype(np.uint8)
        return _Image(pixels, valid, self.seen_yx[inner], self.covered_yx[inner])


class _Work:
    """The steps of one shard."""

    def __init__(self, spec: RunSpec, shard: Shard, scenes: Sequence[Scene], reader: RasterReader) -> None:
        self.spec, self.shard, self.scenes = spec, shard, scenes
        self.sensor = spec.sensors[shard.sensor]
        self.kind = self.sensor.info
        self.places = dict(zip(shard.chip_ids, shard.places, strict=True))
        self.sources = Sources(reader, self._bounds_in, _KERNEL_PX + 3 * self._border_px(self._finest_m()))
        self.notes: list[Note] = []
        self.class_areas: dict[str, ClassAreas] = {}
        """Of class rasters, by band."""
        self._scl: dict[SceneKey, RawImage | None] = {}

    def _finest_m(self) -> float:
        return min(array.pixel_m for array in self.spec.arrays() if array.sensor == self.shard.sensor)

    def _border_px(self, pixel_m: float) -> int:
        """Width of the noisy strip inside a swath's edge, in pixels of a file."""
        return math.ceil(self.sensor.border_m / pixel_m) if self.kind.kind == "s1" else 0

    def grid(self, pixel_m: float) -> PixelGrid:
        """The block's grid at a pixel size."""
        return grid_of(self.shard.block, pixel_m)

    def _bounds_in(self, epsg: int) -> tuple[float, float, float, float]:
        grid = self.grid(self._finest_m()).grown(halo_px([band.name for band in self.sensor.band_rows()]))
        return grid.bounds if epsg == grid.epsg else outline_in(grid, epsg)

    async def read_classes(self) -> None:
        """Read Sentinel-2's scene classification of all scenes; it masks every band."""
        if self.kind.kind != "s2-l2a":
            return
        results = await asyncio.gather(*(self.sources.read(scene, "SCL") for scene in self.scenes))
        for scene, result in zip(self.scenes, results, strict=True):
            self._scl[scene.key] = result[0] if result else None
            if result:
                self.notes.extend(Note(subject=scene.scene_id, text=t) for t in class_notes(result[0].pixels_yx))

    async def make_array(self, array: CubeArray) -> _Image:
        """All bands of one array, composited."""
        names, halo = array.read_names, halo_px(array.band_names)
        grid = self.grid(array.pixel_m).grown(halo)
        usable = [scene for scene in self.scenes if self._told(scene)]
        skies = await asyncio.gather(*(asyncio.to_thread(self._clear, scene, grid) for scene in usable))
        clear = {scene.key: sky for scene, sky in zip(usable, skies, strict=True)}
        groups = self._groups(usable)
        image = Joined(
            np.empty((len(names), *grid.shape), self.kind.dtype),
            np.ones((len(groups), *grid.shape), bool),
            np.zeros(grid.shape, bool),
            self.kind.fill,
        )
        join = self._join_whole if array.spec.takes_whole_pixels else self._join_bands
        reached = await join(array, grid, image, groups, clear)
        covered = np.zeros(grid.shape, bool)
        for scene in usable:
            if scene.key in reached:
                covered |= self._footprint(scene, grid)
        whole = _Image(image.pixels_byx, image.valid_yx(), image.seen_yx, covered)
        return whole if names == array.band_names else whole.derived(names, array)

    async def _join_bands(
        self,
        array: CubeArray,
        grid: PixelGrid,
        image: Joined,
        groups: Sequence[Sequence[Scene]],
        clear: _Skies,
    ) -> set[SceneKey]:
        """Composite band after band, the next being read meanwhile; keys of the scenes that reach the block."""
        names = array.read_names
        usable = [scene for group in groups for scene in group]
        reached: set[SceneKey] = set()
        ahead = asyncio.ensure_future(self._layers(usable, names[0], grid))
        try:
            for b in range(len(names)):
                layers = await ahead
                if b + 1 < len(names):
                    ahead = asyncio.ensure_future(self._layers(usable, names[b + 1], grid))
                reached |= layers.keys()
                given = [[(layers[s.key], clear[s.key]) for s in group if s.key in layers] for group in groups]
                await asyncio.to_thread(image.join, b, given, array.spec.composite)
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
        return reached

    async def _join_whole(
        self,
        array: CubeArray,
        grid: PixelGrid,
        image: Joined,
        groups: Sequence[Sequence[Scene]],
        clear: _Skies,
    ) -> set[SceneKey]:
        """As `_join_bands`, where a pixel needs all its bands: they are read first, and held as they were read."""
        usable = [scene for group in groups for scene in group]
        layers_b = [await self._layers(usable, name, grid) for name in array.read_names]
        given = [
            [
                ([layers[s.key] for layers in layers_b], clear[s.key])
                for s in group
                if all(s.key in layers for layers in layers_b)
            ]
            for group in groups
        ]
        await asyncio.to_thread(image.join_whole, given, array.spec.composite, array.chip_px)
        return {key for layers in layers_b for key in layers}

    def _groups(self, scenes: Sequence[Scene]) -> list[list[Scene]]:
        """Scenes that form one observation: one overpass; all of them for products without a time axis."""
        if self.kind.static:
            return [list(scenes)] if scenes else []
        groups = observations(scenes, self.sensor, block_longitude(self.shard.block))
        # Where tiles of one overpass overlap, the first one counts: rather a copy than a resampled neighbour zone.
        return [sorted(group, key=self._needs_warp) for group in groups.values()]

    def _needs_warp(self, scene: Scene) -> bool:
        return any(asset.epsg != self.shard.block.epsg for asset in scene.assets)

    async def _layers(self, scenes: Sequence[Scene], band: str, grid: PixelGrid) -> dict[SceneKey, Layer]:
        """A band of each scene that has it, by the scene's key."""
        if self.kind.static or self.kind.resampling in ("mean", "sum"):
            return await self._together(scenes, band, grid)
        layers = await asyncio.gather(*(self._layer(scene, band, grid) for scene in scenes))
        return {scene.key: layer for scene, layer in zip(scenes, layers, strict=True) if layer is not None}

    async def _layer(self, scene: Scene, band: str, grid: PixelGrid) -> Layer | None:
        result = await self.sources.read(scene, band)
        return None if result is None else await asyncio.to_thread(self._place, *result, grid)

    async def _together(self, scenes: Sequence[Scene], band: str, grid: PixelGrid) -> dict[SceneKey, Layer]:
        """As `_layers`, for what needs all files of an observation at once: totals, areas of classes, and what lies
        between the pixels of files that continue each other."""
        layers: dict[SceneKey, Layer] = {}
        for group in self._groups(scenes):
            results = await asyncio.gather(*(self.sources.read(scene, band) for scene in group))
            found = {scene.key: result for scene, result in zip(group, results, strict=True) if result}
            if self.kind.kind == "classes":
                layers |= {key: self._place(*result, grid) for key, result in found.items()}
            sources = [_converted(*self._source(*result)) for result in found.values()]
            if self.kind.kind == "classes":
                chips = self.grid(self.spec.grid.chip_m)
                codes, areas_yxm = await asyncio.to_thread(class_areas, sources, chips)
                # Rows of chips go northwards.
                self.class_areas[band] = codes, areas_yxm[::-1].reshape(self.shard.block.side**2, len(codes))
            elif sources:
                by_area = overlaid if self.kind.kind in VECTORS else conserve
                join = mosaic if self.kind.resampling == "bilinear" else by_area
                pixels, valid = await asyncio.to_thread(join, sources, grid, self.kind.resampling)
                layers |= dict.fromkeys(found, Whole(pixels.astype(self.kind.dtype), valid))
        return layers

    def _place(self, raw: RawImage, asset: Asset, grid: PixelGrid) -> Layer:
        source, convert = self._source(raw, asset)
        return layer_of(source, grid, self.kind.resampling, convert)

    def _source(self, raw: RawImage, asset: Asset) -> tuple[RawImage, Convert]:
        """A file's pixels, of a radar swath without its border, and how they become storage values."""
        nodata = raw.nodata if raw.nodata is not None else asset.nodata
        if nodata is None and self.kind.kind in ZERO_IS_NODATA:
            nodata = 0.0
        if self.kind.kind == "coherence" and asset.scale == 1 and np.issubdtype(raw.pixels_yx.dtype, np.integer):
            asset = replace(asset, scale=0.01)  # whole numbers hold no fractions: they are hundredths
        if self.kind.kind == "s1" and raw.epsg != WGS84:
            valid = valid_pixels(raw.pixels_yx, nodata, raw.mask_yx)
            raw = replace(raw, mask_yx=valid & ~swath_border(valid, self._border_px(abs(raw.transform[0]))))

        def convert(pixels_yx: NDArray[np.generic], mask_yx: Mask | None) -> tuple[NDArray[np.generic], Mask]:
            valid = valid_pixels(pixels_yx, nodata, mask_yx)
            if self.kind.limits is not None:
                valid &= possible(pixels_yx, self.kind.limits, asset.scale, asset.offset_dn)
            return to_storage(pixels_yx, valid, self.kind, asset.scale, asset.offset_dn, asset.db), valid

        return raw, convert

    def _told(self, scene: Scene) -> bool:
        """Whether it is known where the scene's sky is clear."""
        return self.kind.kind != "s2-l2a" or self._scl[scene.key] is not None

    def _clear(self, scene: Scene, grid: PixelGrid) -> Layer | None:
        """Where the sky is clear; None where that is not asked."""
        raw = self._scl.get(scene.key)
        if raw is None:
            return None
        raw = replace(raw, pixels_yx=clear_sky(raw.pixels_yx, self.sensor.scl_invalid))
        return layer_of(raw, grid, "nearest", lambda pixels, mask: (pixels, pixels if mask is None else pixels & mask))

    def _footprint(self, scene: Scene, grid: PixelGrid) -> Mask:
        """Pixels of the grid inside the scene's raster; all of them where the catalogue does not tell."""
        asset = next((a for a in scene.assets if a.epsg == grid.epsg and a.transform and a.shape), None)
        inside: Mask = np.zeros(grid.shape, bool)
        if asset is None:
            return ~inside
        x_min, y_min, x_max, y_max = asset_bounds(asset)
        rows = slice(_index(grid.top - y_max, grid.pixel), _index(grid.top - y_min, grid.pixel))
        inside[rows, _index(x_min - grid.left, grid.pixel) : _index(x_max - grid.left, grid.pixel)] = True
        return inside

    def chips(self, image: _Image) -> list[tuple[NDArray[np.generic], NDArray[np.uint8]] | None]:
        """Pixels (b, y, x) and valid counts (y, x) of each cell of the block; None for those outside the area."""
        side, wanted = self.shard.block.side, set(self.places.values())
        pixels, valid = chips_of(image.pixels_byx, side), chips_of(image.valid_yx[None], side)[:, :, 0]
        at = [divmod(place, side) if place in wanted else None for place in range(side * side)]
        return [None if chip is None else (pixels[chip], valid[chip]) for chip in at]

    def states(self, arrays: Sequence[CubeArray], images: Sequence[_Image]) -> dict[str, ChipState]:
        """Outcome of every chip, judged on the sensor's finest array."""
        image, side = images[0], self.shard.block.side
        grid = self.grid(arrays[0].pixel_m)
        failed = np.zeros(grid.shape, bool)
        for scene in self.scenes:
            if scene.key in self.sources.lost:
                failed |= self._footprint(scene, grid)
        layers = {
            "ok": image.valid_yx > 0,
            "read_failed": failed,
            "clouded_out": image.seen_yx,
            "no_data": image.covered_yx,
        }
        per_chip = {name: any_of(layer, side) for name, layer in layers.items()}
        states: dict[str, ChipState] = {}
        for chip_id, place in self.places.items():
            state: ChipState = "no_scene"
            for name in ("ok", "read_failed", "clouded_out", "no_data"):
                if per_chip[name][place]:
                    state = name
                    break
            states[chip_id] = state
        return states

    def valid_shares(self, images: Sequence[_Image]) -> dict[str, float]:
        """Share of each chip's pixels with a valid observation, on the finest array."""
        shares = share_of(images[0].valid_yx > 0, self.shard.block.side)
        return {chip_id: round(float(shares[place]), 6) for chip_id, place in self.places.items()}


def _ordered(spec: RunSpec, shard: Shard, scenes: Iterable[Scene]) -> list[Scene]:
    """The shard's scenes: by time, or newest first for products without a time axis, of which the first wins."""
    static = spec.sensors[shard.sensor].info.static
    return sorted(scenes, key=lambda s: (-s.moment.timestamp() if static else s.moment.timestamp(), s.tile, s.scene_id))


def grid_of(block: Block, pixel_m: float) -> PixelGrid:
    """A block's grid at a pixel size."""
    x_min, _, x_max, y_max = block.bounds
    size = round((x_max - x_min) / pixel_m)
    return PixelGrid(block.epsg, x_min, y_max, pixel_m, size, size)


def _converted(raw: RawImage, convert: Convert) -> SourceImage:
    pixels, valid = convert(raw.pixels_yx, raw.mask_yx)
    return SourceImage(pixels, valid, raw.epsg, raw.transform)


def _index(distance: float, pixel: float) -> int:
    return max(round(distance / pixel), 0)


_SUMMARY = pa.schema(
    [
        ("chip_id", pa.string()),
        ("bin", pa.string()),
        ("array", pa.string()),
        ("band", pa.string()),
        ("code", pa.int32()),
        ("n", pa.int64()),
        ("area_m2", pa.float64()),
        ("mean", pa.float64()),
        ("m2", pa.float64()),
    ]
)
"""Columns of a shard's summary."""
