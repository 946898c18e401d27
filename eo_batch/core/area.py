"""The area of interest: a bounding box or a GeoJSON polygon in longitude and latitude."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, box, shape
from shapely.ops import unary_union
from shapely.validation import explain_validity

from eo_batch.core.errors import AreaError

UTM_LAT_MIN, UTM_LAT_MAX = -80.0, 84.0
"""UTM is defined between these latitudes (degrees)."""


def area_from_bbox(bbox: Sequence[float]) -> MultiPolygon:
    """Area from [west, south, east, north], degrees; west > east crosses the antimeridian (RFC 7946, 5.2)."""
    if len(bbox) != 4:
        raise AreaError(f"area.bbox={list(bbox)} has {len(bbox)} numbers; give [west, south, east, north]")
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= 90 and -90 <= north <= 90):
        raise AreaError(
            f"area.bbox={list(bbox)} is outside longitude ±180 or latitude ±90; "
            "give [west, south, east, north] in degrees (an area across the antimeridian has west > east)"
        )
    if south >= north or west == east:
        raise AreaError(f"area.bbox={list(bbox)} is empty; give south < north and west different from east")
    if west > east:
        parts = [box(west, south, 180, north), box(-180, south, east, north)]
        return _checked(MultiPolygon([p for p in parts if p.area > 0]), "area.bbox")
    return _checked(MultiPolygon([box(west, south, east, north)]), "area.bbox")


def area_from_geojson(text_or_object: str | Mapping[str, Any]) -> MultiPolygon:
    """Area from a GeoJSON geometry, Feature or FeatureCollection of (multi)polygons."""
    try:
        data = json.loads(text_or_object) if isinstance(text_or_object, str) else dict(text_or_object)
        match data["type"]:
            case "FeatureCollection":
                geometries = [shape(f["geometry"]) for f in data["features"]]
            case "Feature":
                geometries = [shape(data["geometry"])]
            case _:
                geometries = [shape(data)]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, ShapelyError) as error:
        raise AreaError(f"area.geojson is not GeoJSON ({error}); give a Polygon or MultiPolygon") from error
    polygons: list[Polygon] = []
    for geometry in geometries:
        if geometry.geom_type not in ("Polygon", "MultiPolygon"):
            raise AreaError(f"area.geojson holds a {geometry.geom_type}; only polygons have an area")
        if not geometry.is_valid:
            raise AreaError(f"area.geojson is not a valid polygon ({explain_validity(geometry)}); repair it")
        polygons.extend(getattr(geometry, "geoms", [geometry]))
    for polygon in polygons:
        west, _, east, _ = polygon.bounds
        if west < -180 or east > 180 or east - west > 180:
            raise AreaError(
                f"area.geojson spans longitudes {west:g} to {east:g}, so it seems to cross the antimeridian; "
                "cut it there into a MultiPolygon (RFC 7946, 3.1.9) or use area.bbox with west > east"
            )
    union = unary_union(polygons)
    parts = [p for p in getattr(union, "geoms", [union]) if not p.is_empty]
    return _checked(MultiPolygon(parts), "area.geojson")


def _checked(area: MultiPolygon, field: str) -> MultiPolygon:
    if area.is_empty or area.area == 0:
        raise AreaError(f"{field} is empty; give a polygon with an area")
    _, south, _, north = area.bounds
    if south < UTM_LAT_MIN or north > UTM_LAT_MAX:
        raise AreaError(
            f"{field} reaches latitude {south:g} to {north:g}; the UTM grid ends at -80 and 84, so cut it there"
        )
    return area
