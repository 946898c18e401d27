"""The written catalogue holds exactly what the planet's truth says, in the forms its publishers use."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import stac_geoparquet.arrow
from shapely.geometry import Point, shape

from eo_batch.core.planet import (
    BUILT_UP,
    LAND_CLASSES,
    S2_BANDS,
    S2_CONVENTIONS,
    TEXTURE_CODES,
    WATER,
    PlanetSpec,
)
from eo_batch.core.radiometry import s2_offset
from eo_batch.core.spec import SensorSpec
from eo_batch.core.stacitems import scene_of_item
from eo_batch.io.scenetable import scene_table, without_duplicates
from eo_batch.io.store import parse_store
from eo_batch.pixels.planet import Planet
from eo_batch.pixels.planet_grids import RasterGrid
from eo_batch.pixels.planet_sky import S1_BORDER_M
from eo_batch.stages.simulate import simulate
from tests.planet.conftest import Json, Written

ASSET = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16"}


@pytest.fixture(scope="module")
def planet(tiny: Written) -> Planet:
    return Planet(tiny.spec)


def read(path: Path) -> tuple[np.ndarray, RasterGrid, Any]:
    with rasterio.open(path) as source:
        t = source.transform
        grid = RasterGrid(source.crs.to_epsg(), t.c, t.f, t.a, -t.e, source.height, source.width)
        return source.read(1), grid, source.profile


def offset_of(item: Json) -> int:
    """What the item's properties say about its digital numbers, by the rule of this project."""
    decision = s2_offset("x/y.tif", item["properties"], item["assets"]["red"]["raster:bands"], None)
    assert decision.offset_dn is not None
    return int(decision.offset_dn)


def reflectance(tiny: Written, item: Json, band: str) -> tuple[np.ndarray, RasterGrid]:
    numbers, grid, _ = read(tiny.path(item, ASSET[band]))
    value = (numbers.astype(float) + offset_of(item)) / 10_000
    return np.where(numbers == 0, np.nan, value), grid


def day_of(tiny: Written, item: Json) -> int:
    return {f"{tiny.spec.s2_time(d):%Y-%m-%d}": d for d in range(tiny.spec.s2_dates)}[
        item["properties"]["datetime"][:10]
    ]


# ------------------------------------------------------------------------------------------ Sentinel-2


def test_all_three_conventions_occur_and_all_give_the_true_reflectance(tiny: Written, planet: Planet) -> None:
    seen = set()
    for item in tiny.of("sentinel-2-l2a"):
        properties = item["properties"]
        seen.add((properties["s2:processing_baseline"], properties["earthsearch:boa_offset_applied"]))
        for band in ("B04", "B11"):
            value, grid = reflectance(tiny, item, band)
            lonlat, day = grid.lonlat(), day_of(tiny, item)
            truth = planet.s2_reflectance_at(*lonlat, band, day)
            clear = np.isin(planet.cloud_state_at(*lonlat, day), (4, 5, 6)) & np.isfinite(value)
            error = value[clear] / truth[clear] - 1
            assert clear.sum() > 1000
            assert error.mean() == pytest.approx(0, abs=0.004)
            # Quantisation adds 1e-4 / sqrt(12) to noise that is 8 % of at least 0.01.
            assert error.std() == pytest.approx(tiny.spec.s2_noise, rel=0.05)
    assert seen == {(c.baseline, c.offset_applied) for c in S2_CONVENTIONS}


def test_offset_that_is_gone_is_stated_all_the_same(tiny: Written) -> None:
    stated = {
        (i["properties"]["s2:processing_baseline"], i["assets"]["nir"]["raster:bands"][0]["offset"])
        for i in tiny.of("sentinel-2-l2a")
    }
    assert stated == {("05.09", -0.1), ("04.00", -0.1), ("02.14", 0.0)}


