"""What the learning stages read, and how their work is divided. Pure."""

import re
from dataclasses import dataclass
from fractions import Fraction

from eo_batch.core.errors import SpecError, UsageError
from eo_batch.core.grid import Block, Cell, block_of, parse_block_key
from eo_batch.core.observations import in_order
from eo_batch.core.plan import Plan
from eo_batch.core.spec import CubeArray, RunSpec

_EMBED_KEY = re.compile(r"seed-(-?\d+)/([^/]+)/([^/]+)")
_EXAMPLE_BLOCK = "u33n-2560m-8x8-r00249-c00024"


@dataclass(frozen=True)
class LearningArray:
    """One array of the cube as encoders see it."""

    array: CubeArray
    patch_px: int
    """Side of a patch, pixels of this array."""


@dataclass(frozen=True)
class EmbedShard:
    """One block in one time bin, embedded by the encoder of one seed and by its untrained twin."""

    seed: int
    bin_key: str
    """Time bin; `static` where no array has a time axis."""
    block: Block

    @property
    def key(self) -> str:
        """Stable name within the stage: `seed-0/2023-08/u33n-…`."""
        return f"seed-{self.seed}/{self.bin_key}/{self.block.key}"


def learning_arrays(spec: RunSpec) -> tuple[LearningArray, ...]:
    """The arrays that encoders see, in the order of the spec.

    Raises SpecError where a named array does not exist or holds labels, or where patches do not fit into its pixels.
    """
    known = {array.name: array for array in spec.arrays()}
    measured = [name for name, array in known.items() if array.spec.kind != "classes"]
    for name in spec.pretrain.arrays:
        if name not in measured:
            why = "holds class labels" if name in known else "is not in the cube"
            raise SpecError(f"pretrain.arrays: {name} {why}; choose from {', '.join(measured)}")
    wanted = [known[name] for name in measured if name in spec.pretrain.arrays or not spec.pretrain.arrays]
    if not wanted:
        raise SpecError("sensors holds nothing but class labels; add a sensor to learn from")
    return tuple(LearningArray(array, _patch_px(spec, array)) for array in wanted)


def _patch_px(spec: RunSpec, array: CubeArray) -> int:
    patch = spec.pretrain.encoder.patch_px
    size = Fraction(patch * array.chip_px, spec.grid.chip_px)
    if size.denominator != 1:
        fit = patch * size.denominator
        raise SpecError(
            f"pretrain.encoder.patch_px={patch} is {float(size):g} pixels of {array.name} ({array.pixel_m:g} m), not a "
            f"whole number; use a multiple of {fit} that divides grid.chip_px={spec.grid.chip_px}, or leave the array "
            "out of pretrain.arrays"
        )
    return int(size)


def learning_bins(spec: RunSpec, plan: Plan) -> dict[str, dict[Block, None]]:
    """Time bins of samples, in order, and the blocks that have a chips shard in them, in order.

    Only bins of arrays that encoders see; `static` where none of them has a time axis. With step observation a block
    has few of all bins, and a sample holds what was seen together: most often one sensor.
    """
    arrays = [found.array for found in learning_arrays(spec)]
    timed = {array.sensor for array in arrays if not array.spec.info.static}
    bins: dict[str, dict[Block, None]] = {}
    for shard in plan.shards:
        if shard.sensor in (timed or {array.sensor for array in arrays}):
            bins.setdefault(shard.bin_key, {})[shard.block] = None
    return {key: dict.fromkeys(sorted(bins[key])) for key in in_order(bins, spec.time)}


def embed_shards(spec: RunSpec, plan: Plan) -> list[str]:
    """Keys of the shards of the stage `embed`: each seed, time bin and block, blocks fastest."""
    return [
        EmbedShard(seed, bin_key, block).key
        for seed in spec.pretrain.seeds
        for bin_key, blocks in learning_bins(spec, plan).items()
        for block in blocks
    ]


def parse_embed_shard(key: str) -> EmbedShard:
    """The shard of a key as `EmbedShard.key` writes it. Raises UsageError if it is none."""
    match = _EMBED_KEY.fullmatch(key)
    if not match:
        raise UsageError(f"{key!r} is not a shard of embed; one looks like seed-0/2023-08/{_EXAMPLE_BLOCK}")
    seed, bin_key, block = match.groups()
    return EmbedShard(int(seed), bin_key, parse_block_key(block))


def cells_of_block(plan: Plan, block: Block) -> list[Cell]:
    """Cells of the plan inside a block, in block order."""
    inside = [planned.cell for planned in plan.cells if block_of(planned.cell, block.side) == block]
    return sorted(inside, key=block.place)


def trained_name(seed: int) -> str:
    """Name of a pretrained encoder in the layout of embeddings."""
    return f"pretrained-{seed}"


def untrained_name(seed: int) -> str:
    """Name of its twin, the same network with its first, random weights."""
    return f"random-init-{seed}"
