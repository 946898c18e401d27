"""What the learning stages read, and how their work is divided. Pure."""

from dataclasses import dataclass
from fractions import Fraction

from eo_batch.core.digest import JsonValue, digest
from eo_batch.core.errors import SpecError
from eo_batch.core.grid import Block, Cell, block_of
from eo_batch.core.identity import Identity
from eo_batch.core.plan import Plan
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.core.timebins import STATIC_KEY


@dataclass(frozen=True)
class LearningArray:
    """One array of the cube as encoders see it."""

    array: CubeArray
    patch_px: int
    """Side of a patch, pixels of this array."""


@dataclass(frozen=True)
class PretrainShard:
    """One seed to train."""

    index: int
    """Position among the stage's shards."""
    seed: int
    inputs: str
    """Digest of everything the result depends on."""

    @property
    def key(self) -> str:
        """Stable name within the stage."""
        return f"seed-{self.seed}"


@dataclass(frozen=True)
class EmbedShard:
    """One block in one time bin, embedded by the encoder of one seed and by its untrained twin."""

    index: int
    seed: int
    bin_key: str
    """Time bin; `static` where no array has a time axis."""
    block: Block
    cells: tuple[Cell, ...]
    """Cells of the block that the area touches, in block order."""
    inputs: str
    """Digest of everything the result depends on."""

    @property
    def key(self) -> str:
        """Stable name within the stage."""
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


def learning_bins(spec: RunSpec) -> list[str]:
    """Time bins of samples: the spec's, or `static` where no array that encoders see has a time axis."""
    if all(found.array.spec.info.static for found in learning_arrays(spec)):
        return [STATIC_KEY]
    return [time_bin.key for time_bin in spec.time.bins()]


def pretrain_shards(spec: RunSpec) -> tuple[PretrainShard, ...]:
    """One shard for each seed."""
    prefix = Identity(spec).prefix("pretrain")
    return tuple(
        PretrainShard(index, seed, digest({"stage": prefix, "seed": seed}))
        for index, seed in enumerate(spec.pretrain.seeds)
    )


def embed_shards(spec: RunSpec, plan: Plan) -> tuple[EmbedShard, ...]:
    """Shards for each seed, time bin and block, blocks fastest."""
    prefix = Identity(spec).prefix("embed")
    cells: dict[Block, list[Cell]] = {block: [] for block in plan.blocks}
    for planned in plan.cells:
        cells[block_of(planned.cell, spec.grid.block_chips)].append(planned.cell)
    shards: list[EmbedShard] = []
    for seed in spec.pretrain.seeds:
        for bin_key in learning_bins(spec):
            for block in plan.blocks:
                inside = tuple(sorted(cells[block], key=block.place))
                chip_ids = [cell.chip_id for cell in inside]
                content: dict[str, JsonValue] = {
                    "stage": prefix,
                    "seed": seed,
                    "bin": bin_key,
                    "cells": chip_ids,
                }
                shards.append(EmbedShard(len(shards), seed, bin_key, block, inside, digest(content)))
    return tuple(shards)


def trained_name(seed: int) -> str:
    """Name of a pretrained encoder in the layout of embeddings."""
    return f"pretrained-{seed}"


def untrained_name(seed: int) -> str:
    """Name of its twin, the same network with its first, random weights."""
    return f"random-init-{seed}"