def test_overlapping_tiles_agree_pixel_by_pixel(tiny: Written) -> None:
    items = tiny.of("sentinel-2-l2a")
    compared = 0
    for first in items:
        for second in items:
            same_time = first["properties"]["datetime"] == second["properties"]["datetime"]
            if first["id"] >= second["id"] or not same_time:
                continue
            (a, grid_a), (b, grid_b) = (reflectance(tiny, item, "B08") for item in (first, second))
            if grid_a.epsg != grid_b.epsg or grid_a == grid_b:
                continue
            down, right = grid_b.first_row - grid_a.first_row, grid_b.first_col - grid_a.first_col
            part_a = a[max(down, 0) :, max(right, 0) :]
            part_b = b[max(-down, 0) :, max(-right, 0) :]
            rows, cols = (min(x, y) for x, y in zip(part_a.shape, part_b.shape, strict=True))
            assert min(rows, cols) * 10 == round(tiny.spec.overlap_km * 1000)
            # Conventions differ, so a value may round to the other side.
            np.testing.assert_allclose(part_a[:rows, :cols], part_b[:rows, :cols], atol=1.01e-4)
            compared += 1
    assert compared >= 2


def test_one_sensing_is_listed_twice_and_both_files_tell_the_same(tiny: Written) -> None:
    items = tiny.of("sentinel-2-l2a")
    key = Counter((i["properties"]["grid:code"], i["properties"]["datetime"]) for i in items)
    (twice,) = [k for k, n in key.items() if n == 2]
    pair = [i for i in items if (i["properties"]["grid:code"], i["properties"]["datetime"]) == twice]
    assert [i["properties"]["s2:sequence"] for i in pair] == ["0", "1"]
    assert pair[0]["properties"]["s2:processing_baseline"] < pair[1]["properties"]["s2:processing_baseline"]
    old, new = (reflectance(tiny, item, "B02")[0] for item in pair)
    np.testing.assert_allclose(old, new, atol=1.01e-4)


def test_scl_is_the_true_sky_with_a_sprinkle_and_matches_the_item(tiny: Written, planet: Planet) -> None:
    found: set[int] = set()
    for item in tiny.of("sentinel-2-l2a"):
        scl, grid, profile = read(tiny.path(item, "scl"))
        lonlat, day = grid.lonlat(), day_of(tiny, item)
        truth = planet.cloud_state_at(*lonlat, day)
        inside = planet.s2_swath_at(*lonlat, day)
        np.testing.assert_array_equal(scl == 0, ~inside)
        sprinkle = scl == 7
        assert 0 < sprinkle.mean() < 0.01
        np.testing.assert_array_equal(scl[inside & ~sprinkle], truth[inside & ~sprinkle])
        cloud_pct = 100 * np.isin(scl, (8, 9, 10)).sum() / inside.sum()
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(cloud_pct, abs=1e-3)
        assert profile["dtype"] == "uint8"
        assert grid.dx == 20
        found |= set(np.unique(scl).tolist())
    assert {0, 3, 4, 7, 8, 9} <= found


def test_clouds_are_bright_shadows_dark_and_outside_is_nodata(tiny: Written, planet: Planet) -> None:
    cut = 0
    for item in tiny.of("sentinel-2-l2a"):
        value, grid = reflectance(tiny, item, "B03")
        lonlat, day = grid.lonlat(), day_of(tiny, item)
        sky = planet.sky_at(*lonlat, day)
        inside = planet.s2_swath_at(*lonlat, day)
        np.testing.assert_array_equal(np.isnan(value), ~inside)
        cut += int(not inside.all())
        cloudy = inside & (sky.mask == 9)
        if cloudy.any():
            assert np.median(value[cloudy]) > 0.7
        dark = inside & (sky.shade == 1) & (sky.cloud == 0) & (sky.cirrus == 0)
        if dark.any():
            clear_truth = planet.s2_reflectance_at(*lonlat, "B03", day)
            assert np.median(value[dark] / clear_truth[dark]) == pytest.approx(0.35, abs=0.02)
    assert cut >= 1


def test_footprints_follow_the_swath(tiny: Written) -> None:
    for item in tiny.of("sentinel-2-l2a"):
        valid_pct = 100 - item["properties"]["s2:nodata_pixel_percentage"]
        _, grid, _ = read(tiny.path(item, "red"))
        share = shape(item["geometry"]).area / grid.footprint().area
        assert 100 * share == pytest.approx(valid_pct, abs=0.5)


