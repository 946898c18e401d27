"""What the learning stages read, and how their work is divided. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eo_batch.core.errors import SpecError, UsageError
from eo_batch.core.grid import Block, parse_block_key
from eo_batch.core.learning import ResNetSpec
from eo_batch.core.sensors import LABELS
from eo_batch.core.shards import Shards
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.core.timebins import STATIC_KEY, event_keys

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
    measured = [name for name, array in known.items() if array.spec.kind not in LABELS]
    for name in spec.pretrain.arrays:
        if name not in measured:
            why = "holds labels" if name in known else "is not in the cube"
            raise SpecError(f"pretrain.arrays: {name} {why}; choose from {', '.join(measured)}")
    target = spec.pretrain.elevation.array if spec.pretrain.elevation is not None else None
    if target in spec.pretrain.arrays:
        raise SpecError(f"pretrain.arrays: {target} is what pretrain.elevation asks for; leave it out of one of them")
    wanted = [known[n] for n in measured if n != target and (n in spec.pretrain.arrays or not spec.pretrain.arrays)]
    if not wanted:
        raise SpecError("sensors holds nothing but labels and what pretrain.elevation asks for; add one to learn from")
    if spec.pretrain.objective.kind == "clip" and len(wanted) < 2:
        raise SpecError(f"pretrain.objective: clip compares sensors, and there is only {wanted[0].name}; add another")
    return tuple(LearningArray(array, _patch_px(spec, array)) for array in wanted)


def target_arrays(spec: RunSpec) -> tuple[LearningArray, ...]:
    """What pretraining predicts and no encoder sees. Raises SpecError where there is no such array or band."""
    chosen = spec.pretrain.elevation
    if chosen is None:
        return ()
    known = {array.name: array for array in spec.arrays()}
    if chosen.array not in known:
        raise SpecError(f"pretrain.elevation.array: {chosen.array} is not in the cube; choose from {', '.join(known)}")
    array = known[chosen.array]
    if chosen.band not in array.band_names:
        raise SpecError(f"pretrain.elevation.band: {array.name} has {', '.join(array.band_names)}, not {chosen.band}")
    return (LearningArray(array, 1),)


def _patch_px(spec: RunSpec, array: CubeArray) -> int:
    encoder = spec.pretrain.encoder
    if isinstance(encoder, ResNetSpec):
        return 1
    patch = encoder.patch_px
    size = Fraction(patch * array.chip_px, spec.grid.chip_px)
    if size.denominator != 1:
        fit = patch * size.denominator
        raise SpecError(
            f"pretrain.encoder.patch_px={patch} is {float(size):g} pixels of {array.name} ({array.pixel_m:g} m), not a "
            f"whole number; use a multiple of {fit} that divides grid.chip_px={spec.grid.chip_px}, or leave the array "
            "out of pretrain.arrays"
        )
    return int(size)


def learning_bins(
    spec: RunSpec, blocks: Sequence[Block], shards: Shards | None = None
) -> dict[str, Mapping[Block, None]]:
    """Time bins of samples, in order, and the blocks of the plan that have a chips shard in them, in order.

    Only bins of arrays that encoders see; `static` where none of them has a time axis. With bins of single overpasses
    a block has few of all bins, and a sample holds what was seen together: most often one sensor.

    shards: the plan's; needed where `spec.time.found`, since all else follows from the spec.
    """
    timed = {found.array.sensor for found in learning_arrays(spec) if not found.array.spec.info.static}
    if not timed:
        return {STATIC_KEY: dict.fromkeys(blocks)}
    if not spec.time.found:
        every = dict.fromkeys(blocks)
        event = spec.time.event
        keys = [b.key for b in spec.time.bins()] if event is None else event_keys(event.date, event.before, event.after)
        return dict.fromkeys(keys, every)
    if shards is None:
        raise ValueError("time bins of single overpasses follow from the plan's shards, which were not given")
    own = np.isin(shards.sensor, [number for number, name in enumerate(shards.sensors) if name in timed])
    places = np.unique(np.stack([shards.bin[own], shards.block[own]]), axis=1).T.tolist()
    bins: dict[str, dict[Block, None]] = {}
    for time_bin, block in places:
        bins.setdefault(shards.bin_keys[time_bin], {})[shards.blocks[block]] = None
    return {key: bins[key] for key in sorted(bins)}


def embed_shards(spec: RunSpec, blocks: Sequence[Block], shards: Shards | None = None) -> list[str]:
    """Keys of the shards of the stage `embed`: each seed, time bin and block as `learning_bins` has them, blocks
    fastest."""
    return [
        EmbedShard(seed, bin_key, block).key
        for seed in spec.pretrain.seeds
        for bin_key, own in learning_bins(spec, blocks, shards).items()
        for block in own
    ]


def parse_embed_shard(key: str) -> EmbedShard:
    """The shard of a key as `EmbedShard.key` writes it. Raises UsageError if it is none."""
    match = _EMBED_KEY.fullmatch(key)
    if not match:
        raise UsageError(f"{key!r} is not a shard of embed; one looks like seed-0/2023-08/{_EXAMPLE_BLOCK}")
    seed, bin_key, block = match.groups()
    return EmbedShard(int(seed), bin_key, parse_block_key(block))


def trained_name(seed: int) -> str:
    """Name of a pretrained encoder in the layout of embeddings."""
    return f"pretrained-{seed}"


def untrained_name(seed: int) -> str:
    """Name of its twin, the same network with its first, random weights."""
    return f"random-init-{seed}"
