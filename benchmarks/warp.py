"""`python -m benchmarks.warp`: radar of another UTM zone and a map in degrees onto one block, beside odc-stac.

Three dates of Sentinel-1 (VV and VH, float32) in EPSG:32632 and one class raster in EPSG:4326, all from a SeaweedFS
server of this machine, are brought onto 4096 x 4096 pixels of 10 m of zone 33: bilinear and the median over time, and
nearest. Both write Zarr to the same server; eo-batch works out class shares of chips by area besides. A window of what
was made is compared with GDAL's warp without its approximate transformer. CPU seconds are those of the process, without
imports and without the server. The last line is one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from affine import Affine

from benchmarks import cube
from benchmarks.cube import BOUNDS, CHIP_PX, LEFT, SIDE_PX, TOP, Clock
from benchmarks.scenes import EPSG, smooth

RADAR_EPSG, MAP_EPSG = 32632, 4326
DATES = ("2023-06-03", "2023-06-08", "2023-06-13")
POLARIZATIONS = {"VV": 0.12, "VH": 0.03}
"""Typical gamma nought of land, linear."""
NODATA = -32768.0
LOOKS = 4.4
"""Equivalent number of looks of IW GRD, which sets its speckle (ESA, Sentinel-1 product specification)."""
CLASSES = (10, 30, 40, 50, 60, 80)
DEGREE_PX = 12_000
"""Pixels of a degree of WorldCover."""
MARGIN_PX = 100
CHECK_PX = 1024
"""Side of the window that is compared with GDAL's exact warp."""
SETTINGS: dict[str, tuple[dict[str, int], ...]] = {
    "eo-batch": cube.SETTINGS["eo-batch"],
    "odc-stac": cube.SETTINGS["odc-stac"],
}


def write(store: Any, url: str) -> list[dict[str, Any]]:
    """Write all scenes below `store`, whose objects have addresses below `url`; their items."""
    from eo_batch.io.cogs import cog_bytes

    rng = np.random.default_rng(0)
    items, (left, bottom, right, top) = [], around(RADAR_EPSG, 10.0)
    transform = (10.0, 0.0, left, 0.0, -10.0, top)
    shape = round((top - bottom) / 10), round((right - left) / 10)
    for date in DATES:
        name, assets = f"S1A_IW_{date.replace('-', '')}_rtc", {}
        for key, level in POLARIZATIONS.items():
            ground = level * np.exp(0.3 * smooth(rng, shape, 60))
            speckle = rng.standard_gamma(LOOKS, shape, np.float32) / np.float32(LOOKS)
            data = cog_bytes(ground * speckle, epsg=RADAR_EPSG, transform=transform, nodata=NODATA, block_px=512)
            store.put(f"{name}/{key}.tif", data)
            assets[key.lower()] = _asset(f"{url}/{name}/{key}.tif", transform, shape, RADAR_EPSG, "float32", NODATA)
        more = {"sat:orbit_state": "ascending", "sar:product_type": "GRD", "sar:polarizations": list(POLARIZATIONS)}
        items.append(_item(name, "sentinel-1-rtc", date, (left, bottom, right, top), RADAR_EPSG, assets, more))
    pixel = 1 / DEGREE_PX
    left, bottom, right, top = around(MAP_EPSG, pixel)
    transform = (pixel, 0.0, left, 0.0, -pixel, top)
    shape = round((top - bottom) / pixel), round((right - left) / pixel)
    kinds = np.digitize(smooth(rng, shape, 40), [-1.0, -0.3, 0.3, 0.8, 1.3])
    land = np.array(CLASSES, np.uint8)[kinds]
    data = cog_bytes(land, epsg=MAP_EPSG, transform=transform, nodata=0, overview="NEAREST", block_px=1024)
    store.put("Map.tif", data)
    assets = {"map": _asset(f"{url}/Map.tif", transform, shape, MAP_EPSG, "uint8", 0)}
    items.append(_item("Map", "landcover", "2021-07-01", (left, bottom, right, top), MAP_EPSG, assets, {}))
    return items