def test_coarse_band_is_sampled_at_its_own_centres(tiny: Written, planet: Planet) -> None:
    item = tiny.of("sentinel-2-l2a")[0]
    value, grid = reflectance(tiny, item, "B11")
    assert grid.dx == 20
    day = day_of(tiny, item)
    lonlat = grid.lonlat()
    clear = np.isin(planet.cloud_state_at(*lonlat, day), (4, 5, 6)) & np.isfinite(value)

    def error(east_m: float) -> float:
        moved = RasterGrid(grid.epsg, grid.x0 + east_m, grid.y0, 20, 20, grid.height, grid.width)
        truth = planet.s2_reflectance_at(*moved.lonlat(), "B11", day)
        return float(np.square(value[clear] / truth[clear] - 1).mean())

    assert error(0) < min(error(-5), error(5))


# ------------------------------------------------------------------------------------------ Sentinel-1


def test_s1_is_truth_times_speckle_with_noisy_borders(tiny: Written, planet: Planet) -> None:
    borders = outsides = 0
    for item in tiny.of("sentinel-1-rtc"):
        day = 0 if item["properties"]["sat:orbit_state"] == "ascending" else 1
        for pol in ("VV", "VH"):
            power, grid, profile = read(tiny.path(item, pol.lower()))
            assert (profile["dtype"], profile["nodata"]) == ("float32", -32768)
            lonlat = grid.lonlat()
            depth = planet.s1_depth_at(*lonlat, day)
            np.testing.assert_array_equal(power == -32768, depth <= 0)
            border = (depth > 0) & (depth <= S1_BORDER_M)
            inside = depth > S1_BORDER_M
            ratio = power[inside] / planet.s1_gamma0_at(*lonlat, pol)[inside]
            assert ratio.mean() == pytest.approx(1, abs=0.01)
            assert 1 / ratio.var() == pytest.approx(tiny.spec.s1_looks, rel=0.05)
            if border.any():
                assert power[border].min() > 0
                assert power[border].max() < 0.1 * power[inside].mean()
            borders += int(border.sum())
            outsides += int((depth <= 0).sum())
    assert borders > 500
    assert outsides > 500


def test_s1_speckle_differs_between_dates_and_polarisations(tiny: Written, planet: Planet) -> None:
    first, second = tiny.of("sentinel-1-rtc", lambda i: i["properties"]["proj:code"] == "EPSG:32632")
    images = []
    for item, pol in ((first, "VV"), (first, "VH"), (second, "VV")):
        power, grid, _ = read(tiny.path(item, pol.lower()))
        images.append(np.where(power > 1e-3, power, np.nan) / planet.s1_gamma0_at(*grid.lonlat(), pol))
    both = np.isfinite(images).all(axis=0)
    correlation = np.corrcoef([image[both] for image in images])
    assert np.abs(correlation - np.eye(3)).max() < 0.03
    about = [item["properties"] for item in (first, second)]
    orbits = {(p["sat:orbit_state"], p["sat:relative_orbit"]) for p in about}
    assert orbits == {("ascending", 117), ("descending", 168)}


# ------------------------------------------------------------------------------------ static products


def test_static_rasters_are_the_truth_at_pixel_centres(tiny: Written, planet: Planet) -> None:
    for item in tiny.of("landcover"):
        code, grid, profile = read(tiny.path(item, "map"))
        np.testing.assert_array_equal(code, planet.class_at(*grid.lonlat()))
        assert (profile["nodata"], profile["crs"].to_epsg()) == (0, 4326)
        classes = {c["value"]: c["name"] for c in item["assets"]["map"]["classification:classes"]}
        assert classes == {land.code: land.name for land in LAND_CLASSES}
    for item in tiny.of("dem"):
        height, grid, profile = read(tiny.path(item, "data"))
        assert profile["dtype"] == "float32"
        np.testing.assert_allclose(height, planet.elevation_at(*grid.lonlat()), atol=1e-3)
    for item in tiny.of("coherence"):
        short, grid, _ = read(tiny.path(item, "coh06"))
        long, _, _ = read(tiny.path(item, "coh24"))
        truth = 100 * planet.coherence_at(*grid.lonlat(), 6)
        assert np.abs(short - truth).max() <= 0.5001
        code = planet.class_at(*grid.lonlat())
        textured = np.isin(code, TEXTURE_CODES)
        assert (long[textured] < short[textured]).all()
        assert (short[code == WATER] <= 7).all()
        assert (long[code == BUILT_UP] > 80).all()
        assert short.min() > 0


