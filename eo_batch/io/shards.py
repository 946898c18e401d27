"""Whole Zarr shards, chip by chip: compressed straight from a block's image, on several threads.

zarr-python would first want all chips of a block in one array, and then spends as much on arranging as on compressing
(`docs/design/0014-codec.md`). Bytes are those that it writes.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import google_crc32c
import numpy as np
from numcodecs.blosc import SHUFFLE, Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from eo_batch.settings import cores

COMPRESSION: Literal["zstd"] = "zstd"
LEVEL = 1
_ABSENT = 2**64 - 1
"""Offset and length of a chunk that is not in a shard (Zarr specification, sharding codec 1.0)."""


def inner_codec() -> BloscCodec:
    """How chips are compressed, for the metadata of an array."""
    return BloscCodec(cname=COMPRESSION, clevel=LEVEL, shuffle="shuffle")


def shard_bytes(chips: Iterable[NDArray[Any] | None], fill: float) -> bytes | None:
    """One shard of chips in order, None for those that are left out; None if there is none that is not all `fill`.

    Chips that are all `fill` are left out, as zarr-python does. The index lies at the end.
    """
    with ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(lambda chip: _chunk(chip, fill), chips))
    lengths = np.array([len(part) if part is not None else 0 for part in parts], np.uint64)
    if not lengths.any():
        return None
    index = np.stack([np.cumsum(lengths) - lengths, lengths], 1)
    index[lengths == 0] = _ABSENT
    entries = index.astype("<u8").tobytes()
    checksum = int(google_crc32c.value(entries)).to_bytes(4, "little")
    return b"".join([*(part for part in parts if part is not None), entries, checksum])


def _chunk(chip: NDArray[Any] | None, fill: float) -> bytes | None:
    if chip is None:
        return None
    values = np.ascontiguousarray(chip)
    if (np.isnan(values) if np.isnan(fill) else values == fill).all():
        return None
    found: bytes = Blosc(COMPRESSION, LEVEL, SHUFFLE).encode(values)
    return found
