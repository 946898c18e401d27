"""`python -m benchmarks.europe FILE [OVERRIDE…]`: write a simulated catalogue of Europe, plan the recipe over it, print
what that took, in CPU seconds.

The catalogue is stac-geoparquet with items and no files behind them: what planning reads, and nothing else. Tiles,
frames and overpasses are laid out about as those of the real products are, so that blocks meet as many scenes.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, box, mapping

from eo_batch.core.grid import zones_of_area
from eo_batch.core.identity import Identity
from eo_batch.core.plan import make_plan
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.core.utm import Zone, project
from eo_batch.io.scenetable import usable
from eo_batch.settings import Settings
from eo_batch.stages.plan import find_scenes

RECIPE = Path(__file__).parents[1] / "recipes" / "continental.yaml"
Item = dict[str, Any]

_WGS84 = 4326
_TILE_M = 109_800
"""Side of a Sentinel-2 tile; their origins are 100 km apart."""
_FRAME_M = 200_000
"""Side of a Sentinel-1 frame, about; the real ones are 250 by 170 km and follow the track."""
_S2_EVERY_DAYS, _S1_EVERY_DAYS = 5, 12
_BANDS = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20, "swir22": 20, "scl": 20}


def items_of(area: MultiPolygon, start: datetime, end: datetime) -> Iterator[Item]:
    """Items of all collections over an area, in the dialects of those who publish them."""
    for zone in zones_of_area(area):
        ground = area.intersection(zone.strip)
        for number, (x, y, outline) in enumerate(_squares(zone, ground, 100_000, _TILE_M)):
            yield from _sentinel_2(zone, x, y, outline, number, start, end)
        for x, y, outline in _squares(zone, ground, _FRAME_M, _FRAME_M + 20_000):
            yield from _sentinel_1(zone, x, y, outline, start, end)
    yield from _degrees(area, "cop-dem-glo-30", "data", 1, 1 / 3600)
    yield from _degrees(area, "esa-worldcover", "map", 3, 1 / 12000)


def _squares(
    zone: Zone, ground: shapely.Geometry, pitch_m: int, side_m: int
) -> Iterator[tuple[int, int, shapely.Polygon]]:
    """Squares of a zone's grid that meet its part of the area: their north-western corner and outline."""
    lon, lat = shapely.get_coordinates(shapely.segmentize(ground, 0.5)).T
    xs, ys = project(_WGS84, zone.epsg, lon, lat)
    for x in range(math.floor(xs.min() / pitch_m) * pitch_m, math.ceil(xs.max()), pitch_m):
        for y in range(math.ceil(ys.min() / pitch_m) * pitch_m, math.ceil(ys.max()) + pitch_m, pitch_m):
            corners = np.array([[x, y - side_m], [x + side_m, y - side_m], [x + side_m, y], [x, y]], float).T
            outline = shapely.Polygon(np.column_stack(project(zone.epsg, _WGS84, *corners)))
            if outline.intersects(ground):
                yield x, y, outline


