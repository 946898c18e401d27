"""Zarr on a real S3 server and netCDF on disk: the same chips as a GeoTIFF of the same numbers gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from eo_batch.core.errors import CatalogError
from eo_batch.io.store import parse_store
from eo_batch.io.xarrays import items_of
from eo_batch.settings import Settings

from .making import Made, catalog_of, raster_item

SPEC = """
name: series
area: {bbox: [11.955, 47.99, 11.98, 48.005]}
time: {start: 2023-05-01, end: 2023-07-01, step: month}
grid: {chip_px: 32, gsd_m: 20, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
sensors:
  ndvi: {kind: continuous, dated: true, assets: {ndvi: ndvi}, composite: mean}
"""
LEFT, TOP, PX, ROWS, COLS = 719_000.0, 5_324_000.0, 20.0, 220, 240
DAYS = np.array(["2023-05-10T10:00", "2023-05-20T10:00", "2023-06-15T10:00"], "datetime64[ns]")


def series(ascending: bool, degrees: bool = False) -> xr.Dataset:
    """Three days of NDVI in EPSG:32632, or in degrees, with a hole."""
    y = TOP - (np.arange(ROWS) + 0.5) * PX
    x = LEFT + (np.arange(COLS) + 0.5) * PX
    if degrees:
        y, x = 48.01 - (np.arange(ROWS) + 0.5) * 1e-4, 11.95 + (np.arange(COLS) + 0.5) * 2e-4
    values = np.random.default_rng(0).random((3, ROWS, COLS)).astype(np.float32)
    values[0, 40:80, 50:90] = np.nan
    names = ("lat", "lon") if degrees else ("y", "x")
    dataset = xr.Dataset(
        {"ndvi": (("time", *names), values, {} if degrees else {"grid_mapping": "crs"})},
        {"time": DAYS, names[0]: y, names[1]: x},
    )
    if not degrees:
        from pyproj import CRS

        dataset["crs"] = ((), 0, {"crs_wkt": CRS.from_epsg(32632).to_wkt()})
    return dataset.isel({names[0]: slice(None, None, -1)}) if ascending else dataset


def packed() -> dict[str, Any]:
    """Stored as int16 with a scale and a fill value, as such files mostly are."""
    return {"ndvi": {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -9999}}


def by_geotiff(folder: Path) -> Made:
    """The oracle: the same numbers as GeoTIFFs of a STAC catalogue."""
    data = series(False)
    packed_values = np.round(np.nan_to_num(data.ndvi.values, nan=-0.9999) / 1e-4).astype(np.int16)
    items = []
    for t, day in enumerate(DAYS):
        path = folder / f"day{t}.tif"
        item = raster_item(
            path,
            packed_values[t],
            32632,
            (PX, 0, LEFT, 0, -PX, TOP),
            "ndvi",
            f"{np.datetime_as_string(day, 's')}Z",
            -9999,
        )
        item["assets"]["ndvi"]["raster:bands"] = [{"scale": 1e-4, "nodata": -9999}]
        items.append(item)
    return Made(SPEC, folder, catalog_of(folder, *items), "sensors.ndvi.collections=[made]")


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return by_geotiff(tmp_path_factory.mktemp("oracle"))


def same(made: Made, oracle: Made) -> None:
    xr.testing.assert_allclose(made.cube.ndvi_20m.drop_vars("time_bin"), oracle.cube.ndvi_20m.drop_vars("time_bin"))
    np.testing.assert_array_equal(made.cube.ndvi_20m_valid.values, oracle.cube.ndvi_20m_valid.values)
    assert np.isfinite(oracle.cube.ndvi_20m.values).mean() > 0.2
    assert set(np.unique(oracle.cube.ndvi_20m_valid.values)) == {0, 1, 2}, "days are composited, and a hole is left"


@pytest.mark.parametrize("ascending", [False, True])
def test_netcdf(tmp_path: Path, oracle: Made, ascending: bool) -> None:
    path = tmp_path / "series.nc"
    series(ascending).to_netcdf(path, engine="h5netcdf", encoding=packed())
    made = Made(SPEC, tmp_path, f"catalog={path}")
    same(made, oracle)
    hrefs = {s.href for r in made.run.receipts("chips").values() for s in r.sources}
    assert any(href.endswith("series.nc#ndvi@2023-06-15T10:00:00Z") for href in hrefs), "the receipt says what was read"


@pytest.mark.parametrize("ascending", [False, True])
def test_zarr_on_s3(
    tmp_path: Path, s3_url: str, oracle: Made, ascending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EO_BATCH_ASSETS_ANONYMOUS", "0")
    store = parse_store(f"{s3_url}/series.zarr")
    series(ascending).to_zarr(store.zarr(""), encoding=packed(), zarr_format=3, consolidated=False)
    made = Made(SPEC, tmp_path, f"catalog={s3_url}/series.zarr")
    same(made, oracle)


def test_degrees_and_a_declared_crs(tmp_path: Path, oracle: Made) -> None:
    """Axes called lat and lon are degrees; a grid of metres without a CRS takes the declared one."""
    path = tmp_path / "degrees.nc"
    series(True, degrees=True).to_netcdf(path, engine="h5netcdf")
    made = Made(SPEC, tmp_path, f"catalog={path}")
    assert np.isfinite(made.cube.ndvi_20m.values).mean() > 0.2
    bare = tmp_path / "bare.nc"
    data = series(False).drop_vars("crs")
    del data.ndvi.attrs["grid_mapping"]
    data.to_netcdf(bare, engine="h5netcdf", encoding=packed())
    with pytest.raises(CatalogError, match="ndvi names no CRS"):
        list(items_of(str(bare), Settings(), None))
    same(Made(SPEC, tmp_path / "b", f"catalog={bare}", "sensors.ndvi.epsg=32632"), oracle)


def test_what_is_no_grid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uneven.nc"
    data = series(False)
    data = data.assign_coords(x=data.x.values + np.arange(COLS) ** 2 * 0.1)
    data.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(CatalogError, match="not evenly spaced"):
        list(items_of(str(path), Settings(), None))
    with pytest.raises(CatalogError, match=r"can't be opened by xarray"):
        list(items_of(str(tmp_path / "none.nc"), Settings(), None))


def test_what_can_not_be_opened_is_told_without_its_query(tmp_path: Path) -> None:
    for name in ("a.zarr?sig=SECRET", "a.nc?sig=SECRET"):
        with pytest.raises(CatalogError) as told:
            list(items_of(f"{tmp_path}/{name}", Settings.from_env(), None))
        assert "SECRET" not in str(told.value)
        assert name.partition("?")[0] in str(told.value)
