"""Items as rows of a table and items one by one give the same scenes, whoever publishes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet

from benchmarks import continent_items
from benchmarks.europe import items_of
from eo_batch.core.area import area_from_bbox
from eo_batch.core.errors import CatalogError
from eo_batch.core.spec import SensorSpec
from eo_batch.core.stacitems import scene_of_item
from eo_batch.core.timebins import midnight
from eo_batch.io.catalogs import Item, Query, search
from eo_batch.io.geoparquet import scenes_of_geoparquet
from eo_batch.io.scenetable import SceneTable, scene_table, without_duplicates
from tests.core.samples import Json, item, sensor
from tests.io.worlds import QUICK

EVERYWHERE = ((-180.0, -90.0, 180.0, 90.0),)
SENSORS = {
    "s2": sensor("s2-l2a", bands=("B02", "B04", "B12")),
    "s2 declared": sensor("s2-l2a", bands=("B04",), offset_dn=-1000),
    "s1": sensor("s1"),
    "s1 linear": sensor("s1", values="linear", assets={"VV": "gamma0_vv", "VH": "gamma0_vh"}),
    "dem": sensor("dem"),
    "classes": sensor("classes", assets={"class": "map"}),
    "continuous": sensor("continuous", assets={"wvp": "wvp"}),
}


def query_of(path: Path, **fields: Any) -> Query:
    return Query(
        **({"catalog": str(path), "collections": (), "bboxes": EVERYWHERE, "start": None, "end": None} | fields)
    )


def one_by_one(items: Iterable[Item], declared: SensorSpec, query: Query, tmp_path: Path) -> SceneTable:
    """By the way that items of an API or a list go."""
    listing = tmp_path / "one_by_one.json"
    listing.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    found = search(Query(str(listing), query.collections, query.bboxes, query.start, query.end), QUICK)
    return scene_table(scene_of_item(one, "name", declared, query.catalog) for one, _ in found.items)


def outcome(make: Any) -> Any:
    """Scenes and their digests, or the kind of error."""
    try:
        table: SceneTable = without_duplicates(make())
    except CatalogError:
        return CatalogError
    columns = table.columns()
    return table.scenes(), columns.digest.tobytes(), columns.bounds.tolist(), columns.epsg.tolist()


def assert_same(path: Path, declared: SensorSpec, tmp_path: Path, items: Iterable[Item], **fields: Any) -> int:
    """Both ways give the same; returns how many scenes."""
    query = query_of(path, **fields)
    in_columns = outcome(lambda: scenes_of_geoparquet(query, "name", declared, QUICK)[0])
    assert in_columns == outcome(lambda: one_by_one(items, declared, query, tmp_path))
    return 0 if in_columns is CatalogError else len(in_columns[0])


def items_in(path: Path) -> list[Item]:
    """A table's items, as stac-geoparquet reads them."""

    def without_nulls(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_nulls(part) for key, part in value.items() if part is not None}
        return [without_nulls(part) for part in value] if isinstance(value, list) else value

    return [without_nulls(one) for one in stac_table_to_items(pq.read_table(path))]


def written(items: list[Json], path: Path) -> Path:
    to_parquet(parse_stac_items_to_arrow(items), path)
    return path


