"""Open a run's cube lazily, for people: `eo_batch.open_cube(url)`."""

from typing import TYPE_CHECKING

import numpy as np

from eo_batch.core import layout
from eo_batch.core.errors import StoreMissing, UsageError
from eo_batch.core.identity import Identity
from eo_batch.core.specfile import parse_spec
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table

if TYPE_CHECKING:
    import xarray as xr


def open_cube(url: str) -> "xr.Dataset":
    """The chips of a run as a lazy, Dask-backed Dataset with physical values (NaN where invalid).

    url: a run's folder in its store, such as `s3://bucket/runs/demo` or `runs/demo`; or a `cube.zarr`.

    A run that is published gives its own chips only, with the coordinates `split` and `owner`; an unpublished run or a
    bare cube gives all places of the chip axis, which can hold places that no run has asked for. Raises UsageError if
    there is no run, StoreError. Workers of a Dask cluster open the store as their own environment says.
    """
    import xarray as xr

    parent, _, name = url.rstrip("/").rpartition("/")
    if name.endswith(".zarr"):
        cube: xr.Dataset = xr.open_zarr(parse_store(url).zarr(read_only=True, by_url=True))
        return cube
    store = parse_store(parent or ".")
    try:
        text = store.get(f"{name}/{layout.RUN_SPEC}").decode()
    except StoreMissing as error:
        raise UsageError(
            f"{url} is not a run: it has no {layout.RUN_SPEC}; give a run's folder or a cube.zarr"
        ) from error
    spec = parse_spec(text, where=url)
    identity = Identity(spec)
    cube_store = store.zarr(layout.cube(identity.prefix("chips")), read_only=True, by_url=True)
    # One Dask task a Zarr shard: a task a chip would swamp the scheduler on large runs.
    dataset: xr.Dataset = xr.open_zarr(cube_store, chunks={"chip": spec.grid.block_chips**2})
    chips_key = f"{identity.prefix('publish')}/chips.parquet"
    if not store.exists(chips_key):
        return dataset
    chips = read_table(store, chips_key, ["slot", "split", "owner"])
    order = np.argsort(chips["slot"].to_numpy())
    about = {name: ("chip", np.array(chips[name].to_pylist())[order]) for name in ("split", "owner")}
    chosen: xr.Dataset = dataset.isel(chip=chips["slot"].to_numpy()[order]).assign_coords(about)
    return chosen
