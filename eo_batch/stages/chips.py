"""Stage `chips`: one block of chips x one time bin x one sensor, from source files to whole Zarr shards.

Legend: t scenes or observations, b bands, c chips of the block, y rows, x columns.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eo_batch.core import layout
from eo_batch.core.grid import block_longitude
from eo_batch.core.identity import Identity
from eo_batch.core.observations import observations
from eo_batch.core.plan import Axes, Shard, asset_bounds
from eo_batch.core.receipts import ChipState, Note, Receipt
from eo_batch.core.scenes import Asset, Scene
from eo_batch.core.sensors import SCL_NAMES
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.io.cube import CubeWriter
from eo_batch.io.rasters import AssetReader, RasterReader
from eo_batch.io.sources import Sources, in_order
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes
from eo_batch.io.windows import RawImage
from eo_batch.pixels import composite
from eo_batch.pixels.align import PixelGrid, SourceImage, outline_in
from eo_batch.pixels.borders import swath_border
from eo_batch.pixels.chips import cut
from eo_batch.pixels.geomedian import geomedian
from eo_batch.pixels.layers import Layer, layer_of
from eo_batch.pixels.moments import moments_of, moments_of_stored
from eo_batch.pixels.observations import Observation, first_valid, latest_valid, least_cloudy, medoid
from eo_batch.pixels.radiometry import clear_sky, to_storage, undefined_classes, valid_pixels
from eo_batch.settings import Settings

Mask = NDArray[np.bool_]
_KERNEL_PX = 2
"""Pixels around the block that a resampling kernel may touch."""
_STRIP_PX = 2**17
"""Pixels of a strip that is composited at once."""
_GEOGRAPHIC = 4326
_SNOW_NOTE_SHARE = 0.3
"""Share of a scene classified as snow from which a person is told: cloud is often taken for snow."""


def run(spec: RunSpec, shard: Shard, scenes: Sequence[Scene], axes: Axes, store: Store, settings: Settings) -> Receipt:
    """Make one shard. Raises ShardFailed, StoreError."""
    return asyncio.run(make(spec, shard, scenes, axes, store, AssetReader(settings)))


async def make(
    spec: RunSpec, shard: Shard, scenes: Sequence[Scene], axes: Axes, store: Store, reader: RasterReader
) -> Receipt:
    """As `run`, with any reader."""
    work = _Work(spec, shard, _ordered(spec, shard, scenes), reader)
    arrays = [array for array in spec.arrays() if array.sensor == shard.sensor]
    prefix = Identity(spec).prefix("chips")
    writer = CubeWriter(store, prefix, axes)
    written: dict[str, tuple[int, str]] = {}
    rows: list[dict[str, object]] = []
    await work.read_classes()
    made = [await work.make_array(array) for array in arrays]
    work.sources.check_lost(shard.key, spec.limits.max_missing)
    for array, image in zip(arrays, made, strict=True):
        pixels, valid = work.to_chips(array, image)
        written |= writer.write(array, shard.block, shard.bin_key, pixels, valid)
        rows.extend(_summary_rows(array, shard.bin_key, work.places, pixels))
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
        valid=work.valid_shares(arrays, made),
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


@dataclass(frozen=True)
class _Joined:
    """One array in the making."""

    pixels_byx: NDArray[np.generic]
    every_tyx: Mask
    """Whether all bands so far are valid, for each observation."""
    seen_yx: Mask
    fill: float

    def join(self, b: int, groups_t: Sequence[Sequence[tuple[Layer, Mask]]], how: str) -> None:
        """Composite one band: of each observation its layers, the first of which counts, each with the clear sky."""
        rows, cols = self.seen_yx.shape
        step = max(_STRIP_PX // cols, 1)
        for first in range(0, rows, step):
            strip = slice(first, min(first + step, rows))
            planes, valid = [], []
            for t, group in enumerate(groups_t):
                given = [(layer.rows(strip.start, strip.stop), clear[strip]) for layer, clear in group]
                if not given:
                    self.every_tyx[t, strip] = False
                    continue
                for (_, data), _ in given:
                    self.seen_yx[strip] |= data
                pixels, holds = composite.mosaic([p for (p, _), _ in given], [data & sky for (_, data), sky in given])
                self.every_tyx[t, strip] &= holds
                planes.append(pixels)
                valid.append(holds)
            if planes:
                combine = composite.mean if how == "mean" else composite.median
                self.pixels_byx[b, strip] = combine(planes, valid, self.fill)

    def join_whole(self, groups_t: Sequence[Sequence[tuple[Sequence[Layer], Mask]]], how: str, chip_px: int) -> None:
        """Composite all bands at once: of each observation its scenes, each with a layer a band and the clear sky."""
        rows, cols = self.seen_yx.shape
        together = chip_px if how == "least-cloudy" else 1  # which ranks observations chip by chip
        step = max(_STRIP_PX // (cols * together), 1) * together
        for first in range(0, rows, step):
            strip = slice(first, min(first + step, rows))
            observations = []
            for t, group in enumerate(groups_t):
                tiles = [self._tile(layers_b, clear, strip) for layers_b, clear in group]
                if not tiles:
                    self.every_tyx[t, strip] = False
                    continue
                observations.append(first_valid(tiles))
                self.every_tyx[t, strip] &= observations[-1].valid_yx
            if observations:
                self.pixels_byx[:, strip] = _whole(observations, how, chip_px, self.fill)

    def _tile(self, layers_b: Sequence[Layer], clear_yx: Mask, strip: slice) -> Observation:
        pixels_b, valid_yx = [], clear_yx[strip]
        for layer in layers_b:
            pixels, data = layer.rows(strip.start, strip.stop)
            self.seen_yx[strip] |= data
            pixels_b.append(pixels)
            valid_yx = valid_yx & data
        return Observation(pixels_b, valid_yx)

    def valid_yx(self) -> NDArray[np.uint8]:
        """Observations in which every band is valid."""
        if not len(self.every_tyx):
            return np.zeros(self.seen_yx.shape, np.uint8)
        return composite.valid_count(self.every_tyx)


def _whole(observations_t: Sequence[Observation], how: str, chip_px: int, fill: float) -> NDArray[np.generic]:
    match how:
        case "medoid":
            return medoid(observations_t, fill)
        case "geomedian":
            return geomedian(observations_t, fill)
        case "least-cloudy":
            return least_cloudy(observations_t, chip_px, fill)
        case "latest-valid":
            return latest_valid(observations_t, fill)
    raise AssertionError(how)


class _Work:
    """The steps of one shard."""

    def __init__(self, spec: RunSpec, shard: Shard, scenes: Sequence[Scene], reader: RasterReader) -> None:
        self.spec, self.shard, self.scenes = spec, shard, scenes
        self.sensor = spec.sensors[shard.sensor]
        self.kind = self.sensor.info
        self.places = {cell.chip_id: i for i, cell in enumerate(shard.block.cells()) if cell.chip_id in shard.chip_ids}
        self.sources = Sources(reader, self._bounds_in, _KERNEL_PX + 3 * self._border_px(self._finest_m()))
        self.notes: list[Note] = []
        self._scl: dict[str, RawImage | None] = {}

    def _finest_m(self) -> float:
        return min(array.pixel_m for array in self.spec.arrays() if array.sensor == self.shard.sensor)

    def _border_px(self, pixel_m: float) -> int:
        """Width of the noisy strip inside a swath's edge, in pixels of a file."""
        return math.ceil(self.sensor.border_m / pixel_m) if self.kind.kind == "s1" else 0

    def grid(self, pixel_m: float) -> PixelGrid:
        """The block's grid at a pixel size."""
        x_min, _, x_max, y_max = self.shard.block.bounds
        size = round((x_max - x_min) / pixel_m)
        return PixelGrid(self.shard.block.epsg, x_min, y_max, pixel_m, size, size)

    def _bounds_in(self, epsg: int) -> tuple[float, float, float, float]:
        grid = self.grid(self.spec.grid.chip_m)
        return grid.bounds if epsg == grid.epsg else outline_in(grid, epsg)

    async def read_classes(self) -> None:
        """Read Sentinel-2's scene classification of all scenes; it masks every band."""
        if self.kind.kind != "s2-l2a":
            return
        results = await asyncio.gather(*(self.sources.read(scene, "SCL") for scene in self.scenes))
        for scene, result in zip(self.scenes, results, strict=True):
            self._scl[scene.scene_id] = result[0] if result else None
            if result:
                self.notes.extend(_class_notes(scene, result[0]))

    async def make_array(self, array: CubeArray) -> _Image:
        """All bands of one array, composited."""
        grid = self.grid(array.pixel_m)
        masks = await asyncio.gather(*(asyncio.to_thread(self._clear, scene, grid) for scene in self.scenes))
        clear = {scene.scene_id: mask for scene, mask in zip(self.scenes, masks, strict=True) if mask is not None}
        usable = [scene for scene in self.scenes if scene.scene_id in clear]
        image = _Joined(
            np.full((len(array.bands), *grid.shape), self.kind.fill, self.kind.dtype),
            np.ones((len(self._groups(usable)), *grid.shape), bool),
            np.zeros(grid.shape, bool),
            self.kind.fill,
        )
        join = self._join_whole if array.spec.takes_whole_pixels else self._join_bands
        reached = await join(array, image, self._groups(usable), clear)
        covered = np.zeros(grid.shape, bool)
        for scene in usable:
            if scene.scene_id in reached:
                covered |= self._footprint(scene, grid)
        return _Image(image.pixels_byx, image.valid_yx(), image.seen_yx, covered)

    async def _join_bands(
        self, array: CubeArray, image: _Joined, groups: Sequence[Sequence[Scene]], clear: Mapping[str, Mask]
    ) -> set[str]:
        """Composite band after band, the next being read meanwhile; ids of the scenes that reach the block."""
        grid, names = self.grid(array.pixel_m), array.band_names
        usable = [scene for group in groups for scene in group]
        reached: set[str] = set()
        ahead = asyncio.ensure_future(self._layers(usable, names[0], grid))
        try:
            for b in range(len(names)):
                layers = await ahead
                if b + 1 < len(names):
                    ahead = asyncio.ensure_future(self._layers(usable, names[b + 1], grid))
                reached |= layers.keys()
                given = [
                    [(layers[s.scene_id], clear[s.scene_id]) for s in group if s.scene_id in layers] for group in groups
                ]
                await asyncio.to_thread(image.join, b, given, array.spec.composite)
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
        return reached

    async def _join_whole(
        self, array: CubeArray, image: _Joined, groups: Sequence[Sequence[Scene]], clear: Mapping[str, Mask]
    ) -> set[str]:
        """As `_join_bands`, where a pixel needs all its bands: they are read first, and held as they were read."""
        usable = [scene for group in groups for scene in group]
        layers_b = [await self._layers(usable, name, self.grid(array.pixel_m)) for name in array.band_names]
        given = [
            [
                ([layers[s.scene_id] for layers in layers_b], clear[s.scene_id])
                for s in group
                if all(s.scene_id in layers for layers in layers_b)
            ]
            for group in groups
        ]
        await asyncio.to_thread(image.join_whole, given, array.spec.composite, array.chip_px)
        return {scene_id for layers in layers_b for scene_id in layers}

    def _groups(self, scenes: Sequence[Scene]) -> list[list[Scene]]:
        """Scenes that form one observation: one overpass; all of them for products without a time axis."""
        if self.kind.static:
            return [list(scenes)] if scenes else []
        groups = observations(scenes, self.sensor, block_longitude(self.shard.block))
        # Where tiles of one overpass overlap, the first one counts: rather a copy than a resampled neighbour zone.
        return [sorted(group, key=self._needs_warp) for group in groups.values()]

    def _needs_warp(self, scene: Scene) -> bool:
        return any(asset.epsg != self.shard.block.epsg for asset in scene.assets)

    async def _layers(self, scenes: Sequence[Scene], band: str, grid: PixelGrid) -> dict[str, Layer]:
        """A band of each scene that has it, by the scene's id."""
        layers = await asyncio.gather(*(self._layer(scene, band, grid) for scene in scenes))
        return {scene.scene_id: layer for scene, layer in zip(scenes, layers, strict=True) if layer is not None}

    async def _layer(self, scene: Scene, band: str, grid: PixelGrid) -> Layer | None:
        result = await self.sources.read(scene, band)
        return None if result is None else await asyncio.to_thread(self._place, *result, grid)

    def _place(self, raw: RawImage, asset: Asset, grid: PixelGrid) -> Layer:
        nodata = raw.nodata if raw.nodata is not None else asset.nodata
        if nodata is None and self.kind.kind in ("s2-l2a", "classes"):
            nodata = 0.0  # both products define it so, whether or not a file says it
        mask: Mask = raw.mask_yx if raw.mask_yx is not None else np.broadcast_to(np.True_, raw.pixels_yx.shape)
        if self.kind.kind == "s1" and raw.epsg != _GEOGRAPHIC:
            valid = valid_pixels(raw.pixels_yx, nodata) & mask
            mask = valid & ~swath_border(valid, self._border_px(abs(raw.transform[0])))

        def convert(pixels_yx: NDArray[np.generic], mask_yx: Mask) -> tuple[NDArray[np.generic], Mask]:
            valid = valid_pixels(pixels_yx, nodata) & mask_yx
            return to_storage(pixels_yx, valid, self.kind, asset.scale, asset.offset_dn, asset.db), valid

        return layer_of(SourceImage(raw.pixels_yx, mask, raw.epsg, raw.transform), grid, self.kind.resampling, convert)

    def _clear(self, scene: Scene, grid: PixelGrid) -> Mask | None:
        if self.kind.kind != "s2-l2a":
            return np.ones(grid.shape, bool)
        raw = self._scl[scene.scene_id]
        if raw is None:
            return None
        clear = clear_sky(raw.pixels_yx, self.sensor.scl_invalid)
        source = SourceImage(clear, np.broadcast_to(np.True_, clear.shape), raw.epsg, raw.transform)
        pixels, valid = layer_of(source, grid, "nearest", lambda pixels, mask: (pixels, mask)).rows(0, grid.rows)
        return pixels & valid

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

    def to_chips(self, array: CubeArray, image: _Image) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
        """Pixels (c, b, y, x) and valid counts (c, y, x); cells outside the area stay empty."""
        side = self.shard.block.side
        pixels, valid = cut(image.pixels_byx, side), cut(image.valid_yx[None], side)[:, 0]
        outside = [i for i in range(side * side) if i not in set(self.places.values())]
        pixels[outside], valid[outside] = array.spec.info.fill, 0
        return pixels, valid

    def states(self, arrays: Sequence[CubeArray], images: Sequence[_Image]) -> dict[str, ChipState]:
        """Outcome of every chip, judged on the sensor's finest array."""
        image, side = images[0], self.shard.block.side
        grid = self.grid(arrays[0].pixel_m)
        failed = np.zeros(grid.shape, bool)
        for scene in self.scenes:
            if scene.scene_id in self.sources.lost:
                failed |= self._footprint(scene, grid)
        layers = {
            "ok": image.valid_yx > 0,
            "read_failed": failed,
            "clouded_out": image.seen_yx,
            "no_data": image.covered_yx,
        }
        per_chip = {name: np.any(cut(layer[None], side), axis=(1, 2, 3)) for name, layer in layers.items()}
        states: dict[str, ChipState] = {}
        for chip_id, place in self.places.items():
            state: ChipState = "no_scene"
            for name in ("ok", "read_failed", "clouded_out", "no_data"):
                if per_chip[name][place]:
                    state = name
                    break
            states[chip_id] = state
        return states

    def valid_shares(self, arrays: Sequence[CubeArray], images: Sequence[_Image]) -> dict[str, float]:
        """Share of each chip's pixels with a valid observation, on the finest array."""
        shares = cut((images[0].valid_yx > 0)[None], self.shard.block.side)[:, 0].mean((1, 2))
        return {chip_id: round(float(shares[place]), 6) for chip_id, place in self.places.items()}


