"""Items as publishers really write them, from the shared test data."""

import json
from pathlib import Path
from typing import Any

import pystac
import pytest

from eo_batch.core.scenes import Scene
from eo_batch.core.spec import SensorSpec
from eo_batch.core.stacitems import scene_of_item
from eo_batch.io.scenetable import scene_table, without_duplicates
from tests.core.samples import Json, sensor


@pytest.fixture(scope="module")
def items_folder(shared_data: Path) -> Path:
    return shared_data / "data" / "items"


def documents(path: Path) -> list[Json]:
    """Items of a file: one item, a list or an ItemCollection."""
    data = json.loads(path.read_text())
    if isinstance(data, list):
        return data
    return list(data.get("features", [data]))


def scenes(path: Path, kind: str, **fields: Any) -> list[Scene]:
    declared: SensorSpec = sensor(kind, **fields)
    return [scene_of_item(one, "name", declared, path.as_uri()) for one in documents(path)]


@pytest.mark.parametrize(
    ("file", "offset", "baseline"),
    [
        ("earth-search-v0/S2A_28QCH_20200714_0_L2A_beta1.json", 0, "02.14"),
        ("earth-search-v0/S2A_31NBJ_20190524_0_L2A.json", 0, "02.12"),
        ("earth-search-v0/S2B_42TUM_20220107_0_L2A.json", 0, "03.01"),
        ("earth-search-v0/S2A_17SPR_20221106_0_L2A.json", 0, "04.00"),  # flag true: taken out
        ("earth-search-v1/S2A_33TWN_20161202_0_L2A.json", 0, "00.01"),
        ("earth-search-v1/S2A_29RKH_20200219_0_L2A.json", 0, "02.14"),
        ("earth-search-v1/S2A_33TWN_20220122_0_L2A.json", 0, "03.01"),
        ("earth-search-v1/S2B_33TWN_20220130_0_L2A.json", 0, "04.00"),  # flag true
        ("earth-search-v1/S2B_33TWN_20220226_0_L2A.json", -1000, "04.00"),  # flag false: still there
        ("earth-search-v1/S2B_33TWL_20230813_0_L2A.json", 0, "05.09"),
        ("earth-search-c1/S2B_T37MGP_20240710T073012_L2A_C1.json", -1000, "05.10"),
        ("earth-search-c1/sentinel-2-c1-l2a_10_items.json", -1000, "05.10"),
        ("planetary-computer/two-sentinel-2-items.json", -1000, "05.11"),
        ("planetary-computer/sentinel-2-l2a-pc.json", -1000, "05.10"),
        ("planetary-computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json", 0, "02.12"),
    ],
)
def test_offsets(items_folder: Path, file: str, offset: int, baseline: str) -> None:
    found = scenes(items_folder / file, "s2-l2a", bands=("B02", "B04", "B12"))
    assert found
    for one in found:
        assert one.refusal is None
        assert one.baseline == baseline
        assert [a.offset_dn for a in one.assets] == [offset] * 3 + [0]
        assert [a.band for a in one.assets] == ["B02", "B04", "B12", "SCL"]


def test_one_item_mixes_buckets(items_folder: Path) -> None:
    """The same item lists Element 84's copies and ESA's originals; only the copies are harmonised."""
    file = items_folder / "earth-search-v1/S2A_32TMS_20221207_0_L2A.json"
    mixed = {"B04": "red-jp2", "B08": "nir"}
    (found,) = scenes(file, "s2-l2a", bands=("B04", "B08"), assets=mixed)
    assert [(a.href.split("/")[2].split(".")[0], a.offset_dn) for a in found.assets[:2]] == [
        ("sentinel-s2-l2a", -1000),
        ("sentinel-cogs", 0),
    ]


@pytest.mark.parametrize(
    "file",
    [
        "antimeridian/S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.json",
        "antimeridian/S2A_OPER_MSI_L2A_TL_2APS_20230603T031757_A041497_T01WCQ_polygon.json",
        "other/S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.json",
    ],
)
def test_files_of_unknown_offset_are_refused_until_declared(items_folder: Path, file: str) -> None:
    keys = {"B04": "red"}
    (found,) = scenes(items_folder / file, "s2-l2a", assets=keys)
    assert found.ambiguous
    (declared,) = scenes(items_folder / file, "s2-l2a", assets=keys, offset_dn=-1000)
    assert not declared.ambiguous


def test_every_real_sentinel_2_item_is_decided_or_refused_never_guessed(items_folder: Path) -> None:
    """Over all publishers: the offset is one of two, and where nobody says, a person is asked."""
    seen = {0.0: 0, -1000.0: 0, None: 0}
    for path in sorted(items_folder.glob("*/*.json")):
        for document in documents(path):
            keys = {"red", "B04"} & set(document.get("assets", {}))
            if document.get("type") != "Feature" or not keys or "L1C" in document["id"]:
                continue
            found = scene_of_item(document, "name", sensor(assets={"B04": keys.pop()}), path.as_uri())
            offset = None if found.ambiguous else found.assets[0].offset_dn
            seen[offset] += 1
    assert all(count > 10 for count in seen.values()), seen


