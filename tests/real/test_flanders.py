"""Sentinel-1, Sentinel-2, elevation and labels of two sites: grids nest, so every pixel has one exact value."""

import json
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

from eo_batch.core.timebins import bin_of_key
from eo_batch.io.tables import read_table

from .conftest import Recipe
from .whole_job import WholeJob


@pytest.fixture
def recipe(flanders: Recipe) -> Recipe:
    return flanders


class TestWholeJob(WholeJob):
    told = "cloud is often taken for snow"


GOOD_SCL = (2, 4, 5, 6, 7, 11)


def items(folder: Path, collection: str, site: str) -> list[dict[str, Any]]:
    found = json.loads((folder / "items.json").read_text())["features"]
    return [i for i in found if i["collection"] == collection and site in i["id"]]


@cache
def read_file(path: Path) -> Any:
    with rasterio.open(path) as source:
        return source.read(1)


def read(folder: Path, item: dict[str, Any], asset: str) -> Any:
    return read_file(folder / item["assets"][asset]["href"])


def mosaic(dataset: xr.Dataset, name: str, bounds: tuple[float, float, float, float], **at: Any) -> Any:
    """One array's pixels over bounds, put together from its chips by their coordinates."""
    x_min, y_min, x_max, y_max = bounds
    array = dataset[name].sel(**at)
    px = array.shape[-1]
    pixel = dataset[name.removesuffix("_valid")].attrs["pixel_size_m"]
    out = np.full((round((y_max - y_min) / pixel), round((x_max - x_min) / pixel)), np.nan)
    for chip in range(dataset.sizes["chip"]):
        row = round((y_max - float(dataset.y0[chip])) / pixel)
        col = round((float(dataset.x0[chip]) - x_min) / pixel)
        r0, r1, c0, c1 = max(row, 0), min(row + px, out.shape[0]), max(col, 0), min(col + px, out.shape[1])
        if r0 < r1 and c0 < c1:
            out[r0:r1, c0:c1] = array.values[chip][r0 - row : r1 - row, c0 - col : c1 - col]
    return out


SITES = {"31UDS": (501360.0, 5629040.0, 502000.0, 5629680.0), "31UES": (574680.0, 5621800.0, 575320.0, 5622440.0)}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("band", ["B04", "B08", "B11"])
def test_s2_is_the_median_of_clear_days(flanders: Recipe, site: str, band: str) -> None:
    """Computed anew with rasterio: the offset is 0, so DN + 1000 is stored; one value a solar day."""
    name, repeat = ("s2_20m", 1) if band == "B11" else ("s2_10m", 2)
    seen = 0
    for t, key in enumerate(flanders.stored.time_bin.values):
        time_bin = bin_of_key(str(key), "season")
        layers = []
        for item in items(flanders.folder, "sentinel-2-l2a", site):
            moment = datetime.fromisoformat(item["properties"]["datetime"]).astimezone(UTC)
            if not time_bin.holds(moment):
                continue
            dn = read(flanders.folder, item, band).astype(float)
            scl = np.repeat(np.repeat(read(flanders.folder, item, "SCL"), repeat, 0), repeat, 1)
            layers.append(np.where((dn > 0) & np.isin(scl, GOOD_SCL), dn + 1000, np.nan))
        ours = mosaic(flanders.stored.isel(time=t), name, SITES[site], **{f"band_{name}": band})
        if not layers:
            assert np.nanmax(ours, initial=0) == 0
            continue
        clear = np.isfinite(layers).any(0)
        truth = np.full(clear.shape, np.nan)
        truth[clear] = np.floor(np.nanmedian(np.array(layers)[:, clear], axis=0) + 0.5)
        planned = np.isfinite(ours)
        assert planned.mean() > 0.9
        np.testing.assert_array_equal(ours[planned & clear], truth[planned & clear])
        assert (ours[planned & ~clear] == 0).all()
        seen += int((planned & clear).sum())
    assert seen > 20_000 / (3 - repeat) ** 2 / 2


@pytest.mark.parametrize("site", SITES)
def test_s1_is_averaged_in_linear_power(flanders: Recipe, site: str) -> None:
    for t, key in enumerate(flanders.stored.time_bin.values):
        time_bin = bin_of_key(str(key), "season")
        layers = []
        for item in items(flanders.folder, "sentinel-1-grd", site):
            if time_bin.holds(datetime.fromisoformat(item["properties"]["datetime"]).astimezone(UTC)):
                stored = read(flanders.folder, item, "VV")
                layers.append(np.where(stored != 0, 10 ** (stored * 0.0001 / 10), np.nan))
        if layers:
            ours = mosaic(flanders.stored.isel(time=t), "s1_20m", SITES[site], band_s1_20m="VV")
            planned = np.isfinite(ours)
            assert planned.mean() > 0.9
            np.testing.assert_allclose(ours[planned], np.nanmedian(layers, axis=0)[planned], rtol=1e-6)
            assert 1e-3 < np.nanmedian(ours) < 1  # power, not decibels


def test_elevation_and_labels_are_copied(flanders: Recipe) -> None:
    for site, bounds in SITES.items():
        dem = read(flanders.folder, items(flanders.folder, "dem", site)[0], "dem")
        ours = mosaic(flanders.stored, "dem_20m", bounds, band_dem_20m="elevation")
        planned = np.isfinite(ours)
        np.testing.assert_array_equal(ours[planned], dem[planned])
        labels = read(flanders.folder, items(flanders.folder, "lpis-landcover", site)[0], "landcover")
        ours = mosaic(flanders.stored, "labels_10m", bounds, band_labels_10m="class")
        planned = np.isfinite(ours) & (ours > 0)
        assert planned.mean() > 0.9
        np.testing.assert_array_equal(ours[planned], labels[planned])


def test_one_pixel_without_b08_is_missing_in_b08_only(flanders: Recipe) -> None:
    """2018-12-12, 31UES, row 43, column 40: 0 in B08, valid elsewhere; the day is the only clear one it has."""
    item = next(i for i in items(flanders.folder, "sentinel-2-l2a", "31UES") if "20181212" in i["id"])
    assert read(flanders.folder, item, "B08")[43, 40] == 0
    assert read(flanders.folder, item, "B04")[43, 40] > 0
    t = list(flanders.stored.time_bin.values).index("2019-DJF")
    season = flanders.stored.isel(time=t)
    count = mosaic(season, "s2_10m_valid", SITES["31UES"])
    assert count[43, 40] == count[43, 41] - 1


def test_snow_that_is_cloud_shows_in_the_ledger(flanders: Recipe) -> None:
    ledger = read_table(flanders.run.store, f"{flanders.run.identity.prefix('publish')}/ledger.parquet").to_pylist()
    notes = defaultdict(list)
    for row in ledger:
        if row["level"] == "note":
            notes[row["scene"]].append(row["cause"])
    for day in (
        "31UDS_00002806639B424A_20180923",
        "31UES_0000280849BAC91C_20181112",
        "31UES_0000280849BAC91C_20190928",
    ):
        told = [text for scene, texts in notes.items() if day in scene for text in texts]
        assert any("snow" in text and "cloud is often taken for snow" in text for text in told), day


def test_undeclared_offset_is_refused(flanders: Recipe, tmp_path: Path) -> None:
    from .conftest import ROOT, eo_batch

    done = eo_batch(
        "plan",
        str(ROOT / "recipes/real-flanders.yaml"),
        f"catalog={flanders.folder}/items.json",
        "sensors.s2.offset_dn=",
    )
    assert done.returncode == 6
    assert "offset_dn" in done.stderr
    assert "Traceback" not in done.stderr