@pytest.mark.parametrize("name", ["s2", "s2 declared", "s1"])
def test_a_real_table(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = shared_data / "data" / "items" / "planetary-computer" / "1000-sentinel-2-items.parquet"
    items = items_in(path)
    assert assert_same(path, SENSORS[name], tmp_path, items) >= 900
    some = {"bboxes": ((-110.0, 30.0, -105.0, 45.0),), "start": date(2024, 7, 10), "end": date(2024, 7, 20)}
    assert 10 < assert_same(path, SENSORS[name], tmp_path, items, **some) < 900
    assert_same(path, SENSORS[name], tmp_path, items, collections=("another",))


def real_items(folder: Path) -> Iterator[Json]:
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        for document in data if isinstance(data, list) else data.get("features", [data]):
            if document.get("type") == "Feature" and document.get("geometry") and document.get("bbox"):
                yield document


@pytest.mark.parametrize(
    "publisher",
    ["earth-search-v0", "earth-search-v1", "earth-search-c1", "planetary-computer", "sentinel-1", "dem-landcover"],
)
def test_real_items_of_every_publisher_as_a_table(shared_data: Path, tmp_path: Path, publisher: str) -> None:
    """Each collection of each publisher is a table of its own, as they publish them."""
    by_collection: dict[str, list[Json]] = {}
    for document in real_items(shared_data / "data" / "items" / publisher):
        key = f"{document.get('collection')} {document.get('stac_version')}"
        by_collection.setdefault(key, []).append(document)
    scenes = 0
    for number, documents in enumerate(by_collection.values()):
        path = written(documents, tmp_path / f"{number}.parquet")
        for declared in SENSORS.values():
            scenes += assert_same(path, declared, tmp_path, items_in(path))
    assert scenes >= len(SENSORS) * 2


def test_the_simulated_europe(tmp_path: Path) -> None:
    start, end = midnight(date(2023, 6, 1)), midnight(date(2023, 7, 1))
    items = list(items_of(area_from_bbox([11.0, 46.0, 13.0, 47.0]), start, end))
    path = written(items, tmp_path / "items.parquet")
    for declared, collection in (("s2", "sentinel-2-l2a"), ("s1", "sentinel-1-rtc"), ("classes", "esa-worldcover")):
        found = assert_same(path, SENSORS[declared], tmp_path, items, collections=(collection,))
        assert found == sum(one["collection"] == collection for one in items)
    some = {"bboxes": ((11.9, 46.1, 12.0, 46.2),), "start": date(2023, 6, 10), "end": date(2023, 6, 12)}
    assert assert_same(path, SENSORS["s2"], tmp_path, items, **some) > 0


def test_the_simulated_continent(tmp_path: Path) -> None:
    """Baselines and flags that change, and sensings that are listed twice."""
    path = tmp_path / "items.parquet"
    count = continent_items.write(path, area_from_bbox([11.0, 46.0, 13.0, 47.0]), date(2021, 12, 1), date(2022, 3, 1))
    items = items_in(path)
    found = assert_same(path, SENSORS["s2"], tmp_path, items)
    assert count * 0.9 < found < count
    assert count > 400


_BAND = st.fixed_dictionaries(
    {"data_type": st.just("uint16")},
    optional={
        "scale": st.sampled_from([0.0001, 1.0]),
        "offset": st.sampled_from([-0.1, 0.0]),
        "nodata": st.sampled_from([0, -1]),
    },
)
_FILE = st.fixed_dictionaries(
    {},
    optional={
        "href": st.sampled_from(
            ["B04.tif", "../x/B04.tif", "/data/B04.tif", "s3://sentinel-s2-l2a/t/B04.jp2", "https://h/a/B04.tif?sig=SECRET",
             "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/B04.tif",
             "https://s3.eu.amazonaws.com/sentinel-s2-l2a/x/B04.jp2", "https://sentinel2l2a01.blob.core.windows.net/a/B04.tif"]
        ),
        "proj:epsg": st.sampled_from([32633, 32632, 4326]),
        "proj:code": st.sampled_from(["EPSG:32633", "IAU:1"]),
        "proj:shape": st.sampled_from([[10, 10], [20, 20], [5]]),
        "proj:transform": st.sampled_from([[10, 0, 5e5, 0, -10, 5e6], [20, 0, 6e5, 0, -20, 5e6, 0, 0, 1], [1, 2]]),
        "nodata": st.sampled_from([0, 7]),
        "unit": st.sampled_from(["dB", "linear"]),
        "raster:bands": st.lists(_BAND, max_size=2),
        "bands": st.lists(_BAND, max_size=2),
    },
)  # fmt: skip
_PROPERTIES = st.fixed_dictionaries(
    {"datetime": st.sampled_from(["2023-08-13T10:08:07.856000Z", "2023-08-13T10:08:08Z", "2023-08-14T10:00:00Z"])},
    optional={
        "platform": st.sampled_from(["Sentinel-2A", "sentinel-2b"]),
        "s2:processing_baseline": st.sampled_from(["02.14", "04.00", "05.09", "odd"]),
        "s2:product_uri": st.sampled_from(["S2B_MSIL2A_20230813T095559_N0509_R122_T33TWL.SAFE", "S2B_N0214_x", "no"]),
        "earthsearch:boa_offset_applied": st.booleans(),
        "grid:code": st.sampled_from(["MGRS-33TWL", "MGRS-5TWL", "WRS-1"]),
        "s2:mgrs_tile": st.just("T33TWL"),
        "eo:cloud_cover": st.floats(0, 100),
        "sat:orbit_state": st.sampled_from(["Ascending", "descending"]),
        "sar:product_type": st.just("GRD"),
        "proj:epsg": st.sampled_from([32633, 4326]),
        "proj:shape": st.just([10, 10]),
        "updated": st.sampled_from(["2023-08-13T10:08:07Z", "2024-08-13T10:08:07Z"]),
    },
)  # fmt: skip


@st.composite
def listings(draw: st.DrawFn) -> list[Json]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        one = item()
        keys = draw(st.lists(st.sampled_from(["B04", "red", "scl", "SCL", "vv", "VV", "map"]), unique=True))
        found.append(
            one
            | {
                "id": draw(st.sampled_from([f"S2B_33TWL_20230813_{number}_L2A", f"plain-{number}", "same"])),
                "properties": draw(_PROPERTIES),
                "collection": draw(st.sampled_from(["sentinel-2-l2a", "sentinel-1-rtc"])),
                "geometry": {"type": "Point", "coordinates": [15.0, 45.5]},
                "assets": {key: {"title": "t"} | draw(_FILE) for key in ["other", *keys]},
            }
        )
    return found


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listings(), st.sampled_from(sorted(SENSORS)))
def test_anything_that_a_table_can_hold(tmp_path: Path, items: list[Json], name: str) -> None:
    path = written(items, tmp_path / "items.parquet")
    assert_same(path, SENSORS[name], tmp_path, items_in(path))


