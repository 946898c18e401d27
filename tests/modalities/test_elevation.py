"""Elevation, slope and aspect of real tiles: São Tomé (pixel-is-point, degrees) and Flanders (metres)."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject

from eo_batch.pixels.derived import derive

from .making import Made, catalog_of, raster_item

BANDS = ("elevation", "slope", "aspect", "eastness", "northness")
SAOTOME = """
name: island
area: {bbox: [6.52, 0.16, 6.60, 0.22]}
time: {start: 2021-01-01, end: 2022-01-01}
grid: {chip_px: 64, gsd_m: 20, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
sensors:
  dem: {kind: dem, bands: [elevation, slope, aspect, eastness, northness]}
"""


@pytest.fixture(scope="module")
def island(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    catalog = f"catalog={shared_data}/data/saotome/items.json"
    return Made(SAOTOME, tmp_path_factory.mktemp("island"), catalog)


def test_elevation_is_gdals_and_not_half_a_pixel_off(island: Made, shared_data: Path) -> None:
    """The file is pixel-is-point: whoever takes its tie point for a corner is half a pixel off."""
    ours, left, top = island.mosaic("dem_20m", 32632, band_dem_20m="elevation")
    theirs = np.full(ours.shape, np.nan, np.float32)
    path = next((shared_data / "data/saotome/cop-dem-glo-30").rglob("*_DEM.tif"))
    with rasterio.open(path) as source:
        reproject(
            rasterio.band(source, 1),
            theirs,
            dst_crs="EPSG:32632",
            dst_transform=rasterio.Affine(20, 0, left, 0, -20, top),
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
            tolerance=0,
        )
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.mean() > 0.9
    assert np.nanmax(ours) > 1000, "a mountain, or the test below would compare the sea"
    difference = np.abs(ours - theirs)[both]
    shifted = np.abs(ours[1:] - theirs[:-1])[both[1:] & both[:-1]]
    assert difference.mean() < 0.03
    assert np.quantile(difference, 0.999) < 0.5
    assert shifted.mean() > 50 * difference.mean()


def test_slope_and_aspect_have_no_seam(island: Made) -> None:
    """The chips of four blocks, put together, are what one derivation over all their elevation gives."""
    assert len({chip["block"] for chip in island.table("chips").to_pylist()}) >= 4
    image = {name: island.mosaic("dem_20m", 32632, band_dem_20m=name)[0] for name in BANDS}
    whole, _ = derive(image["elevation"][None].astype(np.float32), ("elevation",), BANDS, 20.0)
    known = np.isfinite(image["elevation"])[1:-1, 1:-1] & np.isfinite(whole[1])
    assert known.sum() > 50_000
    for b, name in enumerate(BANDS[1:], 1):
        off = np.abs(image[name][1:-1, 1:-1] - whole[b])
        if name == "aspect":
            off = np.minimum(off, 360 - off)
            steep = known & (whole[1] > 1)
            assert off[steep].max() < 0.5
        else:
            # A neighbour block interpolates coordinates from other points, by less than 0.001 pixel.
            assert off[known].max() < (0.05 if name == "slope" else 1e-3), name
    assert np.nanmax(image["slope"]) > 30


def test_units_are_those_of_each_band(island: Made) -> None:
    units = dict(zip(island.cube.band_dem_20m.values, island.cube.units_dem_20m.values, strict=True))
    assert units == {"elevation": "m", "slope": "degree", "aspect": "degree", "eastness": "1", "northness": "1"}
    assert "units" not in island.cube.dem_20m.attrs


def test_sea_of_the_tile_is_zero_and_a_missing_tile_is_invalid(shared_data: Path, tmp_path: Path) -> None:
    """The tile ends at 7 degrees east: what lies beyond was never measured, and is not the sea's 0."""
    catalog = f"catalog={shared_data}/data/saotome/items.json"
    made = Made(SAOTOME, tmp_path, catalog, "area.bbox=[6.98, 0.16, 7.02, 0.18]")
    image, left, _ = made.mosaic("dem_20m", 32632, band_dem_20m="elevation")
    from eo_batch.core.utm import project

    x = left + (np.arange(image.shape[1]) + 0.5) * 20
    lon, _ = project(32632, 4326, x, np.full(len(x), 18_800.0))
    inside, beyond = lon < 6.9995, lon > 7.0003
    assert (image[:, inside] == 0).all()
    assert beyond.sum() > 20
    assert np.isnan(image[:, beyond]).all()
    states = {row["state"] for row in made.table("ledger").to_pylist() if row["level"] == "chip"}
    assert "no_data" in states or "no_scene" in states


def test_undeclared_nodata_is_no_elevation(tmp_path: Path) -> None:
    """Some publishers' files hold -32767 and declare nothing: no ground lies there."""
    elevation = np.full((64, 64), 40, np.int16)
    elevation[20:30, 10:40] = -32767
    item = raster_item(tmp_path / "dem.tif", elevation, 32632, (20, 0, 499_200, 0, -20, 20_480))
    spec = SAOTOME.replace("kind: dem,", "kind: dem, collections: [made],")
    made = Made(spec, tmp_path, catalog_of(tmp_path, item), "area.bbox=[8.995, 0.176, 9.003, 0.184]")
    image, left, top = made.mosaic("dem_20m", 32632, band_dem_20m="elevation")
    assert (left, top) == (499_200, 20_480)
    np.testing.assert_array_equal(np.isnan(image[:64, :64]), elevation == -32767)
    assert (image[:64, :64][elevation == 40] == 40).all()
