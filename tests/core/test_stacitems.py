"""Items to scenes: the rules on hand-made items, so that they run anywhere."""

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eo_batch.core.errors import CatalogError
from eo_batch.core.plan import asset_bounds
from eo_batch.core.scenes import Asset, Scene
from eo_batch.core.stacitems import absolute_href, scene_of_item
from eo_batch.io.scenetable import scene_table, without_duplicates
from tests.core.samples import TILE_33TWL, Json, asset, item, scene, sensor

BASE = "s3://bucket/catalog/items.json"


def made(document: Json, kind: str = "s2-l2a", **fields: Any) -> Scene:
    return scene_of_item(document, "name", sensor(kind, **fields), BASE)


def resolved(scenes: Iterable[Scene]) -> list[Scene]:
    return without_duplicates(scene_table(scenes)).scenes()


def only(found: Scene, band: str) -> Asset:
    result = found.asset(band)
    assert result is not None
    return result


class TestSentinel2:
    def test_everything_that_later_steps_use(self) -> None:
        found = made(item())
        assert found.refusal is None
        assert not found.ambiguous
        assert (found.scene_id, found.sensor, found.collection) == (
            "S2B_33TWL_20230813_0_L2A",
            "name",
            "sentinel-2-l2a",
        )
        assert found.moment == datetime(2023, 8, 13, 10, 8, 7, 856000, tzinfo=UTC)
        assert (found.tile, found.platform, found.baseline) == ("MGRS-33TWL", "sentinel-2b", "05.09")
        assert found.cloud_pct == 1.7
        red, scl = found.assets
        assert (red.band, red.epsg, red.transform, red.shape) == ("B04", 32633, TILE_33TWL, (10980, 10980))
        assert (red.nodata, red.scale, red.offset_dn, red.db) == (0.0, 0.0001, 0.0, False)
        assert "already applied" in red.offset_reason
        assert (scl.band, scl.transform, scl.shape) == ("SCL", (20, 0, 499980, 0, -20, 5100000), (5490, 5490))
        assert (scl.scale, scl.offset_dn, scl.offset_reason) == (1.0, 0.0, "")

    def test_offsets_are_decided_per_file_of_a_mixed_item(self) -> None:
        document = item()
        esa = dict(document["assets"]["red"], href="s3://sentinel-s2-l2a/tiles/33/T/WL/2023/8/13/0/B08.jp2")
        document["assets"]["nir"] = esa
        found = made(document, bands=("B04", "B08"))
        assert found.refusal is None
        assert [a.offset_dn for a in found.assets] == [0.0, -1000.0, 0.0]

    def test_a_file_that_nobody_can_classify_is_refused_with_a_remedy(self) -> None:
        document = item(**{"earthsearch:boa_offset_applied": None})
        found = made(document)
        assert found.ambiguous
        assert found.refusal is not None
        assert "B04: whether the radiometric offset is in the file can't be told" in found.refusal
        assert "declare sensors.*.offset_dn" in found.refusal
        declared = made(document, offset_dn=-1000)
        assert (declared.refusal, declared.ambiguous) == (None, False)
        assert only(declared, "B04").offset_dn == -1000
        assert "declared by the spec" in only(declared, "B04").offset_reason

    def test_declared_offsets_leave_the_classification_alone(self) -> None:
        assert only(made(item(), offset_dn=-1000), "SCL").offset_dn == 0

    def test_band_offsets_in_the_words_of_stac_1_1(self) -> None:
        """c1's check reads `raster:offset` of STAC 1.1's `bands` as it reads 1.0's `raster:bands`."""
        for stated, refused in ((-0.1, False), (0, True)):
            document = item()
            red = document["assets"]["red"]
            del red["raster:bands"]
            red["href"] = "s3://e84-earth-search-sentinel-data/B04.tif"
            red["bands"] = [{"name": "red", "raster:scale": 0.0001, "raster:offset": stated}]
            assert made(document).ambiguous == refused

    def test_missing_assets_are_named(self) -> None:
        found = made(item(), bands=("B04", "B05"))
        assert found.refusal == "no asset for B05 (looked for B05, rededge1)"
        assert not found.ambiguous
        without = item()
        del without["assets"]["scl"]
        assert made(without).refusal == "no asset for SCL (looked for SCL, scl)"

    def test_asset_keys_of_the_spec_come_first(self) -> None:
        document = item()
        document["assets"]["red-jp2"] = dict(document["assets"]["red"], href="s3://sentinel-s2-l2a/B04.jp2")
        assert only(made(document, assets={"B04": "red-jp2"}), "B04").href == "s3://sentinel-s2-l2a/B04.jp2"

    def test_items_that_pystac_has_read(self) -> None:
        """pystac moves `proj:epsg` to `proj:code` and raises extension versions; the scene stays the same."""
        document = item()
        document["geometry"] = {"type": "Point", "coordinates": [15, 45.5]}
        for one in document["assets"].values():
            one["type"] = "image/tiff"
        document["stac_extensions"] = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
        through = pystac.Item.from_dict(json.loads(json.dumps(document))).to_dict()
        assert "proj:epsg" not in through["properties"]
        assert through["properties"]["proj:code"] == "EPSG:32633"
        assert made(through) == made(document)

    @pytest.mark.parametrize(
        ("properties", "tile"),
        [
            ({"grid:code": "MGRS-33TWL"}, "MGRS-33TWL"),
            ({"grid:code": None, "s2:mgrs_tile": "33TWL"}, "MGRS-33TWL"),
            (
                {"grid:code": None, "mgrs:utm_zone": 33, "mgrs:latitude_band": "T", "mgrs:grid_square": "WL"},
                "MGRS-33TWL",
            ),
            (
                {
                    "grid:code": None,
                    "sentinel:utm_zone": 5,
                    "sentinel:latitude_band": "Q",
                    "sentinel:grid_square": "KB",
                },
                "MGRS-05QKB",
            ),
            ({"grid:code": "MGRS-5QKB"}, "MGRS-05QKB"),
            ({"grid:code": "ESAWORLDCOVER-N00E006"}, "ESAWORLDCOVER-N00E006"),
            ({"grid:code": None}, "MGRS-33TWL"),  # from the id
        ],
    )
    def test_tiles(self, properties: Json, tile: str) -> None:
        assert made(item(**properties)).tile == tile

    @pytest.mark.parametrize(
        ("item_id", "tile"),
        [
            ("S2A_MSIL2A_20200714T115221_N0214_R123_T28QCH_20200714T151000", "MGRS-28QCH"),
            ("S2B_MSIL2A_20190629T212529_R043_T06VVN", "MGRS-06VVN"),
            ("S2A_6VVN_20200714_0_L2A", "MGRS-06VVN"),
            ("anything_2020", "anything_2020"),
        ],
    )
    def test_tiles_from_ids(self, item_id: str, tile: str) -> None:
        assert made(item(**{"grid:code": None}) | {"id": item_id}).tile == tile


