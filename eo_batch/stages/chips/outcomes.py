"""What became of every chip of a shard. Legend: y rows, x columns."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.receipts import ChipState
from eo_batch.core.scenes import Scene
from eo_batch.core.shards import Shard
from eo_batch.pixels.chips import any_of, share_of
from eo_batch.stages.chips.images import Image, footprint

Mask = NDArray[np.bool_]


def states(shard: Shard, image: Image, lost: Iterable[Scene]) -> dict[str, ChipState]:
    """Outcome of every chip, judged on the sensor's finest array; `lost` are the scenes of which a file was."""
    failed = np.zeros(image.grid.shape, bool)
    for scene in lost:
        failed |= footprint(scene, image.grid)
    layers: dict[ChipState, Mask] = {
        "ok": image.valid_yx > 0,
        "read_failed": failed,
        "clouded_out": image.seen_yx,
        "no_data": image.covered_yx,
    }
    per_chip = {state: any_of(layer, shard.block.side) for state, layer in layers.items()}
    return {
        chip_id: next((state for state, chips in per_chip.items() if chips[place]), "no_scene")
        for chip_id, place in zip(shard.chip_ids, shard.places, strict=True)
    }


def valid_shares(shard: Shard, image: Image) -> dict[str, float]:
    """Share of each chip's pixels with a valid observation, on the finest array."""
    shares = share_of(image.valid_yx > 0, shard.block.side)
    places = zip(shard.chip_ids, shard.places, strict=True)
    return {chip_id: round(float(shares[place]), 6) for chip_id, place in places}
