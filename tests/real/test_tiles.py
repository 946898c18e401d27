"""Whole tiles whose grids do not nest in the lattice: chips against GDAL's own warp, tile by tile."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

from eo_batch.core.plan import observation_day
from eo_batch.io.plans import load_scenes
from eo_batch.io.tables import read_table

from .conftest import Recipe

GOOD_SCL = (2, 4, 5, 6, 7, 11)


@cache
def opened(path: Path) -> tuple[Any, Any, Any]:
    with rasterio.open(path) as source:
        return source.read(1).astype("float64"), source.transform, source.crs


def warped(path: Path, recipe: Recipe, chip: int, array: str, how: Resampling) -> Any:
    """One file on one chip's grid by GDAL, exact transformation; NaN without data."""
    data = recipe.stored
    pixel, px = data[array].attrs["pixel_size_m"], data[array].shape[-1]
    out = np.zeros((px, px), "float64")
    pixels, transform, crs = opened(path)
    reproject(
        pixels,
        out,
        src_transform=transform,
        src_crs=crs,
        src_nodata=0,
        dst_transform=from_origin(float(data.x0[chip]), float(data.y0[chip]), pixel, pixel),
        dst_crs=f"EPSG:{int(data.epsg[chip])}",
        dst_nodata=0,
        resampling=how,
        tolerance=0,
    )
    return np.where(out > 0, out, np.nan)


def chosen_chips(recipe: Recipe, count: int, seed: int) -> list[int]:
    chips = read_table(recipe.run.store, f"{recipe.run.identity.prefix('publish')}/chips.parquet")
    slots = chips["slot"].to_numpy()
    return [int(s) for s in np.random.default_rng(seed).choice(slots, count, replace=False)]


def composite_by_gdal(recipe: Recipe, chip: int, array: str, asset: str) -> Any:
    """Median over days of the mosaic of each day's tiles, all by GDAL."""
    found = json.loads((recipe.folder / "items.json").read_text())["features"]
    days: dict[str, list[dict[str, Any]]] = {}
    scenes = {
        s.scene_id: s for s in load_scenes(recipe.run.store, recipe.run.identity.prefix("plan")) if s.sensor == "s2"
    }
    for item in sorted(found, key=lambda i: i["properties"]["datetime"]):
        days.setdefault(observation_day(scenes[item["id"]]), []).append(item)
    layers = []
    for group in days.values():
        image = np.full((recipe.stored[array].shape[-1],) * 2, np.nan)
        for item in group:
            dn = warped(recipe.folder / item["assets"][asset]["href"], recipe, chip, array, Resampling.bilinear)
            scl = warped(recipe.folder / item["assets"]["scl"]["href"], recipe, chip, array, Resampling.nearest)
            fresh = np.isnan(image) & np.isin(scl, GOOD_SCL)
            image[fresh] = dn[fresh]
        layers.append(image)
    return np.array(layers)


def agreement(recipe: Recipe, array: str, band: str, asset: str, count: int) -> tuple[float, int]:
    """Share of our valid pixels that have as many observations as by GDAL and differ by one digital number at most;
    and how many pixels were compared."""
    close, compared = 0, 0
    for chip in chosen_chips(recipe, count, 5):
        layers = composite_by_gdal(recipe, chip, array, asset)
        n_gdal = np.isfinite(layers).sum(0)
        ours = recipe.stored[array].sel({f"band_{array}": band}).isel(time=0).values[chip].astype(float)
        n_ours = recipe.stored[f"{array}_valid"].isel(time=0).values[chip]
        same = (n_gdal == n_ours) & (n_ours > 0)
        truth = np.nanmedian(layers[:, same], axis=0) + 1000
        difference = np.abs(ours[same] - truth)
        close += int((difference <= 1.01).sum())
        compared += int(n_ours.astype(bool).sum())
    return close / compared, compared


def test_croatia_agrees_with_gdal(croatia: Recipe) -> None:
    """The two tiles are shifted by half a pixel to each other and by half a pixel to the lattice."""
    share, compared = agreement(croatia, "s2_120m", "B04", "red", 40)
    assert compared > 20_000
    assert share > 0.99


def test_croatia_offset_is_already_applied(croatia: Recipe) -> None:
    """Items state offset -0.1 though it is gone: vegetation in red must stay positive, near 0.02 to 0.03."""
    red = croatia.physical.s2_120m.sel(band_s2_120m="B04").values
    assert 0.01 < np.nanmedian(red) < 0.05
    nir = croatia.physical.s2_120m.sel(band_s2_120m="B08").values
    assert 0.2 < np.nanmedian(nir) < 0.5


def test_croatia_mosaic_has_no_seam(croatia: Recipe) -> None:
    """Chips on the overlap of the tiles are whole: the swath edge of one is filled by the other."""
    data = croatia.stored
    seam = (data.y0.values > 5_090_220) & (data.y0.values - 3840 < 5_100_000)
    inside = (data.x0.values > 520_000) & (data.x0.values < 590_000)
    chips = read_table(croatia.run.store, f"{croatia.run.identity.prefix('publish')}/chips.parquet")
    planned = np.isin(np.arange(data.sizes["chip"]), chips["slot"].to_numpy())
    valid = data.s2_120m_valid.isel(time=0).values[seam & inside & planned]
    assert len(valid) >= 40
    assert (valid > 0).mean() > 0.99


def test_croatia_undefined_class_is_told(croatia: Recipe) -> None:
    ledger = read_table(croatia.run.store, f"{croatia.run.identity.prefix('publish')}/ledger.parquet").to_pylist()
    assert any("code 12" in (row["cause"] or "") for row in ledger if row["level"] == "note")


def test_sahara_agrees_with_gdal_in_all_pixel_sizes(sahara: Recipe) -> None:
    for array, band, asset in (("s2_100m", "B02", "blue"), ("s2_200m", "B11", "swir16"), ("s2_200m", "B01", "coastal")):
        share, compared = agreement(sahara, array, band, asset, 12)
        assert compared > 2000
        assert share > 0.97, band


def test_sahara_flag_false_does_not_mean_an_offset_is_left(sahara: Recipe) -> None:
    """Baseline 02.14 and `boa_offset_applied: false`: nothing to subtract. Sand is bright: red near 0.4."""
    red = sahara.physical.s2_100m.sel(band_s2_100m="B04").values
    assert 0.3 < np.nanmedian(red) < 0.5
    receipt = next(iter(sahara.run.receipts("chips").values()))
    assert {s.offset_dn for s in receipt.sources} == {0.0}


def test_resampled_bands_say_so(sahara: Recipe) -> None:
    assert "B01, B09" in sahara.stored.s2_200m.attrs["comment"]