def test_labels_in_utm(tmp_path: Path) -> None:
    written = Written(PlanetSpec.tiny(labels_in_utm=True, collections=("landcover",)), tmp_path)
    (item,) = written.items
    code, grid, _ = read(written.path(item, "map"))
    assert (grid.epsg, grid.dx) == (32633, 10)
    np.testing.assert_array_equal(code, Planet(written.spec).class_at(*grid.lonlat()))


def test_every_raster_covers_the_area(tiny: Written) -> None:
    west, south, east, north = tiny.spec.area_bbox
    corners = [Point(x, y) for x in (west, east) for y in (south, north)]
    for collection in ("dem", "landcover", "coherence"):
        footprints = [shape(item["geometry"]) for item in tiny.of(collection)]
        for corner in corners:
            assert any(f.buffer(1e-9).contains(corner) for f in footprints), (collection, corner)


# ------------------------------------------------------------------------------------------- catalogue


def test_items_across_the_antimeridian_are_cut_there(tmp_path: Path) -> None:
    """As RFC 7946 has it: outlines in two parts (3.1.9), boxes with west > east (5.2)."""
    spec = PlanetSpec.tiny(centre_lon=180, centre_lat=66, s1_dates=1, s2_bands=("B11",))
    written = Written(spec, tmp_path)
    across: Counter[str] = Counter()
    for item in written.items:
        outline, (west, _, east, _) = shape(item["geometry"]), item["bbox"]
        assert outline.is_valid
        assert outline.bounds[0] >= -180
        assert outline.bounds[2] <= 180
        parts = getattr(outline, "geoms", [outline])
        assert sum(part.bounds[2] - part.bounds[0] for part in parts) < 0.2
        assert (west > east) == (len(parts) == 2)
        across[item["collection"]] += west > east
    assert across["sentinel-1-rtc"] == 2
    assert across["sentinel-2-l2a"] > 2
    assert across["dem"] == across["landcover"] == across["coherence"] == 0
    for name in ("sentinel-1-rtc", "sentinel-2-l2a"):
        text = (tmp_path / name / "collection.json").read_text()
        ((west, _, east, _),) = json.loads(text)["extent"]["spatial"]["bbox"]
        assert 179 < west < 180
        assert -180 < east < -179


def test_every_file_is_a_tiled_cog_that_matches_its_metadata(tiny: Written) -> None:
    count = 0
    for item in tiny.items:
        for asset in item["assets"].values():
            path = tiny.folder / asset["href"]
            with rasterio.open(path) as source:
                assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert source.compression.name == "deflate"
                assert source.block_shapes[0][1] <= 256
                assert list(source.shape) == asset["proj:shape"]
                assert list(source.transform)[:6] == pytest.approx(asset["proj:transform"])
                band = asset["raster:bands"][0]
                assert source.dtypes[0] == band["data_type"]
                assert source.nodata == band.get("nodata")
                code = item["properties"].get("proj:code") or f"EPSG:{item['properties']['proj:epsg']}"
                assert f"EPSG:{source.crs.to_epsg()}" == code
                assert source.tags().get("AREA_OR_POINT") == "Area"
            count += 1
    assert count > 60