def test_a_bad_address_is_of_its_own_row_only(tmp_path: Path) -> None:
    hrefs = [
        "ftp://h/a/B04.tif",
        "B04.tif",
        "../" * 60,
        "https://h/a/B04.tif",
        "",
        "//u:SECRET@h/B04.tif",
        "https://h/a/\n.tif",
    ]
    items = []
    for number, href in enumerate(hrefs):
        one = item() | {"id": f"plain-{number}", "geometry": {"type": "Point", "coordinates": [15.0, 45.5]}}
        one["properties"] |= {"datetime": f"2023-08-{number + 1:02d}T10:00:00Z"}
        one["assets"]["red"]["href"] = href
        items.append(one)
    path = written(items, tmp_path / "items.parquet")
    assert assert_same(path, SENSORS["s2 declared"], tmp_path, items) == len(hrefs)
    table, _ = scenes_of_geoparquet(query_of(path), "name", SENSORS["s2 declared"], QUICK)
    assert [refusal is None for refusal in table.refusal] == [False, True, False, True, False, False, False]


def test_times_that_nobody_can_tell(tmp_path: Path) -> None:
    """A column of microseconds reaches further than the calendar."""
    one = item() | {"geometry": {"type": "Point", "coordinates": [15.0, 45.5]}}
    path = written([one], tmp_path / "items.parquet")
    table = pq.read_table(path)
    at = table.column_names.index("datetime")
    moment = pa.array([2**62], pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(at, "datetime", moment), path)
    with pytest.raises(CatalogError, match=r"item S2B_33TWL_20230813_0_L2A of .* has no usable time"):
        scenes_of_geoparquet(query_of(path), "name", SENSORS["s2"], QUICK)
    coherence = sensor("coherence", assets={"x": "red"})  # counts by its interval, and looks at whole items
    both = pq.read_table(path).append_column("start_datetime", pa.array([0], moment.type))
    pq.write_table(both.append_column("end_datetime", pa.array([0], moment.type)), path)
    with pytest.raises(CatalogError, match=r"items\.parquet is not stac-geoparquet \(date value out of range\)"):
        scenes_of_geoparquet(query_of(path), "name", coherence, QUICK)


@pytest.mark.parametrize("name", sorted(SENSORS))
def test_ids_that_occur_twice_at_one_time_keep_one_order(tmp_path: Path, name: str) -> None:
    ground = {"type": "Point", "coordinates": [15.0, 45.5]}
    first = item() | {"id": "same", "geometry": ground, "assets": {"other": {"title": "t"}}}
    first["properties"] = {"datetime": "2023-08-14T10:00:00Z", "platform": "Sentinel-2A"}
    other = first | {"collection": "sentinel-1-rtc", "properties": {"datetime": "2023-08-14T10:00:00Z"}}
    before = first | {"id": "before", "properties": {"datetime": "2023-08-13T10:00:00Z", "platform": "Sentinel-2A"}}
    path = written([before, first, other], tmp_path / "items.parquet")
    assert assert_same(path, SENSORS[name], tmp_path, items_in(path)) == 3
