"""The images of one shard: all scenes of a sensor over a block in a time bin, read, aligned and composited.

Legend: t scenes or observations, b bands, c chips of the block, y rows, x columns.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.grid import Block, block_longitude
from eo_batch.core.observations import observations
from eo_batch.core.plan import asset_bounds
from eo_batch.core.receipts import Note
from eo_batch.core.scenes import Asset, Scene, SceneKey
from eo_batch.core.sensors import VECTORS, ZERO_IS_NODATA
from eo_batch.core.shards import Shard
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.core.utm import WGS84
from eo_batch.io.rasters import RasterReader
from eo_batch.io.sources import Sources
from eo_batch.io.windows import RawImage
from eo_batch.pixels.areas import class_areas, conserve, overlaid
from eo_batch.pixels.borders import swath_border
from eo_batch.pixels.derived import derive, halo_px
from eo_batch.pixels.grids import PixelGrid, SourceImage, outline_in
from eo_batch.pixels.joining import Joined
from eo_batch.pixels.layers import Convert, Layer, Whole, layer_of
from eo_batch.pixels.radiometry import class_notes, clear_sky, possible, to_storage, valid_pixels
from eo_batch.pixels.seams import mosaic
from eo_batch.pixels.spread import Made, Spread, Thing
from eo_batch.pixels.summary import ClassAreas

Mask = NDArray[np.bool_]
_Skies = Mapping[SceneKey, Layer | None]
"""Where the sky is clear, by a scene's id; None where that is not asked."""
_KERNEL_PX = 2
"""Pixels around the block that a resampling kernel may touch."""


@dataclass(frozen=True)
class Image:
    """One array of the block."""

    array: CubeArray
    grid: PixelGrid
    pixels_byx: NDArray[np.generic]
    valid_yx: NDArray[np.uint8]
    """Observations in which every band is valid."""
    seen_yx: Mask
    """Whether any scene holds data there, clouds included."""
    covered_yx: Mask
    """Whether any scene's grid reaches there."""
    class_areas: Mapping[str, ClassAreas]
    """Of class rasters, by band."""