class TestGeoreference:
    def test_the_asset_wins_over_the_item_and_nine_numbers_are_six(self) -> None:
        document = item(**{"proj:transform": [60, 0, 0, 0, -60, 0], "proj:shape": [1, 1], "proj:epsg": 4326})
        red = document["assets"]["red"]
        red["proj:transform"] = [*TILE_33TWL, 0, 0, 1]
        red["proj:code"] = "EPSG:32633"
        found = only(made(document), "B04")
        assert (found.epsg, found.transform, found.shape) == (32633, TILE_33TWL, (10980, 10980))

    def test_what_the_item_says_holds_for_its_assets(self) -> None:
        document = item(**{"proj:transform": list(TILE_33TWL), "proj:shape": [10980, 10980]})
        for one in document["assets"].values():
            del one["proj:transform"], one["proj:shape"]
        assert {(a.transform, a.shape) for a in made(document).assets} == {(TILE_33TWL, (10980, 10980))}

    def test_what_nobody_says_is_unknown(self) -> None:
        document = item(**{"proj:epsg": None})
        for one in document["assets"].values():
            del one["proj:transform"], one["proj:shape"]
        assert {(a.epsg, a.transform, a.shape) for a in made(document).assets} == {(None, None, None)}

    @pytest.mark.parametrize("code", ["IAU_2015:30100", "EPSG:", "EPSG:x", None, 32633])
    def test_other_codes_are_no_epsg(self, code: Any) -> None:
        document = item(**{"proj:epsg": None, "proj:code": code})
        assert only(made(document), "B04").epsg is None

    @pytest.mark.parametrize(
        ("bbox", "wanted"),
        [
            ([14.9, 45, 16.4, 46], (14.9, 45, 16.4, 46)),
            ([14.9, 45, 0, 16.4, 46, 4000], (14.9, 45, 16.4, 46)),
            ([178.5, 66, -179, 67], (178.5, 66, -179, 67)),
        ],
    )
    def test_boxes(self, bbox: list[float], wanted: tuple[float, ...]) -> None:
        assert made(item() | {"bbox": bbox}).bbox == wanted


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2023-08-13T10:08:07Z", datetime(2023, 8, 13, 10, 8, 7, tzinfo=UTC)),
            ("2023-08-13T10:08:07.856000Z", datetime(2023, 8, 13, 10, 8, 7, 856000, tzinfo=UTC)),
            ("2023-08-13T12:08:07+02:00", datetime(2023, 8, 13, 10, 8, 7, tzinfo=UTC)),
            ("2023-08-13T10:08:07", datetime(2023, 8, 13, 10, 8, 7, tzinfo=UTC)),
            ("2024-04-19 04:59:16.653405+00:00", datetime(2024, 4, 19, 4, 59, 16, 653405, tzinfo=UTC)),
        ],
    )
    def test_formats(self, text: str, moment: datetime) -> None:
        assert made(item(datetime=text)).moment == moment

    def test_without_a_datetime_the_middle_counts(self) -> None:
        document = item(datetime=None, start_datetime="2021-01-01T00:00:00Z", end_datetime="2021-12-31T23:59:58Z")
        assert made(document).moment == datetime(2021, 7, 2, 11, 59, 59, tzinfo=UTC)

    @pytest.mark.parametrize(
        "change",
        [
            {"datetime": None},
            {"datetime": None, "start_datetime": "2021-01-01T00:00:00Z"},
            {"datetime": None, "start_datetime": "2021-01-01T00:00:00Z", "end_datetime": None},
            {"datetime": "yesterday"},
        ],
    )
    def test_no_time_is_no_item(self, change: Json) -> None:
        with pytest.raises(CatalogError, match=r"S2B_33TWL_20230813_0_L2A of s3://bucket/catalog/items\.json is not"):
            made(item(**change))

    @pytest.mark.parametrize("field", ["id", "properties", "assets", "bbox"])
    def test_items_without_their_fields_are_refused(self, field: str) -> None:
        document = item()
        del document[field]
        with pytest.raises(CatalogError, match="is not a usable STAC item"):
            made(document)