def _sentinel_2(
    zone: Zone, x: int, y: int, outline: shapely.Polygon, number: int, start: datetime, end: datetime
) -> Iterator[Item]:
    square = f"{chr(65 + x // 100_000 % 20)}{chr(65 + y // 100_000 % 20)}"
    name = f"{zone.number:02d}{'ABCDEFGHJKLMNPQRSTUVWX'[int((outline.centroid.y + 80) // 8) + 2]}{square}"
    day = start + timedelta(days=x // 300_000 % _S2_EVERY_DAYS, hours=10, minutes=30)
    while day < end:
        cloud = 80 * (43758.5453 * math.sin(12.9898 * number + 78.233 * day.timetuple().tm_yday) % 1)
        assets = {}
        for band, pixel_m in _BANDS.items():
            size = _TILE_M // pixel_m
            raster = {"data_type": "uint16", "nodata": 0, "scale": 0.0001, "offset": -0.1}
            assets[band] = {
                "href": f"s3://simulated/s2/{name}/{day:%Y%m%d}/{band}.tif",
                "proj:shape": [size, size],
                "proj:transform": [pixel_m, 0, x, 0, -pixel_m, y],
                "raster:bands": [raster],
            }
        properties = {
            "datetime": _text(day),
            "platform": "sentinel-2a" if day.toordinal() % 2 else "sentinel-2b",
            "proj:epsg": zone.epsg,
            "grid:code": f"MGRS-{name}",
            "eo:cloud_cover": round(cloud, 3),
            "s2:processing_baseline": "05.09",
            "earthsearch:boa_offset_applied": True,
        }
        yield _item("sentinel-2-l2a", f"S2_{name}_{zone.number}_{x}_{y}_{day:%Y%m%d}", outline, properties, assets)
        day += timedelta(days=_S2_EVERY_DAYS)


def _sentinel_1(zone: Zone, x: int, y: int, outline: shapely.Polygon, start: datetime, end: datetime) -> Iterator[Item]:
    size = (_FRAME_M + 20_000) // 10
    for state, first in (("ascending", timedelta(days=2, hours=17)), ("descending", timedelta(days=7, hours=5))):
        day = start + first
        while day < end:
            grid = {"proj:shape": [size, size], "proj:transform": [10, 0, x, 0, -10, y]}
            folder = f"s3://simulated/s1/{zone.number}/{x}/{y}/{day:%Y%m%d}"
            assets = {band: {"href": f"{folder}/{band}.tif", **grid} for band in ("vv", "vh")}
            properties = {
                "datetime": _text(day),
                "platform": "sentinel-1a",
                "proj:epsg": zone.epsg,
                "sat:orbit_state": state,
                "sat:relative_orbit": 1 + x // _FRAME_M % 175,
                "sar:product_type": "GRD",
            }
            yield _item("sentinel-1-rtc", f"S1_{state}_{zone.number}_{x}_{y}_{day:%Y%m%d}", outline, properties, assets)
            day += timedelta(days=_S1_EVERY_DAYS)


def _degrees(area: MultiPolygon, collection: str, key: str, step: int, pixel: float) -> Iterator[Item]:
    west, south, east, north = area.bounds
    for lon in range(math.floor(west / step) * step, math.ceil(east), step):
        for lat in range(math.floor(south / step) * step, math.ceil(north), step):
            outline = box(lon, lat, lon + step, lat + step)
            if outline.intersects(area):
                size = round(step / pixel)
                asset = {
                    "href": f"s3://simulated/{collection}/{lon}_{lat}.tif",
                    "proj:shape": [size, size],
                    "proj:transform": [pixel, 0, lon, 0, -pixel, lat + step],
                }
                properties = {"datetime": "2021-01-01T00:00:00Z", "proj:epsg": _WGS84}
                yield _item(collection, f"{collection}_{lon}_{lat}", outline, properties, {key: asset})


def _item(
    collection: str, item_id: str, outline: shapely.Polygon, properties: dict[str, Any], assets: dict[str, Any]
) -> Item:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": collection,
        "geometry": mapping(outline),
        "bbox": list(outline.bounds),
        "properties": properties,
        "assets": assets,
        "links": [],
    }


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_catalog(spec: RunSpec, path: Path) -> int:
    """Write the catalogue of a spec's area and dates as stac-geoparquet; returns how many items it has."""
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    start, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (spec.time.start, spec.time.end))
    items = list(items_of(spec.area.polygon(), start, end))
    to_parquet(parse_stac_items_to_arrow(items), path)
    return len(items)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.europe", description=__doc__)
    parser.add_argument("file", type=Path, help="where the catalogue goes; one that is there is used as it is")
    parser.add_argument("overrides", nargs="*", help="of the recipe, such as time.step=season")
    parser.add_argument("--only-write", action="store_true", help="do not plan")
    asked = parser.parse_args()
    spec = parse_spec(RECIPE.read_text(), [f"catalog={asked.file}", *asked.overrides], str(RECIPE))
    figures: dict[str, float] = {}
    began = time.process_time()
    if not asked.file.exists():
        figures["items"] = write_catalog(spec, asked.file)
        figures["write_cpu_s"] = round(time.process_time() - began, 1)
    if not asked.only_write:
        began = time.process_time()
        scenes = usable(find_scenes(spec, Settings()), spec)
        figures["search_cpu_s"] = round(time.process_time() - began, 1)
        figures["search_peak_mb"] = _peak_mb()
        began = time.process_time()
        plan = make_plan(spec, scenes.columns(), Identity(spec).prefix("chips"))
        figures["plan_cpu_s"] = round(time.process_time() - began, 1)
        figures |= {"scenes": len(plan.scenes), "chips": len(plan.cells), "blocks": len(plan.blocks)}
        figures["shards"] = len(plan.shards)
        figures["shards_without_scenes"] = int((np.diff(plan.shards.start) == 0).sum())
        figures["largest_shard_mb"] = round(plan.shards.memory_bytes.max() / 1e6)
    print(json.dumps(figures | {"peak_mb": _peak_mb()}))


def _peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


if __name__ == "__main__":
    main()
