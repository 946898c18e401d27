"""Composites of whole tiles by GDAL's own warp, tile by tile, to compare chips with."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

from eo_batch.core.observations import observation_day
from eo_batch.io.plans import load_all_scenes
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
        s.scene_id: s for s in load_all_scenes(recipe.run.store, recipe.run.identity.prefix("plan")) if s.sensor == "s2"
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