def s1_item(unit: str | None = None, **changes: Any) -> Json:
    document = item(**{"sat:orbit_state": "ascending", "sat:relative_orbit": 88, "sar:product_type": "GRD"} | changes)
    band = {"nodata": -32768, "data_type": "float32"} | ({} if unit is None else {"unit": unit})
    document["assets"] = {
        key: {"href": f"./{key}.tif", "raster:bands": [dict(band)], "proj:shape": [2, 2], "proj:transform": TILE_33TWL}
        for key in ("vv", "vh")
    }
    document["collection"] = "sentinel-1-grd"
    return document


class TestAddresses:
    @pytest.mark.parametrize(
        ("href", "why"),
        [
            ("ftp://host/B04.tif", "files at ftp:// can't be read"),
            ("../" * 60 + "etc/passwd", "its address is none"),
            ("http://[::1/B04.tif", "its address is none"),
            ("//user:SECRET@host/B04.tif", "a host and no scheme"),
            ("https:///B04.tif", "no host or bucket"),
            ("a\nb.tif", "no text of one line"),
            (5, "no text of one line"),
        ],
    )
    def test_files_that_nobody_can_read_are_refused(self, href: Any, why: str) -> None:
        document = item()
        document["assets"]["red"]["href"] = href
        refusal = made(document).refusal
        assert refusal is not None
        assert refusal.startswith("B04: ")
        assert why in refusal
        assert "SECRET" not in refusal

    def test_errors_hide_the_secrets_of_a_catalogue(self) -> None:
        with pytest.raises(CatalogError) as told:
            scene_of_item(item() | {"bbox": None}, "s2", sensor(), "https://me:SECRET@host/items.json?sig=SECRET")
        assert "SECRET" not in str(told.value)
        assert "https://host/items.json" in str(told.value)


@pytest.mark.parametrize("kind", ["s1", "dem", "continuous"])
def test_scale_and_offset_that_an_item_states_count(kind: str) -> None:
    """value = stored * scale + offset = (stored + offset / scale) * scale."""
    document = item() | {"collection": "some-rtc"}
    asset = {"href": "a.tif", "raster:bands": [{"scale": 0.5, "offset": -10}]}
    document["assets"] = {"VV": asset, "dem": asset}
    fields: Json = {"s1": {"bands": ("VV",)}, "continuous": {"assets": {"x": "dem"}}}.get(kind, {})
    (found,) = scene_of_item(document, "name", sensor(kind, **fields), "s3://b/items.json").assets
    assert (found.scale, found.offset_dn) == (0.5, -20)