class Images:
    """Makes them, and remembers what there is to tell."""

    def __init__(
        self, spec: RunSpec, shard: Shard, scenes: Iterable[Scene], reader: RasterReader, spread: Spread
    ) -> None:
        """spread: how work on pixels is spread over cores."""
        self.spec, self.shard, self._spread = spec, shard, spread
        self.sensor = spec.sensors[shard.sensor]
        self.kind = self.sensor.info
        self.scenes = _ordered(scenes, newest_first=self.kind.static)
        self.sources = Sources(reader, self._bounds_in, _KERNEL_PX + 3 * self._border_px(self._finest_m()))
        self.notes: list[Note] = []
        self._areas: dict[str, ClassAreas] = {}
        self._scl: dict[SceneKey, RawImage | None] = {}

    @property
    def lost(self) -> list[Scene]:
        """Scenes of which a file could not be read."""
        return [scene for scene in self.scenes if scene.key in self.sources.lost]

    async def made(self) -> list[Image]:
        """The images of all arrays of the sensor, the finest first. Raises ShardFailed."""
        if self.kind.kind == "s2-l2a":
            await self._read_classes()
        return [await self._made(array) for array in self.spec.arrays() if array.sensor == self.shard.sensor]

    def _finest_m(self) -> float:
        return min(array.pixel_m for array in self.spec.arrays() if array.sensor == self.shard.sensor)

    def _border_px(self, pixel_m: float) -> int:
        """Width of the noisy strip inside a swath's edge, in pixels of a file."""
        return math.ceil(self.sensor.border_m / pixel_m) if self.kind.kind == "s1" else 0

    def _bounds_in(self, epsg: int) -> tuple[float, float, float, float]:
        grid = grid_of(self.shard.block, self._finest_m()).grown(
            halo_px([band.name for band in self.sensor.band_rows()])
        )
        return grid.bounds if epsg == grid.epsg else outline_in(grid, epsg)

    async def _read_classes(self) -> None:
        """Read Sentinel-2's scene classification of all scenes; it masks every band."""
        results = await asyncio.gather(*(self.sources.read(scene, "SCL") for scene in self.scenes))
        for scene, result in zip(self.scenes, results, strict=True):
            self._scl[scene.key] = result[0] if result else None
            if result:
                self.notes.extend(Note(subject=scene.scene_id, text=t) for t in class_notes(result[0].pixels_yx))

    async def _made(self, array: CubeArray) -> Image:
        """All bands of one array, composited."""
        names, halo = array.read_names, halo_px(array.band_names)
        own = grid_of(self.shard.block, array.pixel_m)
        grid = own.grown(halo)
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
                covered |= footprint(scene, grid)
        pixels, valid = image.pixels_byx, image.valid_yx()
        inner = (slice(halo, -halo or None),) * 2
        if names != array.band_names:
            pixels, defined = derive(pixels, names, array.band_names, array.pixel_m)
            valid = np.where(defined, valid[inner], 0).astype(np.uint8)
        return Image(array, own, pixels, valid, image.seen_yx[inner], covered[inner], self._areas)

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
                await asyncio.to_thread(image.join, b, given, array.spec.composite, partial(self._beside, ahead))
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
        return reached

    def _beside(
        self, reading: asyncio.Future[Any], act: Callable[[Thing], Made], things: Iterable[Thing]
    ) -> Iterator[Made]:
        """As `map` while something is read, since decoding keeps the other cores at work; then spread over cores."""
        left = iter(things)
        for thing in left:
            yield act(thing)
            if reading.done():
                break
        yield from self._spread(act, left)

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
        await asyncio.to_thread(image.join_whole, given, array.spec.composite, array.chip_px, self._spread)
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
                chips = grid_of(self.shard.block, self.spec.grid.chip_m)
                codes, areas_yxm = await asyncio.to_thread(class_areas, sources, chips, self._spread)
                # Rows of chips go northwards.
                self._areas[band] = codes, areas_yxm[::-1].reshape(self.shard.block.side**2, len(codes))
            elif sources:
                by_area = overlaid if self.kind.kind in VECTORS else partial(conserve, spread=self._spread)
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


def grid_of(block: Block, pixel_m: float) -> PixelGrid:
    """A block's grid at a pixel size."""
    x_min, _, x_max, y_max = block.bounds
    size = round((x_max - x_min) / pixel_m)
    return PixelGrid(block.epsg, x_min, y_max, pixel_m, size, size)


def footprint(scene: Scene, grid: PixelGrid) -> Mask:
    """Pixels of the grid inside the scene's raster; all of them where the catalogue does not tell."""
    asset = next((a for a in scene.assets if a.epsg == grid.epsg and a.transform and a.shape), None)
    inside: Mask = np.zeros(grid.shape, bool)
    if asset is None:
        return ~inside
    x_min, y_min, x_max, y_max = asset_bounds(asset)
    rows = slice(_index(grid.top - y_max, grid.pixel), _index(grid.top - y_min, grid.pixel))
    inside[rows, _index(x_min - grid.left, grid.pixel) : _index(x_max - grid.left, grid.pixel)] = True
    return inside


def _ordered(scenes: Iterable[Scene], *, newest_first: bool) -> list[Scene]:
    """Scenes by time: newest first for products without a time axis, of which the first wins."""
    sign = -1 if newest_first else 1
    return sorted(scenes, key=lambda scene: (sign * scene.moment.timestamp(), scene.tile, scene.scene_id))


def _converted(raw: RawImage, convert: Convert) -> SourceImage:
    pixels, valid = convert(raw.pixels_yx, raw.mask_yx)
    return SourceImage(pixels, valid, raw.epsg, raw.transform)


def _index(distance: float, pixel: float) -> int:
    return max(round(distance / pixel), 0)