def around(epsg: int, pixel: float) -> tuple[float, float, float, float]:
    """Bounds in whole pixels of another CRS that hold the block, with a margin."""
    from eo_batch.core.utm import project

    along = np.linspace(0.0, 1.0, 65)
    x = BOUNDS[0] + np.concatenate([along, along, 0 * along, 0 * along + 1]) * (BOUNDS[2] - BOUNDS[0])
    y = BOUNDS[1] + np.concatenate([0 * along, 0 * along + 1, along, along]) * (BOUNDS[3] - BOUNDS[1])
    found_x, found_y = project(EPSG, epsg, x, y)
    low = [np.floor(values.min() / pixel) - MARGIN_PX for values in (found_x, found_y)]
    high = [np.ceil(values.max() / pixel) + MARGIN_PX for values in (found_x, found_y)]
    return low[0] * pixel, low[1] * pixel, high[0] * pixel, high[1] * pixel


def _asset(
    href: str, transform: tuple[float, ...], shape: tuple[int, int], epsg: int, dtype: str, nodata: float
) -> dict[str, Any]:
    return {
        "href": href,
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:code": f"EPSG:{epsg}",
        "proj:epsg": epsg,
        "proj:shape": list(shape),
        "proj:transform": list(transform),
        "raster:bands": [{"data_type": dtype, "nodata": nodata}],
    }


def _item(
    name: str,
    collection: str,
    date: str,
    bounds: tuple[float, float, float, float],
    epsg: int,
    assets: dict[str, Any],
    more: dict[str, Any],
) -> dict[str, Any]:
    from eo_batch.core.utm import project

    left, bottom, right, top = bounds
    lon, lat = project(
        epsg, 4326, *np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]).T
    )
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
        ],
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [np.stack([lon, lat], 1).tolist()]},
        "bbox": [lon.min(), lat.min(), lon.max(), lat.max()],
        "properties": {"datetime": f"{date}T05:10:31.000Z", "proj:epsg": epsg, "proj:code": f"EPSG:{epsg}", **more},
        "links": [],
        "assets": assets,
    }


def _spec(catalog: str) -> Any:
    labels = {"kind": "classes", "collections": ["landcover"], "assets": {"class": "map"}}
    return cube.spec_of(catalog, {"s1": {"kind": "s1", "orbit": "ascending"}, "labels": labels})


def odc_stac(items: list[dict[str, Any]], target: str, clock: Clock, chunk: int, threads: int) -> None:
    """odc-stac, as a user of xarray goes on with it."""
    import dask
    import odc.stac
    import pystac
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from eo_batch.io.store import parse_store

    odc.stac.configure_rio(cloud_defaults=True, **cube.gdal_options())
    found = [pystac.Item.from_dict(item) for item in items]
    with clock, dask.config.set(scheduler="threads", num_workers=threads):
        grid = {
            "geobox": GeoBox.from_bbox(BOUNDS, f"EPSG:{EPSG}", resolution=10),
            "chunks": {"x": chunk, "y": chunk},
        }
        radar = odc.stac.load(found[:-1], ["vv", "vh"], resampling="bilinear", groupby="id", **grid)
        land = odc.stac.load(found[-1:], ["map"], resampling="nearest", **grid)
        stack = radar.to_array("band").transpose("band", "time", "y", "x")
        image = stack.where(stack != NODATA).chunk(time=-1).median("time", skipna=True).chunk(band=-1)
        made = xr.Dataset({"s1": image, "labels": land["map"].isel(time=0)}).drop_vars(["band", "spatial_ref", "time"])
        for name in made.data_vars:
            made[name].attrs.clear()
        encoding = {"s1": {"chunks": (2, CHIP_PX, CHIP_PX)}, "labels": {"chunks": (CHIP_PX, CHIP_PX)}}
        made.to_zarr(parse_store(target).zarr("cube.zarr"), encoding=encoding, zarr_format=3, consolidated=False)


