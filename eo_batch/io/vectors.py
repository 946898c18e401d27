"""Points and polygons of GeoParquet and GeoJSON files on a block's grid, behind the protocol of rasters."""

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from eo_batch.core.errors import ReadError
from eo_batch.core.plan import asset_bounds
from eo_batch.core.scenes import Affine6, Asset
from eo_batch.core.telling import one_line
from eo_batch.core.utm import WGS84, project
from eo_batch.io.rasters import AssetReader
from eo_batch.io.windows import Bounds, BoundsOf, RawImage

Geometries = NDArray[Any]


Draw = Callable[[Geometries, Bounds], tuple[NDArray[Any], NDArray[np.bool_]]]
"""Geometries in longitude and latitude, and the box that their file speaks of, to pixels and their validity (y, x)."""


@dataclass(frozen=True)
class VectorReader:
    """Reads whole files and draws them on one grid, so that what it gives needs no resampling."""

    files: AssetReader
    where: Mapping[str, Sequence[str | int]]
    """Which features, as in the spec."""
    draw: Draw
    epsg: int
    """Of the grid that is drawn on."""
    transform: Affine6

    @property
    def patience_s(self) -> float:
        """See `RasterReader`."""
        return self.files.patience_s

    async def read(self, asset: Asset, bounds_of: BoundsOf, margin_px: int) -> RawImage | None:
        """See `RasterReader`; the window is always the grid."""
        data, bytes_in, requests = await self.files.whole(asset)
        return await asyncio.to_thread(self._drawn, data, asset, bytes_in, requests)

    def _drawn(self, data: bytes, asset: Asset, bytes_in: int, requests: int) -> RawImage:
        try:
            geometries = features(data, self.where)
        except (KeyError, OSError, TypeError, ValueError, pa.ArrowException, shapely.errors.ShapelyError) as error:
            detail = f"not usable as GeoParquet or GeoJSON: {one_line(error)}"
            raise ReadError(asset.href, "corrupt", detail) from error
        pixels, valid = self.draw(geometries, asset_bounds(asset))
        return RawImage(pixels, valid, self.epsg, self.transform, None, bytes_in, requests)


def features(data: bytes, where: Mapping[str, Sequence[str | int]]) -> Geometries:
    """Geometries in longitude and latitude of the features whose properties have one of the values asked for.

    Raises KeyError, ValueError and others for what can't be read, and for a property that the file does not have.
    """
    geometries, properties = _parquet(data) if data[:4] == b"PAR1" else _geojson(data)
    keep = np.ones(len(geometries), bool)
    for name, values in where.items():
        if name not in properties:
            raise ValueError(f"features have no property {name!r}; they have {', '.join(sorted(properties))}")
        keep &= np.isin(np.array([str(value) for value in properties[name]]), [str(value) for value in values])
    return np.asarray(geometries[keep & ~shapely.is_missing(geometries) & ~shapely.is_empty(geometries)])


def _parquet(data: bytes) -> tuple[Geometries, Mapping[str, Sequence[Any]]]:
    table = pq.read_table(io.BytesIO(data), use_threads=False)
    about = json.loads((table.schema.metadata or {})[b"geo"])
    name = about["primary_column"]
    column = about["columns"][name]
    if column["encoding"] != "WKB":
        raise ValueError(f"geometry is encoded as {column['encoding']}, not WKB")
    geometries = np.asarray(shapely.from_wkb(table[name].to_numpy(zero_copy_only=False)))
    if column.get("crs") is not None:
        geometries = _in_degrees(geometries, column["crs"])
    return geometries, {key: table[key].to_pylist() for key in table.column_names if key != name}


def _geojson(data: bytes) -> tuple[Geometries, Mapping[str, Sequence[Any]]]:
    document = json.loads(data)
    found = document["features"]
    geometries = np.array([shapely.from_geojson(json.dumps(f["geometry"])) if f["geometry"] else None for f in found])
    if "crs" in document:  # of the first GeoJSON, before RFC 7946
        geometries = _in_degrees(geometries, document["crs"]["properties"]["name"])
    names = {key: None for feature in found for key in feature.get("properties") or {}}
    return geometries, {key: [(f.get("properties") or {}).get(key) for f in found] for key in names}


def _in_degrees(geometries: Geometries, crs: Any) -> Geometries:
    from pyproj import CRS

    parsed = CRS.from_json_dict(crs) if isinstance(crs, dict) else CRS.from_user_input(crs)
    epsg = WGS84 if parsed.to_authority() == ("OGC", "CRS84") else parsed.to_epsg()
    if epsg is None:
        raise ValueError(f"its CRS {parsed.name!r} has no EPSG code")
    if epsg == WGS84:
        return geometries
    return np.asarray(shapely.transform(geometries, lambda xy: np.column_stack(project(epsg, WGS84, *xy.T))))
