"""Areas: what is taken, and what is refused with which words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box, mapping

from eo_batch.core.area import area_from_bbox, area_from_geojson
from eo_batch.core.errors import AreaError, UsageError

SQUARE = [[10, 45], [11, 45], [11, 46], [10, 46], [10, 45]]


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


@pytest.mark.parametrize(
    ("bbox", "words"),
    [
        ([10, 46, 11, 45], ["area.bbox=[10, 46, 11, 45] is empty", "south < north"]),
        ([10, 45, 10, 46], ["is empty", "west different from east"]),
        ([10, 45, 11, 45], ["is empty", "south < north"]),
        ([180, 45, -180, 46], ["area.bbox is empty", "give a polygon with an area"]),
        ([-190, 45, -170, 46], ["outside longitude ±180", "west > east"]),
        ([170, 45, 190, 46], ["outside longitude ±180", "west > east"]),
        ([10, -91, 11, 46], ["outside longitude ±180 or latitude ±90"]),
        ([10, float("nan"), 11, 46], ["area.bbox=[10, nan, 11, 46] is outside"]),
        ([10, float("-inf"), 11, 46], ["is outside"]),
        ([10, 45, 11, 84.5], ["reaches latitude 45 to 84.5", "cut it there"]),
        ([10, -85, 11, -79], ["reaches latitude -85 to -79", "cut it there"]),
        ([10, 45, 11], ["has 3 numbers", "[west, south, east, north]"]),
        ([10, 45, 0, 11, 46, 100], ["has 6 numbers", "[west, south, east, north]"]),
    ],
)
def test_wrong_boxes_are_refused(bbox: list[float], words: list[str]) -> None:
    with pytest.raises(AreaError) as caught:
        area_from_bbox(bbox)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # shapely, over the NaN below
@pytest.mark.parametrize(
    ("geojson", "words"),
    [
        ({"type": "Point", "coordinates": [10, 45]}, ["holds a Point", "only polygons"]),
        ({"type": "LineString", "coordinates": SQUARE}, ["holds a LineString", "only polygons"]),
        ({"type": "GeometryCollection", "geometries": []}, ["holds a GeometryCollection", "only polygons"]),
        (polygon([[10, 45], [11, 46], [11, 45], [10, 46], [10, 45]]), ["not a valid polygon", "Self-intersection"]),
        (polygon([[10, 45], [11, 46]]), ["is not GeoJSON", "give a Polygon"]),
        (polygon([[10, 45], [11, 45], [10, 45], [10, 45]]), ["not a valid polygon"]),
        (polygon([[10, 45], [float("nan"), 45], [11, 46], [10, 45]]), ["not a valid polygon"]),
        ({"type": "Polygon", "coordinates": []}, ["is empty", "give a polygon with an area"]),
        ({"type": "FeatureCollection", "features": []}, ["is empty", "give a polygon with an area"]),
        ({"type": "Feature", "geometry": None, "properties": {}}, ["is not GeoJSON"]),
        ({"type": "Feature", "properties": {}}, ["is not GeoJSON", "geometry"]),
        ({"type": "Sphere"}, ["is not GeoJSON"]),
        ({}, ["is not GeoJSON", "type"]),
        ({"type": "Polygon"}, ["is not GeoJSON", "coordinates"]),
        ({"type": "Polygon", "coordinates": "here"}, ["is not GeoJSON"]),
        ({"type": "Polygon", "coordinates": [10, 45]}, ["is not GeoJSON"]),
        ({"type": "MultiPolygon", "coordinates": [[[10, 45], [11, 45], [11, 46]]]}, ["is not GeoJSON"]),
        ("[1, 2]", ["is not GeoJSON"]),
        ("{", ["is not GeoJSON"]),
        (polygon([[179, 45], [-179, 45], [-179, 46], [179, 46], [179, 45]]), ["antimeridian", "cut it there", "west"]),
        (polygon([[179, 45], [181, 45], [181, 46], [179, 46], [179, 45]]), ["longitudes 179 to 181", "cut it there"]),
        (polygon([[-181, 45], [-179, 45], [-179, 46], [-181, 45]]), ["longitudes -181 to -179", "cut it there"]),
        (polygon([[10, 83], [11, 83], [11, 88], [10, 83]]), ["reaches latitude 83 to 88", "cut it there"]),
        (polygon([[10, 45], [11, 45], [11, 146], [10, 45]]), ["reaches latitude 45 to 146"]),
    ],
)
def test_wrong_geojson_is_refused(geojson: Any, words: list[str]) -> None:
    with pytest.raises(AreaError) as caught:
        area_from_geojson(geojson)
    assert str(caught.value).startswith("area.geojson")
    for word in words:
        assert word in str(caught.value)


def test_a_wrong_area_is_the_users_mistake() -> None:
    assert issubclass(AreaError, UsageError)
    assert AreaError.exit_code == 2


@given(st.floats(-179, 178), st.floats(-80, 83), st.floats(0.001, 1), st.floats(0.001, 1))
def test_boxes_and_polygons_agree(west: float, south: float, width: float, height: float) -> None:
    bounds = (west, south, west + width, south + height)
    area = area_from_bbox(bounds)
    assert area.bounds == bounds
    geometry = mapping(box(*bounds))
    feature = {"type": "Feature", "geometry": geometry, "properties": {}}
    collection = {"type": "FeatureCollection", "features": [feature, feature]}
    for document in (geometry, feature, collection, json.dumps(feature)):
        assert area_from_geojson(document).equals(area)


def test_west_over_east_is_two_boxes_at_the_antimeridian() -> None:
    area = area_from_bbox([178, 10, -179, 12])
    assert area.equals(box(178, 10, 180, 12).union(box(-180, 10, -179, 12)))
    assert area_from_bbox([178, 10, -180, 12]).bounds == (178, 10, 180, 12)
    assert area_from_bbox([180, 10, -179, 12]).bounds == (-180, 10, -179, 12)


def test_a_polygon_cut_at_the_antimeridian_is_taken() -> None:
    parts = [mapping(box(179, 10, 180, 12)), mapping(box(-180, 10, -179, 12))]
    cut = {"type": "MultiPolygon", "coordinates": [part["coordinates"] for part in parts]}
    assert area_from_geojson(cut).equals(area_from_bbox([179, 10, -179, 12]))


def test_overlapping_parts_count_once_and_holes_stay() -> None:
    hole = [[10.2, 45.2], [10.2, 45.4], [10.4, 45.4], [10.4, 45.2], [10.2, 45.2]]
    features = [
        {"type": "Feature", "geometry": polygon(SQUARE, hole), "properties": {}},
        {"type": "Feature", "geometry": mapping(box(10.5, 45, 12, 46)), "properties": {}},
    ]
    area = area_from_geojson({"type": "FeatureCollection", "features": features})
    assert area.area == pytest.approx(2 - 0.04)
