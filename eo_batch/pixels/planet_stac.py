"""STAC items of the simulated planet, written as the publishers of the real products write theirs.

Sentinel-2 items follow Element 84's Earth Search v1, Sentinel-1 items Planetary Computer. Items are plain
dictionaries without links; asset hrefs are file names beside the item.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import shapely
from shapely.affinity import rotate, translate
from shapely.geometry import MultiPolygon, Polygon, box, mapping

from eo_batch.core.planet import COHERENCE_DAYS, LAND_CLASSES, S2Convention, on_globe
from eo_batch.core.sensors import SENSOR_KINDS
from eo_batch.pixels.planet import Planet
from eo_batch.pixels.planet_grids import RasterGrid, S1Frame, S2Tile

Json = dict[str, Any]

_MEDIA_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
_COMMON_NAME = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16"}
_MARGIN_M = 1e6
"""Longer than any planet: where a swath has no end."""

_DESCRIPTIONS = {
    "sentinel-2-l2a": "Simulated Sentinel-2 L2A reflectance, listed as Earth Search v1 does.",
    "sentinel-1-rtc": "Simulated Sentinel-1 gamma nought, linear power, with speckle.",
    "coherence": "Simulated repeat-pass coherence in percent; 0 is no data.",
    "dem": "Simulated elevation in metres.",
    "landcover": "Simulated land cover: class codes; 0 is no data.",
}


def collection(name: str) -> Json:
    """A collection without extent and links."""
    return {"id": name, "license": "CC0-1.0", "description": _DESCRIPTIONS[name]}


def s2_footprint(planet: Planet, tile: S2Tile, day: int) -> Polygon:
    """The part of a tile that the swath of `day` covers, degrees; may be empty."""
    if day % 2 == 0:
        return tile.grid.footprint()
    near = box(-_MARGIN_M, -_MARGIN_M, planet.sky.s2_edge_m, _MARGIN_M)
    swath = rotate(near, planet.sky.s2_tilt_deg + (0 if planet.sky.s2_side(day) > 0 else 180), origin=(0, 0))
    return _cut(planet, tile.grid, swath)


def s1_footprint(planet: Planet, grid: RasterGrid, day: int) -> Polygon:
    """The part of a frame that the swath of `day` covers, degrees; may be empty."""
    half = planet.sky.s1_half_swath_m
    swath = rotate(box(-half, -_MARGIN_M, half, _MARGIN_M), planet.sky.s1_tilt_deg(day), origin=(0, 0))
    return _cut(planet, grid, swath)


def s2_item_id(planet: Planet, tile: S2Tile, day: int, sequence: int) -> str:
    """As in Earth Search: platform, tile, date, sequence."""
    return f"S2{_s2_platform(day).upper()}_{tile.name}_{planet.spec.s2_time(day):%Y%m%d}_{sequence}_L2A"


def s2_item(
    planet: Planet,
    tile: S2Tile,
    day: int,
    convention: S2Convention,
    sequence: int,
    *,
    cloud_pct: float,
    nodata_pct: float,
) -> Json:
    """One Sentinel-2 item, as Earth Search v1 lists it."""
    moment = planet.spec.s2_time(day)
    coarse = tile.grid.coarser(2)
    level, orbit = convention.baseline.replace(".", ""), 22 + 43 * (day % 2)
    platform = _s2_platform(day)
    assets: Json = {}
    for name in planet.spec.s2_bands:
        band = SENSOR_KINDS["s2-l2a"].band(name)
        grid = coarse if band.native_m > 10 else tile.grid
        common = _COMMON_NAME[name]
        assets[common] = _asset(
            f"{name}.tif", grid, "uint16", 0, scale=0.0001, offset=convention.stated_offset,
        ) | {
            "title": f"{common} ({name})",
            "eo:bands": [{"name": common, "common_name": common, "center_wavelength": band.wavelength_um}],
        }  # fmt: skip
    assets["scl"] = _asset("SCL.tif", coarse, "uint8", 0) | {"title": "Scene classification map (SCL)"}
    product = (
        f"S2{platform.upper()}_MSIL2A_{moment:%Y%m%dT%H%M%S}_N{level}_R{orbit:03d}_T{tile.name}_"
        f"{moment + timedelta(hours=5):%Y%m%dT%H%M%S}.SAFE"
    )
    # Earth Search moved from proj:epsg to proj:code over time; both are met.
    newer = convention.offset_applied
    crs = {"proj:code": f"EPSG:{tile.grid.epsg}"} if newer else {"proj:epsg": tile.grid.epsg}
    properties: Json = {
        "datetime": _text(moment),
        "created": _text(moment + timedelta(days=1)),
        "platform": f"sentinel-2{platform}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": planet.spec.gsd_m,
        **crs,
        "grid:code": f"MGRS-{tile.name}",
        "mgrs:utm_zone": int(tile.name[:2]),
        "mgrs:latitude_band": tile.name[2],
        "mgrs:grid_square": tile.name[3:],
        "eo:cloud_cover": round(cloud_pct, 6),
        "s2:processing_baseline": convention.baseline,
        "s2:sequence": str(sequence),
        "s2:product_uri": product,
        "s2:nodata_pixel_percentage": round(nodata_pct, 6),
        "earthsearch:boa_offset_applied": convention.offset_applied,
    }
    projection = "projection/v2.0.0" if newer else "projection/v1.1.0"
    extensions = ["eo/v1.1.0", "grid/v1.1.0", "mgrs/v1.0.0", "raster/v1.1.0", projection]
    item_id = s2_item_id(planet, tile, day, sequence)
    footprint = s2_footprint(planet, tile, day)
    return _item("sentinel-2-l2a", item_id, footprint, properties, assets, extensions)


def s1_item(planet: Planet, frame: S1Frame, day: int) -> Json:
    """One Sentinel-1 item, as Planetary Computer lists its terrain-corrected scenes."""
    start = planet.spec.s1_time(day) + timedelta(seconds=3 * frame.slice)
    end = start + timedelta(seconds=3)
    ascending = day % 2 == 0
    orbit = 117 if ascending else 168
    absolute = 48_800 + round(planet.spec.s1_spacing_days * day * 175 / 12)
    grid = frame.grid
    assets = {
        pol.lower(): _asset(f"{pol}.tif", grid, "float32", -32768.0) | {"title": f"{pol}: gamma nought"}
        for pol in ("VV", "VH")
    }
    properties: Json = {
        "datetime": _text(start + (end - start) / 2),
        "start_datetime": _text(start),
        "end_datetime": _text(end),
        "platform": "SENTINEL-1A",
        "constellation": "Sentinel-1",
        "proj:code": f"EPSG:{grid.epsg}",
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform),
        "proj:bbox": list(grid.bounds),
        "sat:orbit_state": "ascending" if ascending else "descending",
        "sat:relative_orbit": orbit,
        "sat:absolute_orbit": absolute,
        "sar:instrument_mode": "IW",
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:product_type": "GRD",
        "sar:polarizations": ["VV", "VH"],
        "sar:pixel_spacing_range": planet.spec.gsd_m,
        "sar:pixel_spacing_azimuth": planet.spec.gsd_m,
        "sar:looks_equivalent_number": planet.spec.s1_looks,
    }
    times = f"{start:%Y%m%dT%H%M%S}_{end:%Y%m%dT%H%M%S}"
    item_id = f"S1A_IW_GRDH_1SDV_{times}_{absolute:06d}_U{grid.epsg % 100}_rtc"
    extensions = ["sar/v1.0.0", "sat/v1.0.0", "raster/v1.1.0", "projection/v2.0.0"]
    footprint = s1_footprint(planet, grid, day)
    return _item("sentinel-1-rtc", item_id, footprint, properties, assets, extensions)


def coherence_item(planet: Planet, name: str, grid: RasterGrid) -> Json:
    """Coherence of one tile: one asset for each temporal baseline."""
    assets = {
        coherence_key(days): _asset(f"{coherence_key(days).upper()}.tif", grid, "uint8", 0)
        | {"title": f"Median coherence over {days} days, percent", "raster:unit": "percent"}
        for days in COHERENCE_DAYS
    }
    properties = _season(planet) | {"proj:code": f"EPSG:{grid.epsg}", "sar:polarizations": ["VV"]}
    return _item("coherence", f"{name}_summer_vv", grid.footprint(), properties, assets)


def coherence_key(days: int) -> str:
    """Asset key of the coherence over `days` days."""
    return f"coh{days:02d}"


def dem_item(planet: Planet, name: str, grid: RasterGrid) -> Json:
    """Elevation of one tile."""
    assets = {"data": _asset("DEM.tif", grid, "float32", None) | {"title": "Elevation, metres"}}
    properties = {"datetime": _text(_midnight(planet)), "proj:code": f"EPSG:{grid.epsg}"}
    return _item("dem", f"DEM_{name}", grid.footprint(), properties, assets)


def landcover_item(planet: Planet, name: str, grid: RasterGrid) -> Json:
    """Land cover of one tile."""
    classes = [
        {"value": land.code, "name": land.name, "description": land.name, "color_hint": land.colour.upper()}
        for land in LAND_CLASSES
    ]
    asset = _asset("Map.tif", grid, "uint8", 0) | {"title": "Land cover", "classification:classes": classes}
    properties = _season(planet) | {"proj:code": f"EPSG:{grid.epsg}"}
    extensions = ["classification/v2.0.0", "raster/v1.1.0", "projection/v2.0.0"]
    return _item("landcover", f"LandCover_{name}", grid.footprint(), properties, {"map": asset}, extensions)


def _item(
    collection_id: str,
    item_id: str,
    footprint: Polygon,
    properties: Mapping[str, Any],
    assets: Mapping[str, Any],
    extensions: list[str] | None = None,
) -> Json:
    names = extensions or ["raster/v1.1.0", "projection/v2.0.0"]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [_EXTENSION.format(name) for name in names],
        "id": item_id,
        "collection": collection_id,
        "geometry": mapping(_cut_at_antimeridian(shapely.set_precision(footprint, 1e-8))),
        "bbox": [round(value, 8) for value in on_globe(footprint.bounds)],
        "properties": dict(properties),
        "assets": dict(assets),
    }


def _asset(
    href: str,
    grid: RasterGrid,
    dtype: str,
    nodata: float | None,
    *,
    scale: float | None = None,
    offset: float | None = None,
) -> Json:
    band: Json = {"data_type": dtype, "spatial_resolution": grid.dx}
    optional = {"nodata": nodata, "scale": scale, "offset": offset}
    band |= {key: value for key, value in optional.items() if value is not None}
    return {
        "href": href,
        "type": _MEDIA_TYPE,
        "roles": ["data"],
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform),
        "raster:bands": [band],
    }


def _cut_at_antimeridian(footprint: Polygon) -> Polygon | MultiPolygon:
    """An outline that may go on beyond ±180, as RFC 7946 (3.1.9) wants it."""
    if footprint.bounds[0] >= -180 and footprint.bounds[2] <= 180:
        return footprint
    turns = [translate(footprint, turn) for turn in (-360, 0, 360)]
    parts = [part.intersection(box(-180, -90, 180, 90)) for part in turns]
    return MultiPolygon([part for part in parts if part.area > 0])


def _cut(planet: Planet, grid: RasterGrid, swath_m: Polygon) -> Polygon:
    """A raster's outline inside a swath given in the planet's plane (which is linear in degrees)."""
    outline = grid.footprint()
    lon, lat = planet.lonlat(*shapely.get_coordinates(swath_m).T)
    lon += 360 * round((outline.centroid.x - planet.spec.centre_lon) / 360)
    cut = outline.intersection(Polygon(np.column_stack([lon, lat])))
    return cut if isinstance(cut, Polygon) else Polygon()


def _s2_platform(day: int) -> str:
    return "ab"[day % 2]


def _midnight(planet: Planet) -> datetime:
    return datetime.combine(planet.spec.start, time(), UTC)


def _season(planet: Planet) -> Json:
    start = _midnight(planet)
    end = start + timedelta(days=90)
    return {"datetime": _text(start), "start_datetime": _text(start), "end_datetime": _text(end)}


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