def _ordered(spec: RunSpec, shard: Shard, scenes: Iterable[Scene]) -> list[Scene]:
    """The shard's scenes: by time, or newest first for products without a time axis, of which the first wins."""
    wanted = set(shard.scene_ids)
    chosen = [scene for scene in scenes if scene.sensor == shard.sensor and scene.scene_id in wanted]
    static = spec.sensors[shard.sensor].info.static
    return sorted(chosen, key=lambda s: (-s.moment.timestamp() if static else s.moment.timestamp(), s.tile, s.scene_id))


def _class_notes(scene: Scene, raw: RawImage) -> list[Note]:
    notes = []
    for code, count in undefined_classes(raw.pixels_yx).items():
        text = f"scene classification holds code {code}, which the legend does not have, in {count} pixels; left out"
        notes.append(Note(subject=scene.scene_id, text=text))
    codes, counts = np.unique(raw.pixels_yx, return_counts=True)
    shares = {int(c): float(n) / raw.pixels_yx.size for c, n in zip(codes, counts, strict=True)}
    if shares.get(11, 0.0) >= _SNOW_NOTE_SHARE:
        top = ", ".join(
            f"{SCL_NAMES.get(c, c)} {100 * s:.1f} %" for c, s in sorted(shares.items(), key=lambda p: -p[1])[:3]
        )
        notes.append(Note(subject=scene.scene_id, text=f"{top}: cloud is often taken for snow, have a look"))
    return notes


