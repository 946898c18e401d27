"""Shards of the stage `chips`, as columns: a block of neighbouring cells x one time bin x one sensor each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.columns import Columns, Ints
from eo_batch.core.grid import Block


@dataclass(frozen=True)
class Shard:
    """One unit of chip making."""

    index: int
    """Position in the plan."""
    sensor: str
    block: Block
    bin_key: str
    places: tuple[int, ...]
    """Cells of the block that the area touches, by their places in it, ascending."""
    scenes: tuple[int, ...]
    """Usable scenes that reach the block in this bin: their positions in the plan, ascending."""
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

    @cached_property
    def chip_ids(self) -> tuple[str, ...]:
        """Ids of the cells, in block order."""
        return tuple(self.block.cell(place).chip_id for place in self.places)


@dataclass(frozen=True, eq=False)
class Shards(Columns, Sequence[Shard]):
    """All shards of a plan. Sensors are the slowest, blocks the fastest to change."""

    blocks: tuple[Block, ...]
    places: NDArray[np.bool_]
    """Which places of each block have a cell: (block, place)."""
    sensors: tuple[str, ...]
    bin_keys: tuple[str, ...]
    sensor: NDArray[np.int32]
    """Position in `sensors`, for each shard."""
    bin: NDArray[np.int32]
    """Position in `bin_keys`, for each shard."""
    block: NDArray[np.int32]
    """Position in `blocks`, for each shard."""
    start: Ints
    """Where each shard's scenes begin in `scenes`, and one more: where the last one's end."""
    scenes: NDArray[np.int32]
    """Positions of scenes in the plan, shard after shard, ascending in each."""
    inputs: NDArray[np.object_]
    """Text as in `Shard`."""
    memory_bytes: Ints
    read_bytes: Ints
    write_bytes: Ints

    def __len__(self) -> int:
        return len(self.sensor)

    @overload
    def __getitem__(self, at: int) -> Shard: ...
    @overload
    def __getitem__(self, at: slice) -> list[Shard]: ...
    def __getitem__(self, at: int | slice) -> Shard | list[Shard]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        block = int(self.block[index])
        return Shard(
            index,
            self.sensors[self.sensor[index]],
            self.blocks[block],
            self.bin_keys[self.bin[index]],
            tuple(np.flatnonzero(self.places[block]).tolist()),
            tuple(self.scenes[self.start[index] : self.start[index + 1]].tolist()),
            str(self.inputs[index]),
            int(self.memory_bytes[index]),
            int(self.read_bytes[index]),
            int(self.write_bytes[index]),
        )

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of all shards, in order."""
        names = [block.key for block in self.blocks]
        numbers = zip(self.sensor.tolist(), self.bin.tolist(), self.block.tolist(), strict=True)
        return tuple(f"{self.sensors[s]}/{self.bin_keys[t]}/{names[b]}" for s, t, b in numbers)

    def of_sensor(self, name: str) -> NDArray[np.bool_]:
        """Which shards are of a sensor."""
        found: NDArray[np.bool_] = self.sensor == (self.sensors.index(name) if name in self.sensors else -1)
        return found

    def used_scenes(self, name: str) -> int:
        """How many different scenes the shards of a sensor use."""
        return len(np.unique(self.scenes[np.repeat(self.of_sensor(name), np.diff(self.start))]))


def only_scenes_differ(inputs: str, others: str) -> bool:
    """Whether two shards' inputs are of the same cells but of other scenes."""
    return inputs != others and inputs.split("-")[0] == others.split("-")[0]