class TestSentinel1:
    def test_rtc_is_linear_power(self) -> None:
        found = made(s1_item() | {"collection": "sentinel-1-rtc"}, "s1")
        assert found.refusal is None
        assert (found.orbit_state, found.relative_orbit, found.baseline) == ("ascending", 88, None)
        assert [(a.band, a.db, a.scale, a.nodata) for a in found.assets] == [
            ("VV", False, 1.0, -32768),
            ("VH", False, 1.0, -32768),
        ]

    def test_stated_decibels_are_decibels(self) -> None:
        document = s1_item("dB")
        for one in document["assets"].values():
            one["raster:bands"][0]["scale"] = 0.0001
        found = made(document, "s1")
        assert found.refusal is None
        assert [(a.db, a.scale) for a in found.assets] == [(True, 0.0001)] * 2

    def test_what_nobody_says_is_refused_until_the_spec_declares_it(self) -> None:
        found = made(s1_item(), "s1")
        assert found.ambiguous
        assert found.refusal is not None
        assert "declare sensors.*.values" in found.refusal
        for values in ("db", "linear"):
            declared = made(s1_item(), "s1", values=values)
            assert declared.refusal is None
            assert {a.db for a in declared.assets} == {values == "db"}

    def test_the_spec_wins_over_the_item(self) -> None:
        assert {a.db for a in made(s1_item("dB"), "s1", values="linear").assets} == {False}

    @pytest.mark.parametrize("values", [None, "db"])
    def test_ground_range_is_refused_even_if_declared(self, values: str | None) -> None:
        found = made(s1_item("dB", **{"proj:epsg": None}), "s1", values=values)
        assert found.refusal is not None
        assert "not map-projected (ground range)" in found.refusal
        assert not found.ambiguous


class TestOthers:
    def test_continuous_scale_and_offset(self) -> None:
        document = item()
        document["assets"] = {"t": {"href": "t.tif", "raster:bands": [{"scale": 0.5, "offset": -20, "nodata": "nan"}]}}
        (found,) = made(document, "continuous", assets={"temperature": "t"}).assets
        assert (10 + found.offset_dn) * found.scale == 10 * 0.5 - 20
        assert found.nodata is not None
        assert math.isnan(found.nodata)

    def test_continuous_in_the_words_of_stac_1_1(self) -> None:
        for encoding in (
            {"bands": [{"raster:scale": 0.5, "raster:offset": -20, "nodata": -1}]},
            {"raster:scale": 0.5, "raster:offset": -20, "nodata": -1},
            {"raster:scale": 9, "nodata": -9, "bands": [{"raster:scale": 0.5, "raster:offset": -20, "nodata": -1}]},
        ):
            document = item() | {"assets": {"t": {"href": "t.tif", **encoding}}}
            (found,) = made(document, "continuous", assets={"temperature": "t"}).assets
            assert (found.scale, found.offset_dn, found.nodata) == (0.5, -40, -1)

    def test_elevation_under_any_usual_key(self) -> None:
        for key in ("elevation", "dem", "data"):
            document = item() | {"assets": {key: {"href": "./a.tif"}}}
            (found,) = made(document, "dem").assets
            assert (found.band, found.href) == ("elevation", "s3://bucket/catalog/a.tif")


@pytest.mark.parametrize(
    ("href", "base", "wanted"),
    [
        ("./a/B04.tif", "s3://bucket/c/items.json", "s3://bucket/c/a/B04.tif"),
        ("B04.tif", "s3://bucket/items.json", "s3://bucket/B04.tif"),
        ("../B04.tif", "s3://bucket/c/i/item.json", "s3://bucket/c/B04.tif"),
        ("./a/../B04.tif", "file:///data/c/items.json", "file:///data/c/B04.tif"),
        ("../../B04.tif", "/data/c/i/item.json", "/data/B04.tif"),
        ("B04.tif", "/items.json", "/B04.tif"),
        ("B04.tif", "items.json", "B04.tif"),
        ("a/B04.tif", "c/items.json", "c/a/B04.tif"),
        ("../B04.tif", "https://host/c/i/item.json", "https://host/c/B04.tif"),
        ("./B04.tif", "https://host/c/item.json?token=secret", "https://host/c/B04.tif"),
        ("/data/B04.tif", "https://host/c/item.json", "https://host/data/B04.tif"),
        ("//other/B04.tif", "https://host/c/item.json", "https://other/B04.tif"),
        ("/data/B04.tif", "file:///c/items.json", "/data/B04.tif"),
        ("/data/B04.tif", "s3://bucket/items.json", "/data/B04.tif"),
        ("s3://other/B04.tif", "https://host/c/item.json", "s3://other/B04.tif"),
        ("https://host/B04.tif", "/data/items.json", "https://host/B04.tif"),
    ],
)
def test_relative_addresses(href: str, base: str, wanted: str) -> None:
    assert absolute_href(href, base) == wanted