def _summary_rows(
    array: CubeArray, bin_key: str, places: dict[str, int], pixels_cbyx: NDArray[np.generic]
) -> list[dict[str, object]]:
    """Per chip and band: count, mean and squared deviations on the scale that models see; per class its pixels."""
    kind = array.spec.info
    rows: list[dict[str, object]] = []
    for chip_id, place in places.items():
        for b, band in enumerate(array.band_names):
            stored = pixels_cbyx[place, b]
            about = {"chip_id": chip_id, "bin": bin_key, "array": array.name, "band": band}
            if kind.kind == "classes":
                codes, counts = np.unique(stored[stored != int(kind.fill)], return_counts=True)
                rows.extend(about | {"code": int(code), "n": int(n)} for code, n in zip(codes, counts, strict=True))
                continue
            if stored.dtype == np.uint16 and kind.fill == 0 and kind.model_scale != "db":
                sums = moments_of_stored(stored, kind.scale_factor, kind.add_offset)
            else:
                good = valid_pixels(stored, None if np.isnan(kind.fill) else kind.fill)
                values = stored[good].astype(np.float64) * kind.scale_factor + kind.add_offset
                sums = moments_of(10 * np.log10(values[values > 0]) if kind.model_scale == "db" else values)
            rows.append(about | {"n": sums.n, "mean": sums.mean, "m2": sums.m2})
    return rows


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
        ("mean", pa.float64()),
        ("m2", pa.float64()),
    ]
)
