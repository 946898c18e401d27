"""Which offset is left in a Sentinel-2 file: the table of `core/radiometry.py`, row by row."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eo_batch.core.radiometry import baseline_of, bucket_of, s2_offset

COGS = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/33/T/WN/2022/2/S2B/B04.tif"
C1 = "s3://e84-earth-search-sentinel-data/sentinel-2-c1-l2a/13/T/DE/2024/4/S2A/B04.tif"
AFRICA = "s3://deafrica-sentinel-2-l2a-c1-dev/sentinel-2-c1-l2a/37/M/GP/2024/7/S2B/B04.tif"
ESA = "s3://sentinel-s2-l2a/tiles/33/T/WN/2022/2/26/0/R10m/B04.jp2"
PC = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/13/T/DE/2024/08/24/B04_10m.tif"
LOCAL = "/data/mirror/B04.tif"

V0, V1 = "sentinel:boa_offset_applied", "earthsearch:boa_offset_applied"
MINUS = [{"scale": 0.0001, "offset": -0.1}]
NONE = [{"scale": 0.0001, "offset": 0}]

BASELINE = "s2:processing_baseline"


@pytest.mark.parametrize(
    ("href", "properties", "raster", "offset", "reason"),
    [
        # Element 84's own copies: the flag decides.
        (COGS, {BASELINE: "05.09", V1: True}, MINUS, 0.0, "already applied"),
        (COGS, {BASELINE: "04.00", V1: True}, MINUS, 0.0, "already applied"),
        (COGS, {BASELINE: "04.00", V1: False}, MINUS, -1000.0, "not applied, baseline 04.00 carries"),
        (COGS, {BASELINE: "02.14", V1: False}, NONE, 0.0, "baseline 02.14 is before 04.00"),
        (COGS, {"sentinel:processing_baseline": "04.00", V0: True}, None, 0.0, "already applied"),
        (COGS, {"sentinel:processing_baseline": "04.00", V0: False}, None, -1000.0, "not applied"),
        (COGS, {"sentinel:processing_baseline": "03.01"}, None, 0.0, "before 04.00"),
        (COGS, {BASELINE: "04.00"}, MINUS, None, "no flag tells"),
        (COGS, {V1: False}, MINUS, None, "the processing baseline is unknown"),
        (COGS, {}, None, None, "no flag tells"),
        # c1 keeps ESA's numbers, and says so in raster:bands.
        (C1, {BASELINE: "05.10"}, MINUS, -1000.0, "keeps ESA's numbers: baseline 05.10"),
        (AFRICA, {BASELINE: "05.10"}, MINUS, -1000.0, "keeps ESA's numbers"),
        (C1, {BASELINE: "05.00"}, None, -1000.0, "keeps ESA's numbers"),
        (C1, {BASELINE: "05.10"}, NONE, None, "states offset 0 DN, but baseline 05.10 carries"),
        (C1, {BASELINE: "02.14"}, MINUS, None, "states offset -1000 DN, but baseline 02.14"),
        (C1, {}, MINUS, None, "the processing baseline is unknown"),
        # ESA's bucket within an item that speaks of another bucket: the flag does not count.
        (ESA, {BASELINE: "05.09", V1: True}, MINUS, -1000.0, "bucket sentinel-s2-l2a keeps ESA's numbers"),
        (ESA, {BASELINE: "02.14", V1: False}, NONE, 0.0, "before 04.00"),
        (ESA, {}, MINUS, None, "the processing baseline is unknown"),
        # Planetary Computer.
        (PC, {BASELINE: "05.11"}, None, -1000.0, "bucket sentinel2l2a01 keeps ESA's numbers"),
        (PC, {BASELINE: "02.12"}, None, 0.0, "before 04.00"),
        # Anybody else's copies.
        (LOCAL, {BASELINE: "05.09", V1: True}, MINUS, 0.0, "already applied"),
        (LOCAL, {BASELINE: "05.09", V1: False}, MINUS, -1000.0, "not applied"),
        (LOCAL, {BASELINE: "02.14"}, NONE, 0.0, "before 04.00"),
        (LOCAL, {BASELINE: "05.09"}, MINUS, None, "no flag tells"),
        (LOCAL, {}, MINUS, None, "the processing baseline is unknown"),
    ],
)
def test_rules(href: str, properties: dict[str, Any], raster: Any, offset: float | None, reason: str) -> None:
    decision = s2_offset(href, properties, raster, None)
    assert decision.offset_dn == offset
    assert reason in decision.reason


@given(
    st.sampled_from([COGS, C1, ESA, PC, LOCAL]),
    st.sampled_from([{}, {BASELINE: "05.09", V1: True}, {BASELINE: "04.00"}]),
    st.sampled_from([0, -1000, 17]),
)
def test_what_the_spec_declares_wins_and_is_recorded(href: str, properties: dict[str, Any], declared: int) -> None:
    decision = s2_offset(href, properties, MINUS, declared)
    assert decision.offset_dn == declared
    assert decision.reason == f"declared by the spec: offset_dn={declared}"


@given(st.integers(0, 99), st.integers(0, 99))
def test_the_offset_begins_with_04_00(major: int, minor: int) -> None:
    decision = s2_offset(PC, {BASELINE: f"{major:02d}.{minor:02d}"}, None, None)
    assert decision.offset_dn == (-1000 if major >= 4 else 0)


@pytest.mark.parametrize(
    ("properties", "baseline"),
    [
        ({BASELINE: "05.09"}, "05.09"),
        ({"processing:version": "05.11"}, "05.11"),
        ({"processing:version": "1.0"}, None),
        ({"sentinel:processing_baseline": "02.14"}, "02.14"),
        ({"s2:product_uri": "S2B_MSIL2A_20230813T095559_N0509_R122_T33TWL_20230813T130536.SAFE"}, "05.09"),
        ({"s2:granule_id": "S2B_OPER_MSI_L2A_TL_2BPS_20230813T130536_A033610_T33TWL_N05.09"}, "05.09"),
        ({"sentinel:product_id": "S2A_MSIL2A_20200714T115221_N0214_R123_T28QCH_20200714T151000"}, "02.14"),
        ({BASELINE: None, "s2:product_uri": "S2B_MSIL2A_20230813T095559_N0509_R122_T33TWL_20230813T130536"}, "05.09"),
        ({"s2:product_uri": "S2B_MSIL2A_20230813T095559"}, None),
        ({}, None),
    ],
)
def test_baselines(properties: dict[str, Any], baseline: str | None) -> None:
    assert baseline_of(properties) == baseline


@pytest.mark.parametrize(
    ("href", "bucket"),
    [
        ("s3://sentinel-s2-l2a/tiles/1.jp2", "sentinel-s2-l2a"),
        ("https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/b.tif", "sentinel-cogs"),
        ("https://sentinel-cogs.s3.amazonaws.com/a/b.tif?sig=x", "sentinel-cogs"),
        ("https://s3.us-west-2.amazonaws.com/sentinel-cogs/a/b.tif", "sentinel-cogs"),
        ("https://s3-eu-central-1.amazonaws.com/sentinel-s2-l2a/a.jp2", "sentinel-s2-l2a"),
        ("https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/a.tif", "sentinel2l2a01"),
        ("/data/sentinel-cogs/a.tif", ""),
        ("file:///data/a.tif", ""),
    ],
)
def test_buckets(href: str, bucket: str) -> None:
    assert bucket_of(href) == bucket


@pytest.mark.parametrize("flag", ["false", "true", 2, [], {}])
def test_a_flag_that_is_neither_true_nor_false_decides_nothing(flag: object) -> None:
    """The text `false` would count as true, and every reflectance would be wrong by a tenth."""
    properties = {"earthsearch:boa_offset_applied": flag, "s2:processing_baseline": "05.09"}
    decision = s2_offset("https://host/B04.tif", properties, [], None)
    assert decision.offset_dn is None
    assert "neither true nor false" in decision.reason


@pytest.mark.parametrize(("flag", "offset"), [(1.0, 0.0), (True, 0.0), (0.0, -1000.0), (False, -1000.0)])
def test_flags_in_tables_with_gaps_are_numbers(flag: object, offset: float) -> None:
    properties = {"earthsearch:boa_offset_applied": flag, "s2:processing_baseline": "05.09"}
    assert s2_offset("https://host/B04.tif", properties, [], None).offset_dn == offset


@pytest.mark.parametrize(
    "href", ["https://me:SECRET@sentinel-cogs.s3.amazonaws.com/B04.tif", "s3://me:SECRET@sentinel-cogs/B04.tif"]
)
def test_who_is_let_in_is_no_part_of_the_bucket(href: str) -> None:
    assert bucket_of(href) == "sentinel-cogs"