class TestDuplicates:
    def test_the_newest_baseline_wins_and_keeps_the_other_as_its_spare(self) -> None:
        old = scene("old", baseline="02.14", assets=(asset(href="s3://b/old.tif"),))
        new = scene("new", baseline="05.00", assets=(asset(href="s3://b/new.tif"),))
        for order in ([old, new], [new, old]):
            (kept,) = resolved(order)
            assert (kept.scene_id, kept.spare_id, kept.spare) == ("new", "old", old.assets)
            spare = kept.spare_asset("B04")
            assert spare is not None
            assert spare.href == "s3://b/old.tif"

    def test_of_three_the_second_newest_is_the_spare(self) -> None:
        (kept,) = resolved([scene(b, baseline=b) for b in ("02.14", "05.09", "04.00")])
        assert (kept.baseline, kept.spare_id) == ("05.09", "04.00")

    def test_usable_ones_win_over_refused_ones_which_are_no_spares(self) -> None:
        refused = scene("new", baseline="05.00", refusal="no asset for B08")
        (kept,) = resolved([refused, scene("old", baseline="02.14")])
        assert (kept.scene_id, kept.spare_id) == ("old", None)
        (kept,) = resolved([refused, scene("old", baseline="02.14", refusal="no asset for B04")])
        assert (kept.scene_id, kept.spare_id) == ("new", None)

    @given(st.integers(0, 999_999), st.integers(0, 999_999))
    def test_times_that_publishers_round_differently_are_one_sensing(self, first_us: int, later_us: int) -> None:
        moment = datetime(2023, 7, 1, 10, 0, 0, first_us)
        pair = [
            scene("a", moment.isoformat(), baseline="02.14"),
            scene("b", (moment + timedelta(microseconds=later_us)).isoformat(), baseline="05.00"),
        ]
        assert [s.scene_id for s in resolved(pair)] == ["b"]

    @pytest.mark.parametrize(
        "other",
        [
            {"tile": "MGRS-33TWM"},
            {"platform": "sentinel-2b"},
            {"sensor": "other"},
            {"moment": "2023-07-01T10:00:14"},
            {"moment": "2023-07-02T10:00:00"},
        ],
    )
    def test_other_tiles_platforms_sensors_and_times_are_others(self, other: Json) -> None:
        assert len(resolved([scene("a"), scene("b", **other)])) == 2

    def test_one_scene_listed_twice_is_one(self) -> None:
        (kept,) = resolved([scene("a"), scene("a")])
        assert (kept.scene_id, kept.spare_id) == ("a", None)

    def test_without_baselines_nothing_is_left_out(self) -> None:
        pair = [scene("a", baseline=None), scene("b", baseline=None)]
        assert [(s.scene_id, s.spare_id) for s in resolved(pair)] == [("a", None), ("b", None)]

    @given(
        st.permutations([("a", "02.14", 0), ("b", "05.00", 0), ("c", "05.00", 5), ("d", "04.00", 5), ("e", None, 9)])
    )
    def test_the_order_of_a_catalogue_does_not_matter(self, order: list[tuple[str, str | None, int]]) -> None:
        found = resolved(
            scene(name, f"2023-07-{1 + day:02d}T10:00:00", baseline=baseline) for name, baseline, day in order
        )
        assert [(s.scene_id, s.spare_id) for s in found] == [("b", "a"), ("c", "d"), ("e", None)]


@pytest.mark.parametrize(
    ("bbox", "bounds"),
    [
        ((-180, -90, 180, 90), (-180, -90, 180, 90)),
        ((178.5, -20, -179, -10), (178.5, -20, 181, -10)),
        ((10, 40, 11, 41), (10, 40, 11, 41)),
    ],
)
def test_vectors_speak_of_their_items_box(bbox: tuple[float, ...], bounds: tuple[float, ...]) -> None:
    document = item() | {"bbox": list(bbox), "assets": {"map": {"href": "map.parquet"}}}
    found = made(document, "points", assets={"n": "map"})
    assert asset_bounds(only(found, "n")) == bounds