def test_large_rasters_have_overviews_that_keep_codes_and_nodata(tmp_path: Path) -> None:
    size = {"width_km": 8, "height_km": 6, "centre_lon": 12.5}
    written = Written(PlanetSpec.tiny(**size, collections=("landcover",), labels_in_utm=True), tmp_path)
    with rasterio.open(written.path(written.items[0], "map")) as source:
        assert source.overviews(1)
        small = source.read(1, out_shape=(source.height // 2, source.width // 2))
    assert set(np.unique(small)) <= {land.code for land in LAND_CLASSES}


def test_pystac_walks_the_static_catalogue(tiny: Written) -> None:
    catalog = pystac.Catalog.from_file(str(tiny.folder / "catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert sorted(i.id for i in items) == sorted(i["id"] for i in tiny.items)
    assert {c.id for c in catalog.get_children()} == set(tiny.spec.collections)
    for item in items:
        assert item.get_root() is catalog
        for asset in item.assets.values():
            assert Path(asset.get_absolute_href() or "").is_file()
    collection = pystac.ItemCollection.from_file(str(tiny.folder / "items.json"))
    assert len(collection) == len(items)


def test_geoparquet_lists_the_same_items_with_relative_hrefs(tiny: Written) -> None:
    table = pq.read_table(tiny.folder / "items.parquet")
    assert sorted(table["id"].to_pylist()) == sorted(i["id"] for i in tiny.items)
    assets = dict(zip(table["id"].to_pylist(), table["assets"].to_pylist(), strict=True))
    item = tiny.of("sentinel-2-l2a")[0]
    assert assets[item["id"]]["red"]["href"] == item["assets"]["red"]["href"]
    assert (tiny.folder / assets[item["id"]]["red"]["href"]).is_file()
    assert b"geo" in table.schema.metadata
    again = {i["id"]: i for i in stac_geoparquet.arrow.stac_table_to_items(table)}
    assert again[item["id"]]["properties"]["eo:cloud_cover"] == item["properties"]["eo:cloud_cover"]


def test_same_spec_same_bytes_and_a_second_call_writes_nothing(tiny: Written, tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    calls: list[tuple[int, int, str]] = []
    store = parse_store(str(tmp_path))
    href = simulate(tiny.spec, store, lambda *call: calls.append(call), workers=1)
    assert href == store.href("items.json")
    assert [done for done, _, _ in calls] == list(range(1, calls[0][1] + 1))
    assert digests(tmp_path) == digests(tiny.folder)
    before = len(calls)
    assert simulate(tiny.spec, store, lambda *call: calls.append(call)) == href
    assert len(calls) == before
    store.delete("planet.json")  # as a crash before the end leaves it
    simulate(tiny.spec, store)
    assert digests(tmp_path) == digests(tiny.folder)


def test_subset_of_collections_and_bands(tmp_path: Path) -> None:
    spec = PlanetSpec.tiny(collections=("sentinel-2-l2a",), s2_bands=("B11",), s2_dates=1)
    written = Written(spec, tmp_path)
    assert {item["collection"] for item in written.items} == {"sentinel-2-l2a"}
    assert {key for item in written.items for key in item["assets"]} == {"swir16", "scl"}


def test_all_bands_are_written(tiny: Written) -> None:
    assert {key for item in tiny.of("sentinel-2-l2a") for key in item["assets"]} == {
        *(ASSET[band] for band in S2_BANDS), "scl",
    }  # fmt: skip


def test_the_planner_takes_every_scene_and_keeps_the_older_processing_as_spare(tiny: Written) -> None:
    sensors = {
        "sentinel-2-l2a": SensorSpec(kind="s2-l2a", bands=S2_BANDS),
        "sentinel-1-rtc": SensorSpec(kind="s1", bands=("VV", "VH")),
    }
    for collection, sensor in sensors.items():
        scenes = [scene_of_item(item, "x", sensor, tiny.href) for item in tiny.of(collection)]
        assert [scene.refusal for scene in scenes] == [None] * len(scenes)
        for scene in scenes:
            for asset in scene.assets:
                with rasterio.open(urlsplit(asset.href).path) as source:
                    assert (source.crs.to_epsg(), source.shape) == (asset.epsg, asset.shape)
        if collection == "sentinel-2-l2a":
            assert {a.offset_dn for s in scenes for a in s.assets if a.band == "B04"} == {0.0, -1000.0}
            chosen = without_duplicates(scene_table(scenes)).scenes()
            assert len(chosen) == len(scenes) - 1
            assert [(s.baseline, bool(s.spare)) for s in chosen if s.spare] == [("05.09", True)]
