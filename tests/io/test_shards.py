"""Shards beside those of zarr-python."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from eo_batch.io.shards import inner_codec, shard_bytes


@pytest.mark.parametrize(("dtype", "fill"), [("uint16", 0), ("float32", np.nan), ("uint8", 0)])
@pytest.mark.parametrize("left_out", [(), (0,), (1, 3), (0, 1, 2, 3)])
def test_bytes_are_those_of_zarr(tmp_path: Path, dtype: str, fill: float, left_out: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    chips = np.cumsum(rng.integers(0, 9, (4, 2, 16, 16)), -1).astype(dtype)
    chips[list(left_out)] = fill
    array = zarr.create_array(
        tmp_path, shape=chips.shape, chunks=(1, 2, 16, 16), shards=chips.shape, dtype=dtype, fill_value=fill,
        compressors=inner_codec(),
    )  # fmt: skip
    array[...] = chips
    written = tmp_path / "c/0/0/0/0"
    expected = written.read_bytes() if written.exists() else None
    assert shard_bytes(list(chips), fill) == expected
    some: list[Any] = [None if i in left_out else chip for i, chip in enumerate(chips)]
    assert shard_bytes(some, fill) == expected
    if expected is not None:
        written.write_bytes(expected)
        np.testing.assert_array_equal(zarr.open_array(tmp_path)[...], chips)
