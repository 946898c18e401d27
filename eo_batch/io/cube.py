"""The cube: one sharded Zarr v3 group that `xarray.open_zarr` reads with coordinates and units.

Legend: chip (position of a chip), time (bin), b bands, y rows, x columns. One Zarr shard holds one array's
pixels of one block and time bin, so it has one writer; its inner chunks are single chips.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from eo_batch.core import layout
from eo_batch.core.errors import DataError
from eo_batch.core.grid import Block, chip_ids, parse_block_key
from eo_batch.core.plan import Axes
from eo_batch.core.spec import CubeArray, RunSpec
from eo_batch.core.timebins import STATIC_KEY
from eo_batch.core.utm import WGS84, project
from eo_batch.io.shards import inner_codec, shard_bytes
from eo_batch.io.store import Store

_COORD_CHUNK = 65536
_EPOCH = date(1970, 1, 1)
_GROUP = "zarr.json"
_ENCODING = (("scale_factor", 1.0), ("add_offset", 0.0))


def prepare_cube(store: Store, chips_prefix: str, spec: RunSpec, axes: Axes) -> None:
    """Create the cube's arrays and coordinates, or extend them to `axes`. Idempotent; never shrinks or moves.

    They follow from spec and axes, so they are made in memory and written all at once: stores may be far away. The
    group's own object comes last: where it is there, so is all else that it tells of.
    """
    path = layout.cube(chips_prefix)
    bins = [key for key in axes.bins if key != STATIC_KEY]
    chips = len(axes.blocks) * spec.grid.block_chips**2
    if _reaches(store, path, spec, chips, len(bins)):
        return
    made: dict[str, Buffer] = {}
    memory = MemoryStore(made)
    group = zarr.create_group(memory, attributes=_group_attributes(spec))
    for array in spec.arrays():
        _create(group, array, chips, len(bins), spec.grid.block_chips)
    _write_coordinates(group, spec, axes, bins)
    with warnings.catch_warnings():
        # Consolidated metadata is not yet in the Zarr v3 specification, but xarray opens far faster with it.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(memory)
    last = made.pop(_GROUP)
    store.put_many((f"{path}/{key}", data.to_bytes()) for key, data in made.items())
    store.put(f"{path}/{_GROUP}", last.to_bytes())


def _reaches(store: Store, path: str, spec: RunSpec, chips: int, n_bins: int) -> bool:
    """Whether all arrays are there and at least that long."""
    key = f"{path}/{_GROUP}"
    if not store.exists(key):
        return False
    arrays = json.loads(store.get(key))["consolidated_metadata"]["metadata"]
    for array in spec.arrays():
        shape = arrays[array.name]["shape"]
        if shape[0] < chips or (not array.spec.info.static and shape[1] < n_bins):
            return False
    return True


def _create(group: zarr.Group, array: CubeArray, chips: int, n_bins: int, side: int) -> None:
    kind, px, n_bands = array.spec.info, array.chip_px, len(array.bands)
    times = () if kind.static else (n_bins,)
    one = () if kind.static else (1,)
    time_dim = () if kind.static else ("time",)
    y, x, band = f"y_{array.pixel_m:g}m", f"x_{array.pixel_m:g}m", f"band_{array.name}"
    labels = ["chip_id", "epsg", "x0", "y0", "lon", "lat"] + ([] if kind.static else ["time_bin"])
    wavelengths = [f"wavelength_{array.name}"] if any(b.wavelength_um for b in array.bands) else []
    units = [array.units_of(band) for band in array.bands]
    own_units = [f"units_{array.name}"] if len(set(units)) > 1 else []
    attributes: dict[str, Any] = {
        "long_name": kind.title,
        "pixel_size_m": array.pixel_m,
        "resampling": kind.resampling,
        "composite": "none" if kind.static else array.spec.composite,
        "coordinates": " ".join(labels + wavelengths + own_units),
        "product": kind.kind,
    }
    if not own_units:
        attributes["units"] = units[0]
    if np.issubdtype(np.dtype(kind.dtype), np.integer):
        attributes["_FillValue"] = int(kind.fill)
    if (kind.scale_factor, kind.add_offset) != (1.0, 0.0):
        attributes |= {"scale_factor": kind.scale_factor, "add_offset": kind.add_offset}
    resampled = [b.name for b in array.bands if b.native_m * array.spec.pixel_scale > array.pixel_m + 1e-9]
    if resampled and kind.kind == "s2-l2a":
        attributes["comment"] = f"{', '.join(resampled)}: resampled from coarser native pixels"
    _array(
        group,
        array.name,
        (chips, *times, n_bands, px, px),
        (1, *one, n_bands, px, px),
        (side**2, *one, n_bands, px, px),
        kind.dtype,
        kind.fill,
        ("chip", *time_dim, band, y, x),
        attributes,
    )
    _array(
        group,
        f"{array.name}_valid",
        (chips, *times, px, px),
        (1, *one, px, px),
        (side**2, *one, px, px),
        "uint8",
        0,
        ("chip", *time_dim, y, x),
        {"long_name": f"valid observations of {array.name}", "units": "1", "coordinates": " ".join(labels)},
    )
    _coordinate(group, band, (band,), np.array(array.band_names, dtype=object), {"long_name": "band"})
    for name in wavelengths:
        _coordinate(
            group,
            name,
            (band,),
            np.array([b.wavelength_um or np.nan for b in array.bands]),
            {"long_name": "centre wavelength", "units": "um", "standard_name": "radiation_wavelength"},
        )
    for name in own_units:
        _coordinate(group, name, (band,), np.array(units, dtype=object), {"long_name": "unit of the band"})
    offsets = (np.arange(px) + 0.5) * array.pixel_m
    _coordinate(group, x, (x,), offsets, {"long_name": "pixel centre east of x0", "units": "m"})
    _coordinate(group, y, (y,), -offsets, {"long_name": "pixel centre north of y0 (negative: south)", "units": "m"})


def _write_coordinates(group: zarr.Group, spec: RunSpec, axes: Axes, bins: Sequence[str]) -> None:
    side, chip_m = spec.grid.block_chips, spec.grid.chip_m
    blocks = [parse_block_key(key) for key in axes.blocks]
    numbers = np.array([(block.epsg, block.row, block.col) for block in blocks], np.int32).reshape(-1, 3)
    place_row, place_col = np.divmod(np.arange(side**2, dtype=np.int32), side)
    epsg = numbers[:, 0].repeat(side**2)
    row, col = ((numbers[:, i, None] * side + place).ravel() for i, place in ((1, place_row), (2, place_col)))
    x0, y0 = col.astype(np.float64) * chip_m, (row + 1.0) * chip_m
    lon, lat = np.empty_like(x0), np.empty_like(y0)
    half = chip_m / 2
    for code in np.unique(epsg):
        at = epsg == code
        lon[at], lat[at] = project(int(code), WGS84, x0[at] + half, y0[at] - half)
    ids = np.array(chip_ids(epsg, row, col, chip_m), dtype=object)
    _coordinate(group, "chip_id", ("chip",), ids, {"long_name": "chip id"})
    _coordinate(group, "epsg", ("chip",), epsg, {"long_name": "EPSG code of x0 and y0"})
    _coordinate(group, "x0", ("chip",), x0, {"long_name": "left edge of the chip", "units": "m"})
    _coordinate(group, "y0", ("chip",), y0, {"long_name": "top edge of the chip", "units": "m"})
    _coordinate(group, "lon", ("chip",), lon, {"standard_name": "longitude", "units": "degrees_east"})
    _coordinate(group, "lat", ("chip",), lat, {"standard_name": "latitude", "units": "degrees_north"})
    if bins:
        edges = np.array([_edges(spec, key) for key in bins], np.int64)
        days = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
        _coordinate(group, "time", ("time",), edges[:, 0], days | {"standard_name": "time", "bounds": "time_bounds"})
        _coordinate(group, "time_bounds", ("time", "bound"), edges, days)
        _coordinate(group, "time_bin", ("time",), np.array(bins, dtype=object), {"long_name": "time bin"})


def _edges(spec: RunSpec, key: str) -> tuple[int, int]:
    time_bin = spec.time.bin_of(key)
    return (time_bin.start.date() - _EPOCH).days, (time_bin.end.date() - _EPOCH).days


def _array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    shards: tuple[int, ...],
    dtype: str,
    fill: float,
    dims: tuple[str, ...],
    attributes: dict[str, Any],
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=fill,
        dimension_names=dims,
        attributes=attributes,
        compressors=inner_codec(),
    )


def _coordinate(
    group: zarr.Group, name: str, dims: tuple[str, ...], values: NDArray[Any], attrs: dict[str, Any]
) -> None:
    if name in group:
        return  # axes of pixels that several arrays share
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=(_COORD_CHUNK, *values.shape[1:]),
        dtype="string" if values.dtype == object else values.dtype,
        dimension_names=dims,
        attributes=attrs,
    )
    array[...] = values


def _group_attributes(spec: RunSpec) -> dict[str, Any]:
    return {
        "title": f"eo-batch chip cube of {spec.name}",
        "Conventions": "CF-1.11",
        "chip_size_m": spec.grid.chip_m,
        "source": "STAC catalogues named in the run's plan",
    }


def block_objects(
    chips_prefix: str,
    axes: Axes,
    array: CubeArray,
    block: Block,
    bin_key: str,
    chips: Sequence[tuple[NDArray[Any], NDArray[np.uint8]] | None],
) -> Iterator[tuple[str, bytes]]:
    """Pixels (b, y, x) and valid counts (y, x) of the cells of a block, in block order, as whole Zarr shards: keys and
    bytes, each made when it is asked for.

    chips: None for cells that stay empty. The cube reaches as far as `axes`. An array without a valid pixel has none.
    """
    time_index = axes.time_index(bin_key)
    shard = axes.first_slot(block) // block.side**2
    times = () if time_index is None else (time_index,)
    for name, part, fill, zeros in (
        (array.name, 0, array.spec.info.fill, 3),
        (f"{array.name}_valid", 1, 0, 2),
    ):
        data = shard_bytes([chip and chip[part] for chip in chips], fill)
        if data is not None:
            yield "/".join(map(str, (layout.cube(chips_prefix), name, "c", shard, *times, *[0] * zeros))), data


class CubeReader:
    """Reads chips by their position in the cube."""

    def __init__(self, store: Store, chips_prefix: str) -> None:
        path = layout.cube(chips_prefix)
        with store.errors(f"read {path}"):
            self._group = zarr.open_group(store.zarr(path, read_only=True), mode="r")
        self._errors = store.errors
        self._path = path

    def bands(self, array: str) -> tuple[str, ...]:
        """Band labels of an array."""
        return tuple(str(name) for name in np.asarray(self._array(f"band_{array}")[:]))

    def stored(self, array: str, slots: Sequence[int], time_index: int | None) -> NDArray[Any]:
        """Stored values (chip, b, y, x) of chips at `slots`; time_index None for arrays without time."""
        source = self._array(array)
        selection: tuple[Any, ...] = (np.asarray(slots, np.int64),)
        if time_index is not None:
            selection = (*selection, time_index)
        with self._errors(f"read {self._path}/{array}"):
            try:
                return np.asarray(source.oindex[selection])
            except (ValueError, RuntimeError) as error:  # codecs raise these for bytes that do not decode
                raise DataError(
                    f"{self._path}/{array}: a shard can't be decoded ({error}); delete its receipt"
                ) from error

    def read(
        self, array: str, slots: Sequence[int], time_index: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Physical values (chip, b, y, x) float32, 0 where invalid, and validity of the same shape."""
        attributes = self._array(array).attrs
        stored = self.stored(array, slots, time_index)
        is_float = np.issubdtype(stored.dtype, np.floating)
        valid: NDArray[np.bool_] = np.isfinite(stored) if is_float else stored != attributes.get("_FillValue", 0)
        scale, offset = (np.float32(str(attributes.get(name, same))) for name, same in _ENCODING)
        physical = np.where(valid, stored.astype(np.float32) * scale + offset, np.float32(0))
        return physical.astype(np.float32), valid

    def valid_counts(self, array: str, slots: Sequence[int], time_index: int | None) -> NDArray[np.uint8]:
        """Valid observations (chip, y, x)."""
        return self.stored(f"{array}_valid", slots, time_index).astype(np.uint8)

    def _array(self, name: str) -> "zarr.Array[Any]":
        if name not in self._group:
            raise DataError(f"{self._path} has no array {name}; it holds {', '.join(sorted(self._group.array_keys()))}")
        found = self._group[name]
        assert isinstance(found, zarr.Array)
        return found
