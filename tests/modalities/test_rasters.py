"""Class rasters and continuous rasters: shares by area, rates averaged, counts kept."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from eo_batch.core.errors import SpecError
from eo_batch.core.specfile import parse_spec
from eo_batch.core.utm import project

from .making import Made, catalog_of, level_ground, raster_item

WORLDCOVER = """
name: cover
area: {bbox: [6.70, 0.32, 6.74, 0.345]}
time: {start: 2021-01-01, end: 2022-01-01}
grid: {chip_px: 64, gsd_m: 10, block_chips: 4}
pretrain: {encoder: {patch_px: 8}, arrays: [dem_10m]}
sensors:
  cover: {kind: classes, collections: [esa-worldcover], assets: {class: map}}
  dem: {kind: dem}
"""


@pytest.fixture(scope="module")
def cover(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    catalog = f"catalog={shared_data}/data/saotome/items.json"
    return Made(WORLDCOVER, tmp_path_factory.mktemp("cover"), catalog)


def test_shares_of_worldcover_are_those_of_fine_supersampling(cover: Made, shared_data: Path) -> None:
    """From the file's own pixels in degrees, sampled every 0.5 m; sea (0, no data) is no class."""
    path = next((shared_data / "data/saotome/esa-worldcover").rglob("*_Map.tif"))
    rows = cover.table("chips").to_pylist()
    mixed = [row for row in rows if sum((row[c] or 0) > 0.02 for c in row if c.startswith("share:")) >= 3]
    assert len(mixed) >= 4
    k = 1280
    with rasterio.open(path) as source:
        for row in mixed[:3]:
            step = (np.arange(k) + 0.5) * 640 / k
            lon, lat = project(row["epsg"], 4326, *np.meshgrid(row["x0"] + step, row["y0"] - step))
            window = rasterio.windows.from_bounds(
                lon.min() - 1e-3, lat.min() - 1e-3, lon.max() + 1e-3, lat.max() + 1e-3, source.transform
            ).round_offsets().round_lengths()  # fmt: skip
            pixels = source.read(1, window=window)
            inverse = ~source.window_transform(window)
            col, at = inverse.a * lon + inverse.c, inverse.e * lat + inverse.f
            codes = pixels[np.floor(at).astype(int), np.floor(col).astype(int)]
            for code in np.unique(codes[codes > 0]):
                share = (codes == code).sum() / (codes > 0).sum()
                assert row[f"share:cover_10m:{code}"] == pytest.approx(share, abs=1e-3)
    assert "share:cover_10m:0" not in rows[0]


def test_codes_are_never_averaged(cover: Made) -> None:
    codes = set(np.unique(cover.cube.cover_10m.values[np.isfinite(cover.cube.cover_10m.values)]).astype(int))
    assert codes <= {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100}
    assert len(codes) >= 5


PEOPLE = """
name: people
area: {bbox: [11.95, 47.99, 12.05, 48.04]}
time: {start: 2023-01-01, end: 2024-01-01}
grid: {chip_px: 32, gsd_m: 20, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
sensors:
  people: {kind: continuous, collections: [made], assets: {people: data}, resampling: sum, units: "1"}
  trees: {kind: continuous, collections: [made], assets: {trees: data}, resampling: mean, units: percent}
"""


@pytest.mark.parametrize("pixel_deg", [1 / 1200, 1 / 12000])
def test_people_are_kept_and_tree_cover_is_averaged(tmp_path: Path, pixel_deg: float) -> None:
    """Two tiles whose seam runs through chips of a zone; every person lives within the planned chips, once a zone."""
    rows, cols = round(0.03 / pixel_deg), round(0.04 / pixel_deg)
    people = np.random.default_rng(0).poisson(3, (rows, cols)).astype(np.float32)
    west, north = 11.955, 48.035
    half = cols // 2
    items = [
        raster_item(tmp_path / "west.tif", people[:, :half], 4326, (pixel_deg, 0, west, 0, -pixel_deg, north)),
        raster_item(
            tmp_path / "east.tif", people[:, half:], 4326, (pixel_deg, 0, west + half * pixel_deg, 0, -pixel_deg, north)
        ),
    ]
    made = Made(PEOPLE, tmp_path, catalog_of(tmp_path, *items))
    west_zone = made.cube.isel(chip=made.cube.epsg.values == 32632)
    assert float(west_zone.people_20m.sum()) == pytest.approx(people.sum(), rel=1e-5)
    assert made.cube.people_20m.attrs["resampling"] == "sum"
    assert made.cube.trees_20m.attrs["units"] == "percent"
    trees = west_zone.trees_20m.values
    assert np.nanmean(trees) == pytest.approx(people.mean(), rel=0.02)
    assert np.nanmax(trees) <= people.max()


def test_resampling_is_for_continuous_rasters_only() -> None:
    with pytest.raises(SpecError, match=r"resampling='sum' is for kind continuous, not classes"):
        parse_spec(WORLDCOVER, ["catalog=x", "sensors.cover.resampling=sum"])


def test_files_of_one_id_in_two_collections_are_two(tmp_path: Path) -> None:
    """An id is unique within its collection only; the newer one covers the older."""
    items = []
    for year, code in ((2020, 10), (2021, 20)):
        (tmp_path / str(year)).mkdir()
        codes = np.full((60, 60), code, np.uint8)
        path = tmp_path / str(year) / "N00E006.tif"
        item = raster_item(path, codes, 4326, (0.001, 0, 6.69, 0, -0.001, 0.36), "map", f"{year}-01-01T00:00:00Z")
        items.append(item | {"collection": f"cover-{year}"})
    (tmp_path / "ground").mkdir()
    ground = level_ground(tmp_path / "ground", (6.69, 0.31, 6.75, 0.355))
    text = WORLDCOVER.replace("[esa-worldcover]", "[cover-2020, cover-2021]")
    dem = "sensors.dem={kind: dem, collections: [made], assets: {elevation: data}, catalog: " + ground + "}"
    made = Made(text, tmp_path / "runs", catalog_of(tmp_path, *items), dem)
    values = made.cube.cover_10m.values
    assert set(np.unique(values[np.isfinite(values)])) == {20}
