"""Scenes of the cube benchmark: two overlapping Sentinel-2 tiles on three dates, as COGs in a bucket, and their items.

Digital numbers are a smooth landscape with sensor noise, so that they compress as real ones do; clouds are blobs of the
scene classification. Both tiles of a date show the same ground, as far as they share it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from eo_batch.core.utm import project
from eo_batch.io.cogs import cog_bytes
from eo_batch.io.store import Store

BANDS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
"""Band and asset key."""
EPSG = 32633
TILE_PX = 5490
SHIFT_PX = 4900
"""Distance of the two tiles, pixels of 10 m: they overlap by 5.9 km."""
LEFT, TOP = 499980, 5409780
DATES = ("2023-06-03", "2023-06-08", "2023-06-13")
OFFSET_DN = 1000
"""What processing baselines since 04.00 add to every digital number."""
_BLOCK_PX = 1024
_VEGETATION, _CLOUD = 4, 9
_CLOUD_SHARE = 0.3


def write(store: Store, url: str) -> list[dict[str, Any]]:
    """Write all scenes below `store`, whose objects have addresses below `url`; their items."""
    items = []
    for number, date in enumerate(DATES):
        rng = np.random.default_rng(number)
        width = TILE_PX + SHIFT_PX
        scl = _classes(rng, (TILE_PX // 2, width // 2))
        layers: dict[str, tuple[NDArray[Any], int]] = {"scl": (scl, 20)}
        for key in BANDS.values():
            layers[key] = (_ground(rng, (TILE_PX, width)), 10)
        for tile, shift in (("33UVP", 0), ("33UWP", SHIFT_PX)):
            name = f"S2A_{tile}_{date.replace('-', '')}_0_L2A"
            assets = {}
            for key, (pixels, pixel_m) in layers.items():
                first, size = shift * 10 // pixel_m, TILE_PX * 10 // pixel_m
                transform = (pixel_m, 0.0, LEFT + shift * 10, 0.0, -pixel_m, TOP)
                data = cog_bytes(
                    pixels[:, first : first + size],
                    epsg=EPSG,
                    transform=transform,
                    nodata=0,
                    overview="NEAREST" if key == "scl" else "AVERAGE",
                    block_px=_BLOCK_PX,
                )
                store.put(f"{name}/{key}.tif", data)
                assets[key] = _asset(f"{url}/{name}/{key}.tif", key, transform, size)
            items.append(_item(name, tile, date, LEFT + shift * 10, assets))
    return items


def _ground(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint16]:
    noisy = 2000 + 600 * smooth(rng, shape, 60) + 25 * rng.standard_normal(shape, np.float32)
    return np.clip(noisy + OFFSET_DN, 1, 65535).astype(np.uint16)


def _classes(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    blobs = smooth(rng, shape, 150)
    return np.where(blobs > np.quantile(blobs[::8, ::8], 1 - _CLOUD_SHARE), _CLOUD, _VEGETATION).astype(np.uint8)


def smooth(rng: np.random.Generator, shape: tuple[int, int], scale_px: int) -> NDArray[np.float32]:
    """A field of unit variance whose features have about `scale_px` pixels."""
    coarse = rng.standard_normal((shape[0] // scale_px + 3, shape[1] // scale_px + 3), np.float32)
    fine: NDArray[np.float32] = zoom(coarse, scale_px, order=1)[: shape[0], : shape[1]]
    return fine


def _asset(href: str, key: str, transform: tuple[float, ...], size: int) -> dict[str, Any]:
    bands = {} if key == "scl" else {"scale": 0.0001, "offset": -OFFSET_DN / 10_000}
    return {
        "href": href,
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "eo:bands": [{"name": key, "common_name": key}] if key != "scl" else [],
        "proj:shape": [size, size],
        "proj:transform": list(transform),
        "raster:bands": [{"data_type": "uint8" if key == "scl" else "uint16", "nodata": 0, **bands}],
    }


def _item(name: str, tile: str, date: str, left: int, assets: dict[str, Any]) -> dict[str, Any]:
    side = TILE_PX * 10
    x = np.array([left, left + side, left + side, left, left], float)
    y = np.array([TOP, TOP, TOP - side, TOP - side, TOP], float)
    lon, lat = project(EPSG, 4326, x, y)
    moment = f"{date}T10:10:31.000Z"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [np.stack([lon, lat], 1).tolist()]},
        "bbox": [lon.min(), lat.min(), lon.max(), lat.max()],
        "properties": {
            "datetime": moment,
            "created": moment,
            "platform": "sentinel-2a",
            "instruments": ["msi"],
            "proj:epsg": EPSG,
            "grid:code": f"MGRS-{tile}",
            "mgrs:utm_zone": int(tile[:2]),
            "mgrs:latitude_band": tile[2],
            "mgrs:grid_square": tile[3:],
            "s2:processing_baseline": "05.09",
            "s2:product_uri": f"S2A_MSIL2A_{date.replace('-', '')}T101031_N0509_R022_T{tile}.SAFE",
            "earthsearch:boa_offset_applied": False,
        },
        "links": [],
        "assets": assets,
    }


def catalog(items: list[dict[str, Any]]) -> bytes:
    """The items as a file that eo-batch reads as a catalogue."""
    return json.dumps({"type": "FeatureCollection", "features": items}).encode()