@pytest.mark.parametrize(
    "file",
    [
        "earth-search-v1/S2B_33TWL_20230813_0_L2A.json",
        "earth-search-c1/S2B_T37MGP_20240710T073012_L2A_C1.json",
        "planetary-computer/sentinel-2-item.json",
        "planetary-computer/sentinel-1-rtc-pc.json",
    ],
)
def test_items_that_pystac_has_read_are_the_same_scenes(items_folder: Path, file: str) -> None:
    document = documents(items_folder / file)[0]
    declared = sensor("s1" if "rtc" in file else "s2-l2a")
    document["links"] = []
    through = pystac.Item.from_dict(json.loads(json.dumps(document))).to_dict()
    if any("projection" in extension for extension in document["stac_extensions"]):
        assert "proj:epsg" not in through["properties"]
    before, after = (scene_of_item(one, "name", declared, "https://host/item.json") for one in (document, through))
    assert before.refusal is None
    assert before.assets[0].epsg is not None
    assert after == before


def test_one_sensing_listed_by_two_publishers_is_one_scene(items_folder: Path) -> None:
    """v0 and v1 list 28QCH with times that differ by half a second."""
    files = ["earth-search-v0/S2A_28QCH_20200714_0_L2A_beta1.json", "earth-search-v1/S2A_28QCH_20200714_0_L2A.json"]
    both = [one for file in files for one in scenes(items_folder / file, "s2-l2a")]
    assert both[0].moment != both[1].moment
    assert both[0].tile == both[1].tile == "MGRS-28QCH"
    assert len(without_duplicates(scene_table(both))) == 1


def test_the_radar_products(items_folder: Path) -> None:
    rtc = scenes(items_folder / "planetary-computer/sentinel-1-rtc-pc.json", "s1")
    assert all(one.refusal is None and not one.assets[0].db for one in rtc)
    assert {one.assets[0].nodata for one in rtc} == {-32768}
    assert {one.orbit_state for one in rtc} <= {"ascending", "descending"}
    (indigo,) = scenes(
        items_folder / "sentinel-1/S1A_20200103_17RMJ_ASC.json",
        "s1",
        assets={"VV": "gamma0_vv", "VH": "gamma0_vh"},
    )
    assert indigo.refusal is None
    (ground_range,) = scenes(
        items_folder / "planetary-computer/s1-grd.json", "s1", values="linear", bands=("VV",), assets={"VV": "hh"}
    )
    assert ground_range.refusal is not None
    assert "not map-projected" in ground_range.refusal


def test_flanders_radar_is_in_decibels(shared_data: Path) -> None:
    path = shared_data / "data" / "flanders" / "items.json"
    radar = [one for one in documents(path) if one["collection"] == "sentinel-1-grd"]
    found = [scene_of_item(one, "s1", sensor("s1"), path.as_uri()) for one in radar]
    assert len(found) == 80
    assert all(one.refusal is None for one in found)
    assert {(a.db, a.scale, a.nodata, a.epsg) for one in found for a in one.assets} == {(True, 0.0001, 0.0, 32631)}
    assert all(Path(a.href.removeprefix("file://")).is_file() for one in found for a in one.assets)


def test_flanders_optical_needs_a_declared_offset(shared_data: Path) -> None:
    path = shared_data / "data" / "flanders" / "items.json"
    optical = [one for one in documents(path) if one["collection"] == "sentinel-2-l2a"]
    found = [scene_of_item(one, "s2", sensor(), path.as_uri()) for one in optical]
    assert all(one.ambiguous for one in found)
    declared = [scene_of_item(one, "s2", sensor(offset_dn=0), path.as_uri()) for one in optical]
    assert all(one.refusal is None for one in declared)


def test_land_cover_has_no_datetime_but_an_interval(items_folder: Path) -> None:
    file = items_folder / "dem-landcover/ESA_WorldCover_10m_2021_v200_N00E006.json"
    (document,) = documents(file)
    assert document["properties"]["datetime"] is None
    (found,) = scenes(file, "classes", assets={"cover": "map"})
    assert found.moment.isoformat().startswith("2021-07-02T11:59:59")
    (cover,) = found.assets
    assert (cover.epsg, cover.shape, cover.nodata) == (4326, (36000, 36000), 0)
    assert cover.transform is not None
    assert cover.transform[2] == 6.0 < found.bbox[0]  # the raster begins west of the item's bbox


def test_nodata_written_as_text(shared_data: Path) -> None:
    path = shared_data / "data" / "sen1floods11" / "items.json"
    radar = [one for one in documents(path) if one["collection"].endswith("-s1")]
    (found,) = [
        scene_of_item(one, "s1", sensor("s1", bands=("VV",), assets={"VV": "S1"}), path.as_uri()) for one in radar
    ]
    (vv,) = found.assets
    assert vv.nodata is not None
    assert vv.nodata != vv.nodata  # NaN
    assert vv.db