def images_of(who: str, source: str, target: str) -> tuple[Any, Any]:
    """What was made: gamma nought (b, y, x) and classes (y, x)."""
    import zarr

    from eo_batch.io.store import parse_store

    if who == "eo-batch":
        spec = _spec(f"{source}/items.json")
        return cube.image_of(spec, target, "s1_10m"), cube.image_of(spec, target, "labels_10m")[0]
    group = zarr.open_group(parse_store(target).zarr("cube.zarr", read_only=True), mode="r")
    return np.asarray(group["s1"][:]), np.asarray(group["labels"][:])


def exact(source: str, items: list[dict[str, Any]]) -> tuple[Any, Any]:
    """The block's first window by GDAL, each coordinate transformed by itself: as `images_of`."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    from eo_batch.io.store import parse_store

    store = parse_store(source)

    def warped(href: str, resampling: Resampling, nodata: float) -> Any:
        place = {
            "transform": Affine(10, 0, LEFT, 0, -10, TOP),
            "height": CHECK_PX,
            "width": CHECK_PX,
            "XSCALE": "1",
            "YSCALE": "1",
        }
        with (
            rasterio.MemoryFile(store.get(href.removeprefix(f"{source}/"))) as memory,
            memory.open() as file,
            WarpedVRT(file, crs=f"EPSG:{EPSG}", resampling=resampling, tolerance=1e-9, nodata=nodata, **place) as vrt,
        ):
            return vrt.read(1)

    radar = [
        np.median([warped(item["assets"][key]["href"], Resampling.bilinear, NODATA) for item in items[:-1]], axis=0)
        for key in ("vv", "vh")
    ]
    return np.stack(radar), warped(items[-1]["assets"]["map"]["href"], Resampling.nearest, 0)


def once(who: str, setting: Mapping[str, int], source: str, target: str) -> None:
    """One run in this process; prints its figures."""
    from eo_batch.io.store import parse_store

    clock = Clock()
    if who == "eo-batch":
        cube.make_chips(_spec(f"{source}/items.json"), target, clock)
    else:
        odc_stac(json.loads(parse_store(source).get("items.json"))["features"], target, clock, **setting)
    print(json.dumps({"wall_s": clock.wall_s, "cpu_s": clock.cpu_s, "peak_gb": cube.peak_gb()}))


def main() -> None:
    given = cube.asked("warp", __doc__, SETTINGS)
    if given.once:
        who, setting, source, target = given.once
        once(who, json.loads(setting), source, target)
        return
    from benchmarks.scenes import catalog
    from eo_batch.io.store import parse_store

    with cube.server() as s3:
        source = s3.new_bucket()
        items = write(parse_store(source), source)
        parse_store(source).put("items.json", catalog(items))
        radar, land = exact(source, items)
        told: dict[str, Any] = {}

        def look(who: str, target: str) -> None:
            found_radar, found_land = images_of(who, source, target)
            assert found_radar.shape == (2, SIDE_PX, SIDE_PX)
            window, name = (slice(0, CHECK_PX), slice(0, CHECK_PX)), who.replace("-", "_")
            told[f"largest_error_{name}"] = float(np.abs(found_radar[:, *window] - radar).max())
            told[f"share_of_other_classes_{name}"] = float((found_land[window] != land).mean())

        rows = cube.rounds("warp", given, SETTINGS, s3, source, look)
        if "eo-batch" in given.only:
            assert told["largest_error_eo_batch"] <= 1e-3, told
            assert told["share_of_other_classes_eo_batch"] <= 1e-5, told  # ties between two pixels
    print(json.dumps(cube.compared(rows) | told))


if __name__ == "__main__":
    main()
