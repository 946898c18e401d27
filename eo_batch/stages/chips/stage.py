"""One shard: its images, made by `images.py`, to objects of the store and a receipt."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eo_batch.core import layout
from eo_batch.core.identity import Identity
from eo_batch.core.plan import Axes
from eo_batch.core.receipts import Receipt
from eo_batch.core.scenes import Scene
from eo_batch.core.sensors import VECTORS
from eo_batch.core.shards import Shard
from eo_batch.core.spec import RunSpec
from eo_batch.io.cube import block_objects
from eo_batch.io.rasters import AssetReader, RasterReader
from eo_batch.io.sources import in_order
from eo_batch.io.store import Store
from eo_batch.io.tables import parquet_bytes
from eo_batch.io.vectors import VectorReader
from eo_batch.pixels.chips import chips_of
from eo_batch.pixels.spread import Spread
from eo_batch.pixels.summary import summary_rows
from eo_batch.pixels.vectors import draw
from eo_batch.settings import Settings, cores
from eo_batch.stages.chips.images import Image, Images, grid_of
from eo_batch.stages.chips.outcomes import states, valid_shares


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
    return make(spec, shard, scenes, axes, store, reader)


def make(
    spec: RunSpec, shard: Shard, scenes: Sequence[Scene], axes: Axes, store: Store, reader: RasterReader
) -> Receipt:
    """As `run`, with any reader."""
    with ThreadPoolExecutor(cores()) as pool:
        work = Images(spec, shard, scenes, reader, pool.map)
        images = asyncio.run(work.made())
        work.sources.check_lost(shard.key, spec.limits.max_missing)
        written = _Written(shard, images, axes, Identity(spec).prefix("chips"), pool.map)
        store.put_many(written.objects())
    outcomes = in_order(work.sources.outcomes)
    return Receipt(
        stage="chips",
        shard=shard.key,
        inputs=shard.inputs,
        outputs=written.sizes,
        digests=written.digests,
        chips=states(shard, images[0], work.lost),
        valid=valid_shares(shard, images[0]),
        sources=outcomes,
        notes=(*work.notes, *sorted(set(work.sources.notes), key=lambda note: (note.subject, note.text))),
        bytes_in=sum(s.bytes_in for s in outcomes),
        requests=sum(s.requests for s in outcomes),
    )


_Chips = Sequence[tuple[NDArray[np.generic], NDArray[np.uint8]] | None]
"""Pixels (b, y, x) and valid counts (y, x) of each cell of a block, None where there are none."""


@dataclass
class _Written:
    """What a shard writes."""

    shard: Shard
    images: Sequence[Image]
    axes: Axes
    prefix: str
    spread: Spread
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each object given out so far, by key below the prefix."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of those of the cube."""

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Keys and bytes, each made when it is asked for: the cube's, then the summary of all chips."""
        shard = self.shard
        rows: list[dict[str, object]] = []
        for image in self.images:
            chips = _chips(image, shard)
            for key, data in block_objects(self.prefix, self.axes, image.array, shard.block, shard.bin_key, chips):
                self.digests[self._told(key, data)] = hashlib.sha256(data).hexdigest()
                yield key, data
            for told in self.spread(
                partial(self._summed, image, chips), zip(shard.chip_ids, shard.places, strict=True)
            ):
                rows.extend(told)
        key, data = layout.summary(self.prefix, shard.key), parquet_bytes(pa.Table.from_pylist(rows, schema=_SUMMARY))
        self._told(key, data)
        yield key, data

    def _summed(self, image: Image, chips: _Chips, cell: tuple[str, int]) -> list[dict[str, object]]:
        chip_id, place = cell
        chip = chips[place]
        if chip is None:
            return []
        areas = {band: (codes, areas_cm[place]) for band, (codes, areas_cm) in image.class_areas.items()}
        return list(summary_rows(image.array, self.shard.bin_key, chip_id, chip[0], areas))

    def _told(self, key: str, data: bytes) -> str:
        name = key.removeprefix(f"{self.prefix}/")
        self.sizes[name] = len(data)
        return name


def _chips(image: Image, shard: Shard) -> _Chips:
    """Pixels (b, y, x) and valid counts (y, x) of each cell of the block; None for those outside the area."""
    side, wanted = shard.block.side, set(shard.places)
    pixels, valid = chips_of(image.pixels_byx, side), chips_of(image.valid_yx[None], side)[:, :, 0]
    at = [divmod(place, side) if place in wanted else None for place in range(side * side)]
    return [None if chip is None else (pixels[chip], valid[chip]) for chip in at]


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
