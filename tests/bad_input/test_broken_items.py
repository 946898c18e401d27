"""Damaged items: a clear error, a scene left out with its reason, or a plan; never a crash, a hang or a wrong pixel."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eo_batch.core.errors import CatalogError, EoBatchError
from eo_batch.core.planet import PlanetSpec
from eo_batch.io.cube import CubeReader
from eo_batch.io.store import parse_store
from eo_batch.stages.simulate import simulate
from tests.bad_input.damaged import Case, assert_tells, bounded, outcome, planned
from tests.bad_input.mutations import Json, mutants
from tests.io.worlds import go

EACH, EACH_TABLE, EACH_REAL, EACH_CHIPS = 500, 100, 40, 8
SENSORS = {
    "sentinel-2-l2a": ("S2B_32UAZ_20230608_0_L2A", "{kind: s2-l2a, bands: [B04, B11]}"),
    "sentinel-1-rtc": ("S1A_IW_GRDH_1SDV_20230603T165812_20230603T165815_048800_U32_rtc", "{kind: s1, bands: [VV]}"),
    "landcover": ("LandCover_N48E009", "{kind: classes, collections: [landcover], assets: {class: map}}"),
    "dem": ("DEM_N48E011", "{kind: dem, collections: [dem]}"),
    "coherence": ("N48E011_summer_vv", "{kind: coherence, collections: [coherence], assets: {coh06: coh06}}"),
}
"""By collection of the simulated planet: the item that is damaged, and the sensor that reads it."""


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a planet with all collections."""
    folder = tmp_path_factory.mktemp("globe")
    simulate(PlanetSpec.tiny(width_km=2.0, height_km=2.0, s2_bands=("B04", "B11")), parse_store(str(folder)), workers=1)
    return folder


def case_of(globe: Path, collection: str, catalog: Path) -> Case:
    name, sensor = SENSORS[collection]
    items = json.loads((globe / "items.json").read_text())["features"]
    own = [item for item in items if item["collection"] == collection]
    (target,) = (item for item in own if item["id"] == name)
    direction = target["properties"].get("sat:orbit_state")
    others = [i for i in own if i is not target and i["properties"].get("sat:orbit_state") == direction]
    return Case(catalog, target, others[:2], sensor)


@pytest.mark.parametrize("collection", SENSORS)
def test_a_damaged_item_in_a_list(globe: Path, tmp_path: Path, collection: str) -> None:
    case = case_of(globe, collection, tmp_path / "damaged.json")
    counts = Counter(outcome(case, mutant) for mutant in mutants(case.target, collection, EACH))
    assert counts["planned"] > EACH / 4, counts
    assert counts["left out"] > EACH / 100, counts
    assert counts["CatalogError"] > EACH / 20, counts
    assert counts["elsewhere"] > 0, counts


@pytest.mark.parametrize("collection", SENSORS)
def test_a_damaged_item_in_a_table(globe: Path, tmp_path: Path, collection: str) -> None:
    case = case_of(globe, collection, tmp_path / "damaged.parquet")
    counts = Counter(outcome(case, mutant) for mutant in mutants(case.target, f"a table of {collection}", EACH_TABLE))
    assert counts["planned"] > EACH_TABLE / 8, counts
    assert counts["left out"] + counts["CatalogError"] > 0, counts


REAL = {
    ("flanders", "sentinel-2-l2a"): "kind: s2-l2a, bands: [B04, B11], offset_dn: 0",
    ("flanders", "sentinel-1-grd"): "kind: s1, pixel_scale: 2",
    ("flanders", "dem"): "kind: dem",
    ("flanders", "lpis-landcover"): "kind: classes, assets: {class: landcover}",
    ("flanders", "lpis-croptype"): "kind: classes, assets: {class: croptype}",
    ("s2-33tw", "sentinel-2-l2a"): "kind: s2-l2a, bands: [B04, B08]",
    ("s2-29rkh", "sentinel-2-l2a"): "kind: s2-l2a, bands: [B01, B04, B11]",
    ("saotome", "cop-dem-glo-30"): "kind: dem",
    ("saotome", "esa-worldcover"): "kind: classes, assets: {class: map}",
    ("terramesh", "terramesh"): 'kind: s1, assets: {VV: "S1RTC#1", VH: "S1RTC#2"}, values: db',
    ("sen1floods11", "sen1floods11-s1"): 'kind: s1, bands: [VV], assets: {VV: "S1#1"}, values: db',
    ("sen1floods11", "sen1floods11-s2"): 'kind: continuous, assets: {red: "S2#4"}, dated: true',
    ("sen1floods11", "sen1floods11-label"): "kind: classes, assets: {class: label}",
    ("pyrate-mexico", "sentinel-1-ifg"): "kind: interferogram",
    ("pyrate-mexico", "dem"): "kind: dem",
    ("maria-landslides", "maria-landslides"): "kind: points, assets: {points: points}",
    ("bigearthnet", "bigearthnet-s1"): "kind: s1, values: db",
    ("bigearthnet", "bigearthnet-s2"): "kind: continuous, assets: {red: B04}, dated: true",
}
"""By folder and collection of the shared data: the sensor that reads it."""


def test_every_real_collection_is_damaged(shared_data: Path) -> None:
    found = set()
    for path in (shared_data / "data").glob("*/items.json"):
        found |= {(path.parent.name, one["collection"]) for one in json.loads(path.read_text())["features"]}
    assert found == set(REAL)


