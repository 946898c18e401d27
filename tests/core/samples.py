"""Specs, items and scenes that tests of `core` start from; each call gives a fresh document."""

from datetime import UTC, datetime
from typing import Any

from eo_batch.core.scenes import Affine6, Asset, Scene
from eo_batch.core.spec import RunSpec, SensorSpec

Json = dict[str, Any]

TILE_33TWL: Affine6 = (10.0, 0.0, 499980.0, 0.0, -10.0, 5100000.0)
"""Georeference of Sentinel-2 tile 33TWL at 10 m, 10980 pixels square."""
"""Georeference of Sentinel-2 tile 32TQR, whose east lies in zone 33's strip."""


def spec_document(**changes: Any) -> Json:
    """A valid spec as YAML gives it; `changes` replace top-level sections."""
    document: Json = {
        "name": "sample",
        "catalog": "https://stac.example/v1",
        "area": {"bbox": [15.0, 45.6, 15.2, 45.7]},
        "time": {"start": "2023-06-01", "end": "2023-09-01", "step": "month"},
        "grid": {"chip_px": 256, "gsd_m": 10, "block_chips": 4},
        "sensors": {"s2": {"kind": "s2-l2a", "bands": ["B04", "B08"]}},
    }
    return document | changes


def spec(**changes: Any) -> RunSpec:
    """The same as a spec."""
    return RunSpec.model_validate(spec_document(**changes))


def sensor(kind: str = "s2-l2a", **fields: Any) -> SensorSpec:
    """A sensor of a kind; Sentinel-2 with its red band only."""
    if kind == "s2-l2a":
        fields.setdefault("bands", ("B04",))
    return SensorSpec.model_validate({"kind": kind, **fields})


def asset(band: str = "B04", **fields: Any) -> Asset:
    """One file on tile 33TWL."""
    base: Json = {
        "href": f"s3://bucket/{band}.tif",
        "epsg": 32633,
        "transform": TILE_33TWL,
        "shape": (10980, 10980),
        "nodata": 0.0,
        "scale": 0.0001,
        "offset_dn": 0.0,
        "offset_reason": "test",
        "db": False,
    }
    return Asset(band=band, **(base | fields))


def scene(scene_id: str = "a", moment: str = "2023-07-01T10:00:00", **fields: Any) -> Scene:
    """One scene of sensor `s2` on tile 33TWL, with files B04, B08 and SCL."""
    base: Json = {
        "collection": "sentinel-2-l2a",
        "sensor": "s2",
        "bbox": (14.9997, 45.06, 16.4, 46.06),
        "tile": "MGRS-33TWL",
        "platform": "sentinel-2a",
        "baseline": "05.09",
        "orbit_state": None,
        "relative_orbit": None,
        "cloud_pct": 1.0,
        "assets": tuple(asset(band) for band in ("B04", "B08", "SCL")),
    }
    return Scene(scene_id=scene_id, moment=datetime.fromisoformat(moment).replace(tzinfo=UTC), **(base | fields))


def item(**changes: Any) -> Json:
    """A Sentinel-2 item as Element 84 publishes it, cut to red and SCL; `changes` update its properties."""
    folder = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/sentinel-s2-l2a-cogs/33/T/WL/2023/8/S2B_33TWL_0_L2A"
    band = {"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}
    grid = {"proj:shape": [10980, 10980], "proj:transform": list(TILE_33TWL)}
    coarse = {"proj:shape": [5490, 5490], "proj:transform": [20, 0, 499980, 0, -20, 5100000]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2B_33TWL_20230813_0_L2A",
        "collection": "sentinel-2-l2a",
        "bbox": [14.9997, 45.06, 16.4, 46.06],
        "geometry": None,
        "properties": {
            "datetime": "2023-08-13T10:08:07.856000Z",
            "platform": "sentinel-2b",
            "proj:epsg": 32633,
            "eo:cloud_cover": 1.7,
            "grid:code": "MGRS-33TWL",
            "s2:processing_baseline": "05.09",
            "earthsearch:boa_offset_applied": True,
        }
        | changes,
        "assets": {
            "red": {"href": f"{folder}/B04.tif", "raster:bands": [band], **grid},
            "scl": {"href": f"{folder}/SCL.tif", "raster:bands": [{"nodata": 0, "data_type": "uint8"}], **coarse},
        },
        "links": [],
    }
