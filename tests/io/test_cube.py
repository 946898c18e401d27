"""What people see who open the cube with xarray; how it grows; what a damaged object does.

Legend: chip, time, b bands, y rows, x columns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyproj
import pytest
import xarray as xr

from eo_batch.core import layout
from eo_batch.core.errors import DataError, StoreMissing
from eo_batch.core.grid import parse_chip_id
from eo_batch.core.plan import Axes
from eo_batch.entry.door import Door
from eo_batch.entry.run import Run
from eo_batch.entry.stages import prepare
from eo_batch.io.axes import load_axes
from eo_batch.io.cube import CubeReader, prepare_cube
from eo_batch.io.store import parse_store
from tests.io.worlds import WEST, WHOLE, chips_receipts, cube_objects, go, spec_of


@pytest.fixture(scope="module")
def run(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return go(spec_of(planet / "items.json"), parse_store(str(tmp_path_factory.mktemp("cube"))))[0]


@pytest.fixture
def cube(run: Run) -> xr.Dataset:
    key = layout.cube(run.identity.prefix("chips"))
    return xr.open_zarr(unquote(urlsplit(run.store.href(key)).path))


@pytest.fixture
def reader(run: Run) -> CubeReader:
    return CubeReader(run.store, run.identity.prefix("chips"))


def slots(run: Run) -> dict[str, int]:
    """Position of every planned chip on the chip axis."""
    found = {}
    for block in run.plan.blocks:
        first = run.axes.first_slot(block)
        found |= {cell.chip_id: first + block.place(cell) for cell in block.cells()}
    return {planned.cell.chip_id: found[planned.cell.chip_id] for planned in run.plan.cells}


def test_arrays_have_named_dimensions_and_chips_as_chunks(cube: xr.Dataset) -> None:
    assert cube["s2_10m"].dims == ("chip", "time", "band_s2_10m", "y_10m", "x_10m")
    assert cube["s2_20m"].dims == ("chip", "time", "band_s2_20m", "y_20m", "x_20m")
    assert cube["labels_10m"].dims == ("chip", "band_labels_10m", "y_10m", "x_10m")
    assert cube["s2_10m_valid"].dims == ("chip", "time", "y_10m", "x_10m")
    assert cube["s2_10m"].shape == (8 * 16, 1, 1, 32, 32)
    assert cube["s2_20m"].shape == (8 * 16, 1, 1, 16, 16)
    assert cube["s2_10m"].encoding["chunks"] == (1, 1, 1, 32, 32)
    assert cube["s2_10m"].encoding["shards"] == (16, 1, 1, 32, 32)
    assert set(cube["s2_10m"].data.chunks[0]) <= {1, 16}, "lazy, in chips or whole shards"


def test_labels_times_and_bands_are_coordinates(cube: xr.Dataset) -> None:
    assert list(cube["band_s2_10m"].values) == ["B04"]
    assert list(cube["band_s2_20m"].values) == ["B11"]
    assert list(cube["band_labels_10m"].values) == ["class"]
    np.testing.assert_array_equal(cube["time"].values, np.array(["2023-06-01"], "datetime64[ns]"))
    np.testing.assert_array_equal(
        cube["time_bounds"].values, np.array([["2023-06-01", "2023-07-01"]], "datetime64[ns]")
    )
    assert list(cube["time_bin"].values) == ["2023-06"]
    wavelength = cube["s2_10m"].coords["wavelength_s2_10m"]
    assert wavelength.attrs["units"] == "um"
    np.testing.assert_allclose(wavelength, [0.665])
    assert {"chip_id", "epsg", "x0", "y0", "lon", "lat", "time_bin"} <= set(cube["s2_10m"].coords)
    assert {"chip_id", "epsg", "x0", "y0", "lon", "lat"} <= set(cube["labels_10m"].coords)


def test_coordinates_place_every_pixel(cube: xr.Dataset, run: Run) -> None:
    places = cube.reset_coords()[
        ["chip_id", "epsg", "x0", "y0", "lon", "lat", "x_10m", "y_10m", "x_20m", "y_20m"]
    ].load()
    assert len(set(places["chip_id"].values)) == cube.sizes["chip"]
    for chip_id, slot in slots(run).items():
        chip = places.isel(chip=slot)
        cell = parse_chip_id(chip_id)
        assert chip["chip_id"] == chip_id
        assert chip["epsg"] == cell.epsg
        x_min, y_min, x_max, y_max = cell.bounds
        for size in ("10m", "20m"):
            x, y = chip["x0"] + chip[f"x_{size}"], chip["y0"] + chip[f"y_{size}"]
            half = float(size[:-1]) / 2
            assert (float(x[0]), float(x[-1])) == (x_min + half, x_max - half)
            assert (float(y[0]), float(y[-1])) == (y_max - half, y_min + half)
        to_degrees = pyproj.Transformer.from_crs(cell.epsg, 4326, always_xy=True)
        lon, lat = to_degrees.transform((x_min + x_max) / 2, (y_min + y_max) / 2)
        np.testing.assert_allclose((float(chip["lon"]), float(chip["lat"])), (lon, lat), atol=1e-9)
    for name, unit in (("x0", "m"), ("y0", "m"), ("x_10m", "m"), ("lon", "degrees_east"), ("lat", "degrees_north")):
        assert cube[name].attrs["units"] == unit


def test_values_are_decoded(cube: xr.Dataset, run: Run, reader: CubeReader) -> None:
    where = sorted(slots(run).values())
    stored = reader.stored("s2_10m", where, 0)
    decoded = cube["s2_10m"].isel(chip=where, time=0).values
    assert stored.dtype == np.uint16
    assert (stored > 0).any()
    np.testing.assert_array_equal(np.isnan(decoded), stored == 0)
    np.testing.assert_allclose(decoded[stored > 0], stored[stored > 0] * 0.0001 - 0.1, rtol=1e-5)
    assert cube["s2_10m"].attrs["units"] == "1"
    assert "reflectance" in cube["s2_10m"].attrs["long_name"]
    physical, valid = reader.read("s2_10m", where, 0)
    np.testing.assert_array_equal(valid, stored > 0)
    np.testing.assert_allclose(physical, np.nan_to_num(decoded), atol=1e-6)
    counts = reader.valid_counts("s2_10m", where, 0)
    np.testing.assert_array_equal(counts > 0, valid[:, 0])
    labels = cube["labels_10m"].isel(chip=where).values
    assert set(np.unique(labels[~np.isnan(labels)])) <= {10, 20, 30, 40, 50, 80}
    outside = sorted(set(range(cube.sizes["chip"])) - set(where))
    assert outside
    assert not cube["s2_10m_valid"].isel(chip=outside).any(), "cells of a block that the area does not touch"


def test_receipts_list_every_object_with_its_size(run: Run) -> None:
    prefix = run.identity.prefix("chips")
    for receipt in chips_receipts(run):
        assert receipt.outputs
        for name, size in receipt.outputs.items():
            assert run.store.size(f"{prefix}/{name}") == size


def test_shards_in_any_order_and_twice_give_the_same_bytes(planet: Path, tmp_path: Path) -> None:
    spec = spec_of(planet / "items.json", WEST)
    expected = cube_objects(go(spec, parse_store(str(tmp_path / "in order")))[0])
    for seed in (1, 2, 3):
        again, _ = go(spec, parse_store(str(tmp_path / str(seed))), until="plan")
        prepare(again, "chips")
        order = list(range(len(again.plan.shards))) * 2
        random.Random(seed).shuffle(order)
        for index in order:
            Door(again, "chips", "test")(index)
            if random.Random(seed + index).random() < 0.5:
                # As if the worker had died after its data and before its receipt.
                again.store.delete(layout.receipt_key(again.identity.prefix("chips"), again.plan.shards[index].key))
        assert cube_objects(again) == expected


def data(run: Run) -> dict[str, str]:
    """Digests of the objects that shards wrote."""
    names = [array.name for array in run.spec.arrays()]
    arrays = tuple(f"/cube.zarr/{name}{suffix}/c/" for name in names for suffix in ("", "_valid"))
    return {key: digest for key, digest in cube_objects(run).items() if any(part in key for part in arrays)}


def test_a_later_month_is_appended_and_leaves_the_rest_alone(planet: Path, tmp_path: Path) -> None:
    store = parse_store(str(tmp_path))
    june, ran = go(spec_of(planet / "items.json", WEST), store)
    before, receipts = data(june), chips_receipts(june)
    assert ran.ran("chips") == 8
    summer, ran = go(spec_of(planet / "items.json", WEST, "time.end=2023-08-01"), store)
    assert summer.identity.prefix("chips") == june.identity.prefix("chips")
    assert ran.ran("chips") == 4, "Sentinel-2 in July; June and the labels are there"
    # No scene, no object: July is in the axes and in the receipts.
    assert data(summer) == before
    assert {r.shard: r for r in chips_receipts(summer)}.items() >= {r.shard: r for r in receipts}.items()
    spring, ran = go(spec_of(planet / "items.json", WEST, "time.start=2023-05-01"), store)
    assert ran.ran("chips") == 4
    assert data(spring) == before
    assert load_axes(store, june.identity.prefix("chips")).bins == ("2023-06", "static", "2023-07", "2023-05")
    cube = xr.open_zarr(str(tmp_path / layout.cube(june.identity.prefix("chips"))))
    assert list(cube["time_bin"].values) == ["2023-06", "2023-07", "2023-05"]
    assert cube["time"].values[2] == np.datetime64("2023-05-01")
    np.testing.assert_array_equal(cube["time_bounds"].values[:, 1] > cube["time"].values, True)
    assert cube["s2_10m"].sizes["time"] == 3
    assert cube["s2_10m_valid"].isel(time=0).any()
    assert not cube["s2_10m_valid"].isel(time=[1, 2]).any()


def test_a_larger_area_is_appended_and_moves_nothing(planet: Path, tmp_path: Path) -> None:
    store = parse_store(str(tmp_path))
    small, _ = go(spec_of(planet / "items.json", WEST), store)
    before, places = data(small), slots(small)
    pixels = stored(small, list(places.values()))
    west, south, _, north = WEST
    large, ran = go(spec_of(planet / "items.json", (west, south, WHOLE[2], north)), store)
    assert large.identity.prefix("chips") == small.identity.prefix("chips")
    known = {shard.key: shard.inputs for shard in small.plan.shards}
    changed = [shard for shard in large.plan.shards if known.get(shard.key) != shard.inputs]
    kept = [shard for shard in large.plan.shards if known.get(shard.key) == shard.inputs]
    assert (len(kept), len(changed)) == (8, 8), "the area grows into another zone, with blocks of its own"
    assert ran.ran("chips") == len(changed)
    after = data(large)
    prefix = large.identity.prefix("chips")
    assert len(after) > len(before)
    assert after.items() >= before.items()
    assert {chip_id: slots(large)[chip_id] for chip_id in places} == places
    for array, values in stored(large, list(places.values())).items():
        np.testing.assert_array_equal(values, pixels[array])
    cube = xr.open_zarr(str(tmp_path / layout.cube(prefix)))
    assert cube.sizes["chip"] == len(load_axes(store, prefix).blocks) * 16
    assert set(cube["epsg"].values) == {32632, 32633}


def test_a_block_that_gets_more_chips_keeps_the_pixels_of_those_it_had(planet: Path, tmp_path: Path) -> None:
    store = parse_store(str(tmp_path))
    small, _ = go(spec_of(planet / "items.json", WEST), store)
    places = slots(small)
    pixels = stored(small, list(places.values()))
    large, ran = go(spec_of(planet / "items.json", WHOLE), store)
    assert ran.ran("chips") == len(large.plan.shards)
    assert {chip_id: slots(large)[chip_id] for chip_id in places} == places
    for array, values in stored(large, list(places.values())).items():
        np.testing.assert_array_equal(values, pixels[array])


def stored(run: Run, where: Sequence[int]) -> dict[str, np.ndarray]:
    reader = CubeReader(run.store, run.identity.prefix("chips"))
    return {
        array.name: reader.stored(array.name, where, None if array.spec.info.static else 0)
        for array in run.spec.arrays()
    }


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.6, 0.99])
def test_an_object_that_was_cut_short_is_an_error(planet: Path, tmp_path: Path, kept: float) -> None:
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path)))
    reader = CubeReader(run.store, run.identity.prefix("chips"))
    where = sorted(slots(run).values())
    damaged = [key for key in run.store.list() if "/s2_10m/c/" in key]
    for key in damaged:
        whole = run.store.get(key)
        run.store.put(key, whole[: int(len(whole) * kept)])
    with pytest.raises(DataError, match="s2_10m"):
        reader.stored("s2_10m", where, 0)
    assert reader.stored("s2_20m", where, 0).any()


def test_an_object_with_other_bytes_is_an_error(planet: Path, tmp_path: Path) -> None:
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path)))
    for key in [key for key in run.store.list() if "/s2_10m/c/" in key]:
        whole = run.store.get(key)
        run.store.put(key, b"\x5a" * (len(whole) // 2) + whole[len(whole) // 2 :])
    with pytest.raises(DataError, match="s2_10m"):
        CubeReader(run.store, run.identity.prefix("chips")).stored("s2_10m", sorted(slots(run).values()), 0)


def test_what_the_cube_does_not_have_is_named(reader: CubeReader, run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no array s3_10m; it holds .*s2_10m"):
        reader.stored("s3_10m", [0], 0)
    for place in (str(tmp_path), "memory://no-cube"):
        with pytest.raises(StoreMissing, match=r"cube\.zarr"):
            CubeReader(parse_store(place), run.identity.prefix("chips"))


def test_arrays_are_written_once_never_shrunk_and_completed(planet: Path, tmp_path: Path) -> None:
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path)), until="plan")
    prefix = run.identity.prefix("chips")
    prepare(run, "chips")
    group, axes = f"{layout.cube(prefix)}/zarr.json", load_axes(run.store, prefix)
    expected = cube_objects(run)
    run.store.put(group, run.store.get(group) + b"\n")
    prepare(run, "chips")
    prepare_cube(run.store, prefix, run.spec, Axes(axes.blocks[:1], axes.bins[:1]))
    assert run.store.get(group).endswith(b"\n"), "it holds all that is asked for, and stays as it is"
    # As left by whoever was killed on the way: the group's own object comes last.
    for key in (group, f"{layout.cube(prefix)}/chip_id/c/0"):
        run.store.delete(key)
    prepare(run, "chips")
    assert cube_objects(run) == expected
