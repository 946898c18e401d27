"""890 landslide points of Puerto Rico, 179 of which repeat a position; and polygons."""

import json
from pathlib import Path

import numpy as np
import pytest

from .making import Made, catalog_of, level_ground

SPEC = """
name: maria
area: {bbox: [-67.13, 18.16, -66.76, 18.44]}
time: {start: 2017-09-01, end: 2017-10-01}
grid: {chip_px: 128, gsd_m: 10, block_chips: 8}
sensors:
  slides: {kind: points, collections: [maria-landslides], assets: {slides: points}}
  roads: {kind: points, collections: [maria-landslides], assets: {slides: points_geojson},
          where: {damage_type: [Road, road, Raod]}}
  ground: {kind: dem, collections: [made], pixel_m: 40}
"""


@pytest.fixture(scope="module")
def maria(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("maria")
    return Made(SPEC, folder, *_where(shared_data, folder))


def _where(shared_data: Path, folder: Path) -> tuple[str, str]:
    ground = level_ground(folder, (-67.2, 18.1, -66.7, 18.5))
    return f"catalog={shared_data}/data/maria-landslides/items.json", f"sensors.ground.catalog={ground}"


def test_the_sum_over_all_chips_is_890(maria: Made) -> None:
    chips = maria.table("chips").to_pylist()
    assert sum(chip["count:slides_1280m:slides"] or 0 for chip in chips) == 890
    assert float(maria.cube.slides_1280m.sum()) == 890
    assert maria.cube.slides_1280m.shape[1:] == (1, 1, 1), "one count a chip"
    by_chip = {chip["chip_id"]: chip["count:slides_1280m:slides"] for chip in chips}
    for chip_id, count in zip(maria.cube.chip_id.values, maria.cube.slides_1280m.values[:, 0, 0, 0], strict=True):
        assert by_chip[str(chip_id)] == count or np.isnan(count)


def test_chips_count_what_their_square_holds(maria: Made, shared_data: Path) -> None:
    """Against the original coordinates in metres that the layer brings along (EPSG:32619)."""
    path = next((shared_data / "data/maria-landslides").rglob("*.geojson"))
    features = json.loads(path.read_text())["features"]
    x, y = (np.array([f["properties"][f"{n}_32619"] for f in features]) for n in ("easting", "northing"))
    off = 0
    for chip in maria.table("chips").to_pylist():
        assert chip["epsg"] == 32619
        x0, y0 = chip["x0"], chip["y0"]
        truth = ((x >= x0) & (x < x0 + 1280) & (y > y0 - 1280) & (y <= y0)).sum()
        off += abs(int(truth) - (chip["count:slides_1280m:slides"] or 0))
    assert off == 0


def test_categories_are_those_that_are_named(maria: Made, shared_data: Path) -> None:
    """Every spelling that is meant is named; GeoJSON and GeoParquet of the item hold the same."""
    path = next((shared_data / "data/maria-landslides").rglob("*.geojson"))
    kinds = [f["properties"]["damage_type"] for f in json.loads(path.read_text())["features"]]
    meant = sum(kind in ("Road", "road", "Raod") for kind in kinds)
    assert 0 < meant < 890
    assert float(maria.cube.roads_1280m.sum()) == meant


def test_ground_outside_the_items_box_is_unknown_and_inside_it_none_is_0(maria: Made) -> None:
    counts = maria.cube.slides_1280m.values[:, 0, 0, 0]
    beyond = maria.cube.lat.values > 18.4328 + 0.013
    assert beyond.any() == np.isnan(counts[beyond]).any()
    assert (counts == 0).sum() > 100


def test_a_property_that_is_not_there_is_told(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"have no property 'kind'; they have .*damage_type"):
        Made(SPEC, tmp_path, *_where(shared_data, tmp_path), "sensors.roads.where={kind: [Road]}")


def test_polygons_are_shares_of_pixels(tmp_path: Path) -> None:
    ring = [[11.96, 47.995], [11.97, 47.995], [11.97, 48.002], [11.96, 48.002], [11.96, 47.995]]
    feature = {
        "type": "Feature",
        "properties": {"kind": "scar"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (tmp_path / "scars.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "scars", "collection": "made", "geometry": None,
        "bbox": [11.9, 47.9, 12.0, 48.1], "properties": {"datetime": "2023-06-01T00:00:00Z"}, "links": [],
        "assets": {"scars": {"href": str(tmp_path / "scars.geojson")}},
    }  # fmt: skip
    text = """
name: scars
area: {bbox: [11.955, 47.99, 11.98, 48.005]}
time: {start: 2023-01-01, end: 2024-01-01}
grid: {chip_px: 32, gsd_m: 10, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
sensors:
  scars: {kind: polygons, collections: [made], assets: {scar: scars}}
  ground: {kind: dem, collections: [made]}
"""
    (tmp_path / "ground").mkdir()
    ground = level_ground(tmp_path / "ground", (11.9, 47.9, 12.1, 48.1))
    made = Made(text, tmp_path, catalog_of(tmp_path, item), f"sensors.ground.catalog={ground}")
    share = made.cube.scars_10m.sel(band_scars_10m="scar").values
    width, height = 0.01 * 111_320 * np.cos(np.radians(47.9985)), 0.007 * 111_200
    assert np.nansum(share) * 100 == pytest.approx(width * height, rel=0.01)
    assert ((share > 0) & (share < 1)).sum() > 100