@pytest.mark.parametrize(("folder", "collection"), REAL, ids=["-".join(key) for key in REAL])
def test_a_damaged_real_item(shared_data: Path, tmp_path: Path, folder: str, collection: str) -> None:
    items = json.loads((shared_data / "data" / folder / "items.json").read_text())["features"]
    (target, *others) = (item for item in items if item["collection"] == collection)
    west, south, east, north = target["bbox"]
    x, y = (west + east) / 2, (south + north) / 2
    when = target["properties"]
    first = date.fromisoformat((when.get("datetime") or when["start_datetime"])[:10])
    case = Case(
        tmp_path / "damaged.json",
        target,
        others[:2],
        f"{{{REAL[folder, collection]}, collections: [{collection}]}}",
        (x - 0.001, y - 0.001, x + 0.001, y + 0.001),
        (first - timedelta(days=200), first + timedelta(days=200)),
    )
    counts = Counter(outcome(case, mutant) for mutant in mutants(target, f"{folder} {collection}", EACH_REAL))
    assert counts["planned"] > 0, counts
    assert counts["left out"] + counts["CatalogError"] + counts["RadiometryError"] > 0, counts


DECIDING = {"proj:shape", "proj:transform", "proj:code", "proj:epsg", "bbox", "datetime", "grid:code", "platform", "id",
            "eo:cloud_cover", "sat:orbit_state", "sat:relative_orbit", "geometry", "updated"}  # fmt: skip
"""What could change pixels if it were believed too much, though it says nothing about the numbers in the files."""


def meaning(item: Any) -> str:
    """What an item says of its files' numbers; where this is changed, other pixels are right, and none are compared."""
    asset_fields = ("href", "nodata", "unit", "raster:scale", "raster:offset", "raster:bands", "bands")
    assets = {key: {name: asset.get(name) for name in asset_fields} for key, asset in item["assets"].items()}
    names = ("s2:processing_baseline", "s2:product_uri", "earthsearch:boa_offset_applied", "sar:product_type")
    return json.dumps([assets, [item["properties"].get(name) for name in names], item["collection"]], sort_keys=True)


def same_meaning(item: Any, target: Json) -> bool:
    try:
        return meaning(item) == meaning(target)
    except (AttributeError, KeyError, TypeError):  # not even an item
        return False


Pixels = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


def chips_of(case: Case) -> Pixels:
    """Stored values and valid counts of all chips of the damaged sensor, by array and shard."""
    run, _ = go(case.spec, parse_store(f"memory://{uuid.uuid4()}"), until="chips")
    reader, found = CubeReader(run.store, run.identity.prefix("chips")), Pixels()
    for shard in run.plan.shards:
        first, time = run.axes.first_slot(shard.block), run.axes.time_index(shard.bin_key)
        for array in (array for array in case.spec.arrays() if array.sensor == shard.sensor == "x"):
            slots = [first + place for place in shard.places]
            stored, valid = reader.stored(array.name, slots, time), reader.valid_counts(array.name, slots, time)
            found[array.name, shard.key] = stored, valid
    return found


@pytest.mark.parametrize("collection", SENSORS)
def test_chips_of_a_damaged_item_are_the_undamaged_ones_or_none(globe: Path, collection: str) -> None:
    """The item is alone, so that each of its chips is as it was, or has no valid pixel."""
    name, sensor = SENSORS[collection]
    items = json.loads((globe / "items.json").read_text())["features"]
    (target,) = (item for item in items if item["id"] == name)
    (globe / "dem.tif").write_bytes((globe / "dem/DEM_N48E011/DEM.tif").read_bytes())
    case = Case(globe / f"{collection} damaged.json", target, [], sensor)
    expected, counts = chips_of(case), Counter[str]()
    assert all((valid > 0).any() for _, valid in expected.values())
    for mutant in mutants(target, f"chips of {collection}", 40 * EACH_CHIPS):
        if not (mutant.fields & DECIDING) or not same_meaning(mutant.item, target):
            continue
        case.write([mutant.item])
        if isinstance(planned(case, mutant.told), EoBatchError):
            continue
        with bounded(mutant.told):
            found = chips_of(case)
        for key, (stored, valid) in found.items():
            same = np.array_equal(valid, expected[key][1]) and np.array_equal(stored, expected[key][0], equal_nan=True)
            assert same or not valid.any(), f"{key} after: {mutant.told}"
            counts["same" if same else "none"] += 1
        counts["runs"] += 1
        if counts["runs"] == EACH_CHIPS:
            break
    assert counts["runs"] == EACH_CHIPS, counts
    assert counts["same"] >= EACH_CHIPS / 2, counts


def test_lists_within_lists_do_not_exhaust_the_reader(globe: Path, tmp_path: Path) -> None:
    case = case_of(globe, "dem", tmp_path / "damaged.json")
    deep = json.dumps(case.target).replace('"DEM_N48E011"', f'"DEM_N48E011", "x": {"[" * 100_000}{"]" * 100_000}', 1)
    case.catalog.write_text(f'{{"type": "FeatureCollection", "features": [{deep}]}}')
    found = planned(case, "deep")
    assert isinstance(found, CatalogError)
    assert_tells(found, case.target, case.catalog)
