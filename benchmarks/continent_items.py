"""A simulated catalogue of a continent as stac-geoparquet: Sentinel-2 items as Element 84 publishes them (v1), with all
their usual properties and all 35 files, and nothing behind the addresses. Made in columns, since it has a million rows.

Tiles and their overlaps are laid out as the real ones. With three satellites on the two or three orbits that see a tile
at these latitudes, one is listed about every 1.4 days; some sensings are listed in two processings, and a third of the
footprints do not fill their tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from shapely.geometry import MultiPolygon

from eo_batch.core.grid import zones_of_area
from eo_batch.core.utm import project

TILE_M = 109_800
"""Side of a Sentinel-2 tile; their origins are 100 km apart."""
EVERY_DAYS = 1.38
PROCESSED_TWICE = 0.03
ROW_GROUP = 32_768
_COGS = {
    "aot": ("AOT", 20), "blue": ("B02", 10), "coastal": ("B01", 60), "green": ("B03", 10), "nir": ("B08", 10),
    "nir08": ("B8A", 20), "nir09": ("B09", 60), "red": ("B04", 10), "rededge1": ("B05", 20), "rededge2": ("B06", 20),
    "rededge3": ("B07", 20), "scl": ("SCL", 20), "swir16": ("B11", 20), "swir22": ("B12", 20), "visual": ("TCI", 10),
    "wvp": ("WVP", 20),
}  # fmt: skip
_OTHERS = {
    "granule_metadata": "granule_metadata.xml",
    "thumbnail": "thumbnail.jpg",
    "tileinfo_metadata": "tileinfo_metadata.json",
}
_PERCENTAGES = (
    "degraded_msi_data", "nodata_pixel", "saturated_defective_pixel", "dark_features", "cloud_shadow", "vegetation",
    "not_vegetated", "water", "unclassified", "medium_proba_clouds", "high_proba_clouds", "thin_cirrus", "snow_ice",
)  # fmt: skip
_US = 1_000_000
_DAY_US = 86_400 * _US


@dataclass(frozen=True)
class Tiles:
    """Tiles that meet an area."""

    names: list[str]
    epsg: np.ndarray
    x: np.ndarray
    """Left edges, metres."""
    y: np.ndarray
    """Top edges."""
    bbox: np.ndarray
    """(tile, 4) degrees."""


def tiles_of(area: MultiPolygon) -> Tiles:
    """Tiles of all zones that meet their zone's part of the area."""
    names: list[str] = []
    rows: list[tuple[int, int, int]] = []
    boxes: list[tuple[float, float, float, float]] = []
    for zone in zones_of_area(area):
        ground = area.intersection(zone.strip)
        lon, lat = shapely.get_coordinates(shapely.segmentize(ground, 0.5)).T
        xs, ys = project(4326, zone.epsg, lon, lat)
        for x in range(math.floor(xs.min() / 1e5) * 100_000, math.ceil(xs.max()), 100_000):
            for y in range(math.ceil(ys.min() / 1e5) * 100_000, math.ceil(ys.max()) + 100_000, 100_000):
                corners = np.array([[x, y - TILE_M], [x + TILE_M, y - TILE_M], [x + TILE_M, y], [x, y]], float).T
                outline = shapely.Polygon(np.column_stack(project(zone.epsg, 4326, *corners)))
                if outline.intersects(ground):
                    band = "CDEFGHJKLMNPQRSTUVWX"[int((outline.centroid.y + 80) // 8)]
                    square = (
                        f"{'ABCDEFGHJKLMNPQRSTUVWXYZ'[x // 100_000 % 24]}{'ABCDEFGHJKLMNPQRSTUV'[y // 100_000 % 20]}"
                    )
                    names.append(f"{zone.number:02d}{band}{square}")
                    rows.append((zone.epsg, x, y))
                    boxes.append(outline.bounds)
    epsg, x, y = np.array(rows).T
    return Tiles(names, epsg, x, y, np.array(boxes))


def write(path: Path, area: MultiPolygon, start: date, end: date) -> int:
    """Write the catalogue of an area and dates; returns how many items it has."""
    tiles = tiles_of(area)
    rng = np.random.default_rng(0)
    first = (start - date(1970, 1, 1)).days * _DAY_US
    span = (end - start).days
    moments, numbers = [], []
    for tile in range(len(tiles.names)):
        days = np.arange(rng.uniform(0, EVERY_DAYS), span, EVERY_DAYS)
        moments.append(
            first + np.floor(days).astype(np.int64) * _DAY_US + rng.integers(36_000, 39_600, len(days)) * _US
        )
        numbers.append(np.full(len(days), tile))
    moment, tile_n = np.concatenate(moments), np.concatenate(numbers)
    order = np.argsort(moment, kind="stable")
    moment, tile_n = moment[order], tile_n[order]
    twice = rng.random(len(moment)) < PROCESSED_TWICE
    again = np.flatnonzero(twice)
    moment = np.concatenate([moment, moment[again] + 400_000])
    tile_n, sequence = np.concatenate([tile_n, tile_n[again]]), np.repeat([0, 1], [len(order), len(again)])
    order = np.argsort(moment, kind="stable")
    moment, tile_n, sequence = moment[order], tile_n[order], sequence[order]
    writer = None
    for begin in range(0, len(moment), ROW_GROUP):
        rows = slice(begin, begin + ROW_GROUP)
        table = _rows(tiles, tile_n[rows], moment[rows], sequence[rows], rng)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return len(moment)


def _rows(
    tiles: Tiles, tile: np.ndarray, moment: np.ndarray, sequence: np.ndarray, rng: np.random.Generator
) -> pa.Table:
    n = len(tile)
    at = pa.array(tile)
    name = pa.array(tiles.names).take(at)
    time = pa.array(moment, pa.timestamp("us", tz="UTC"))
    day = pc.strftime(time, "%Y%m%d")
    letter = pa.array(["a", "b", "c"]).take(pa.array(moment // _DAY_US % 3))
    sat = pc.binary_join_element_wise("S2", pc.ascii_upper(letter), "")
    text = pa.array(sequence).cast(pa.string())
    ids = pc.binary_join_element_wise(sat, name, day, text, "L2A", "_")
    year, month = pc.strftime(time, "%Y"), pc.year(time)
    month = pc.month(time).cast(pa.string())
    zone = pc.utf8_slice_codeunits(name, 0, 2)
    parts = [zone, pc.utf8_slice_codeunits(name, 2, 3), pc.utf8_slice_codeunits(name, 3, 5)]
    folder = pc.binary_join_element_wise("sentinel-s2-l2a-cogs", *parts, year, month, ids, "/")
    jp2 = pc.binary_join_element_wise("tiles", *parts, year, month, pc.day(time).cast(pa.string()), text, "/")
    years = year.cast(pa.int32()).to_numpy()
    baseline = np.where(years < 2022, "02.14", np.where(years < 2023, "04.00", "05.09"))
    baseline = np.where((sequence == 1) & (years < 2022), "05.00", baseline)
    applied = (baseline >= "04.00") & ~((baseline == "04.00") & (moment // _DAY_US % 7 == 0))
    stamp = pc.strftime(time, "%Y%m%dT%H%M%S")
    dotless = pa.array(np.char.replace(baseline, ".", ""))
    version, tile_name = (pc.binary_join_element_wise(first, rest, "") for first, rest in (("N", dotless), ("T", name)))
    uri = pc.binary_join_element_wise(sat, "MSIL2A", stamp, version, "R122", tile_name, stamp, "_")
    bbox = tiles.bbox[tile].copy()
    part = rng.random(n) < 1 / 3
    bbox[part, 2] -= (bbox[part, 2] - bbox[part, 0]) * rng.uniform(0, 0.6, int(part.sum()))
    percent = {f"s2:{key}_percentage": rng.uniform(0, 100, n).round(6) for key in _PERCENTAGES}
    created = pa.array(moment + 20_000 * _US, pa.timestamp("us", tz="UTC"))
    columns: dict[str, Any] = {
        "type": _same("Feature", n),
        "stac_version": _same("1.0.0", n),
        "stac_extensions": _same(
            [
                f"https://stac-extensions.github.io/{e}/schema.json"
                for e in (
                    "mgrs/v1.0.0",
                    "view/v1.0.0",
                    "grid/v1.0.0",
                    "raster/v1.1.0",
                    "eo/v1.0.0",
                    "projection/v1.0.0",
                )
            ],
            n,
        ),
        "id": ids,
        "collection": _same("sentinel-2-l2a", n),
        "geometry": shapely.to_wkb(shapely.box(*bbox.T)),
        "bbox": pa.StructArray.from_arrays(list(bbox.T), ["xmin", "ymin", "xmax", "ymax"]),
        "links": _same(
            [
                {
                    "rel": "collection",
                    "href": "https://earth-search.aws.element84.com/v1/collections/sentinel-2-l2a",
                    "type": "application/json",
                }
            ],
            n,
        ),
        "created": created,
        "updated": created,
        "datetime": time,
        "platform": pc.binary_join_element_wise("sentinel-2", letter, ""),
        "constellation": _same("sentinel-2", n),
        "instruments": _same(["msi"], n),
        "eo:cloud_cover": rng.uniform(0, 100, n).round(6),
        "proj:epsg": tiles.epsg[tile],
        "mgrs:utm_zone": zone.cast(pa.int64()),
        "mgrs:latitude_band": parts[1],
        "mgrs:grid_square": parts[2],
        "grid:code": pc.binary_join_element_wise("MGRS-", name, ""),
        "view:sun_azimuth": rng.uniform(90, 180, n),
        "view:sun_elevation": rng.uniform(10, 60, n),
        **percent,
        "s2:product_type": _same("S2MSI2A", n),
        "s2:processing_baseline": pa.array(baseline),
        "s2:product_uri": pc.binary_join_element_wise(uri, ".SAFE", ""),
        "s2:generation_time": pc.strftime(created, "%Y-%m-%dT%H:%M:%SZ"),
        "s2:datatake_id": pc.binary_join_element_wise("G", sat, stamp, pa.array(baseline), "_"),
        "s2:datatake_type": _same("INS-NOBS", n),
        "s2:datastrip_id": pc.binary_join_element_wise(sat, "OPER_MSI_L2A_DS_2BPS", stamp, pa.array(baseline), "_"),
        "s2:granule_id": pc.binary_join_element_wise(sat, "OPER_MSI_L2A_TL_2BPS", stamp, name, pa.array(baseline), "_"),
        "s2:reflectance_conversion_factor": rng.uniform(0.96, 1.03, n),
        "s2:sequence": text,
        "earthsearch:s3_path": pc.binary_join_element_wise("s3://sentinel-cogs", folder, "/"),
        "earthsearch:payload_id": pc.binary_join_element_wise("roda-sentinel2/workflow-sentinel2-to-stac", ids, "/"),
        "earthsearch:boa_offset_applied": pa.array(applied),
        "processing:software": _same({"sentinel2-to-stac": "0.1.1"}, n),
    }
    cogs = pc.binary_join_element_wise("https://sentinel-cogs.s3.us-west-2.amazonaws.com", folder, "/")
    originals = pc.binary_join_element_wise("s3://sentinel-s2-l2a", jp2, "/")
    assets: dict[str, pa.StructArray] = {}
    for key, (file, pixel) in _COGS.items():
        cog = pc.binary_join_element_wise(cogs, f"{file}.tif", "/")
        original = pc.binary_join_element_wise(originals, f"R{pixel}m/{file}.jp2", "/")
        assets[key] = _image(tiles, at, cog, key, pixel, "image/tiff; application=geotiff; profile=cloud-optimized")
        assets[f"{key}-jp2"] = _image(tiles, at, original, key, pixel, "image/jp2")
    for key, file in _OTHERS.items():
        href = pc.binary_join_element_wise(cogs, file, "/")
        fields = {"href": href, "type": _same("application/xml", n), "roles": _same(["metadata"], n)}
        assets[key] = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    columns["assets"] = pa.StructArray.from_arrays(list(assets.values()), list(assets))
    return pa.table(columns)


def _image(tiles: Tiles, at: pa.Array, href: pa.Array, key: str, pixel: int, media: str) -> pa.StructArray:
    size = TILE_M // pixel
    transforms = [[pixel, 0, int(x), 0, -pixel, int(y)] for x, y in zip(tiles.x, tiles.y, strict=True)]
    band = {"nodata": 0, "data_type": "uint8" if key == "scl" else "uint16", "bits_per_sample": 15,
            "spatial_resolution": pixel, "scale": 0.0001, "offset": -0.1}  # fmt: skip
    n = len(at)
    fields = {
        "href": href,
        "type": _same(media, n),
        "title": _same(f"{key} - {pixel}m", n),
        "eo:bands": _same([{"name": key, "common_name": key, "center_wavelength": 0.665}], n),
        "gsd": _same(pixel, n),
        "proj:shape": _same([size, size], n),
        "proj:transform": pa.array(transforms, pa.list_(pa.float64())).take(at),
        "raster:bands": _same([band], n),
        "roles": _same(["data", "reflectance"], n),
    }
    return pa.StructArray.from_arrays(list(fields.values()), list(fields))


def _same(value: Any, n: int) -> pa.Array:
    """One value for every row."""
    return pa.array([value]).take(pa.array(np.zeros(n, np.int64)))
