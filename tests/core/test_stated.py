"""What items state, and what of it can be meant."""

from typing import Any

import pytest

from eo_batch.core import stated

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "number", "whole"),
    [
        (3, 3.0, 3), (3.0, 3.0, 3), (1.5, 1.5, None), (1e300, 1e300, None), (2**31, 2.0**31, None), (10**400, None,
        None),
        (NAN, None, None), (INF, None, None), (True, None, None), ("3", None, None), (None, None, None), ([3], None,
        None),
    ],
)  # fmt: skip
def test_numbers(value: Any, number: float | None, whole: int | None) -> None:
    assert stated.number(value) == number
    assert stated.whole(value) == whole


@pytest.mark.parametrize("value", ["", " ", "a\nb", "\x1b[31m", "\ud800", "x" * 1001, None, 5, ["a"]])
def test_what_can_name_nothing(value: Any) -> None:
    with pytest.raises(ValueError, match="its id is no text of one line"):
        stated.name(value, "id")


@pytest.mark.parametrize("value", ["yesterday", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", True, None])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^'.+' is no time$"):
        stated.parse_time(value)


@pytest.mark.parametrize(
    "value",
    [None, [], "abcd", [1, 2, 3], ["1", "2", "3", "4"], [True] * 4, [NAN] * 4, [10**400, 0, 1, 1], [0, 1, 1, 0], [0,
    92, 1, 95],
     [-INF, -90, INF, 90], {"a": 1, "b": 2, "c": 3, "d": 4}],
)  # fmt: skip
def test_what_is_no_box(value: Any) -> None:
    with pytest.raises(ValueError, match="its bbox"):
        stated.box(value)


@pytest.mark.parametrize(
    ("fields", "epsg"),
    [
        ({"proj:code": "epsg:32633"}, 32633), ({"proj:code": "EPSG:²", "proj:epsg": 4326}, 4326),
        ({"proj:epsg": 3857}, 3857),
        ({"proj:code": "EPSG:999999"}, None), ({"proj:code": "EPSG:4978"}, None), ({"proj:code": "EPSG:5773"}, None),
        ({"proj:epsg": 10**12}, None), ({"proj:epsg": NAN}, None), ({"proj:epsg": 32632.5}, None),
        ({"proj:epsg": -1}, None),
    ],
)  # fmt: skip
def test_only_codes_of_maps_count(fields: dict[str, Any], epsg: int | None) -> None:
    """Neither unknown codes, nor geocentric or vertical systems, in which no raster lies."""
    assert stated.epsg(fields) == epsg


@pytest.mark.parametrize(
    "value",
    [[0] * 6, [1, 1, 0, 1, 1, 0], [NAN] * 6, [10, 0, INF, 0, -10, 0], [10, 0, 1e300, 0, -10, 0], ["10"] * 6,
    "123456", [10, 0, 5],
     [10, 0, 10**400, 0, -10, 0], None],
)  # fmt: skip
def test_what_is_no_georeference(value: Any) -> None:
    assert stated.affine(value) is None
    assert stated.affine([10, 0, 5e5, 0, -10, 5e6, 0, 0, 1]) == (10, 0, 5e5, 0, -10, 5e6)


@pytest.mark.parametrize(
    "value", [[0, 5], [-1, 5], [5], "12", ["a", "b"], [NAN, 1], [2**40, 1], [1.5, 2], {"a": 1, "b": 2}]
)
def test_what_is_no_shape(value: Any) -> None:
    assert stated.shape(value) is None
    assert stated.shape([5, 6.0]) == (5, 6)


@pytest.mark.parametrize(
    ("band", "what"),
    [
        ({"scale": 0}, "scale 0"), ({"scale": "one"}, "scale 'one'"), ({"scale": INF}, "scale inf"),
        ({"offset": NAN}, "offset nan"),
        ({"offset": True}, "offset True"), ({"nodata": "none"}, "nodata 'none'"), ({"nodata": [0]}, r"nodata \[0\]"),
        ({"nodata": False}, "nodata False"), ({"offset": ["x" * 99]}, "…"), ("band", "no list of objects"),
    ],
)  # fmt: skip
def test_numbers_that_would_be_misread_are_refused(band: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        stated.encoding({"raster:bands": [band]})


def test_encodings_of_both_versions() -> None:
    assert stated.encoding({"raster:bands": [{"scale": 2, "offset": None, "nodata": "-9999"}]}) == {
        "scale": 2,
        "nodata": -9999.0,
    }
    assert stated.encoding({"bands": [{"raster:scale": 2}], "nodata": 0, "unit": "dB"}) == {
        "scale": 2, "nodata": 0.0, "unit": "dB",
    }  # fmt: skip
    assert stated.encoding({"raster:bands": []}) == {}
