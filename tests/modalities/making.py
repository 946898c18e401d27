"""Runs of small specs until their chips are published, in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
import xarray as xr
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

import eo_batch
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.drive import StageState, drive
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table
from eo_batch.runners.base import Event
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings


class Quiet:
    def begin(self, state: StageState) -> None: ...

    def event(self, state: StageState, event: Event) -> None:
        assert event.kind == "done", event.message

    def end(self, state: StageState) -> None: ...


class Made:
    """A run whose chips are published."""

    def __init__(self, text: str, store: Path, *overrides: str) -> None:
        spec = parse_spec(text, overrides)
        self.run = Run(spec, parse_store(str(store)), Settings.from_env())
        self.run.submit()
        drive(self.run, LocalRunner(0), Quiet(), until="publish")
        self.cube: xr.Dataset = eo_batch.open_cube(f"{store}/{spec.name}").load()

    def table(self, name: str) -> pa.Table:
        """A table of the stage `publish`."""
        return read_table(self.run.store, f"{self.run.identity.prefix('publish')}/{name}.parquet")

    def mosaic(self, array: str, epsg: int, **at: Any) -> tuple[NDArray[Any], float, float]:
        """One band of all chips of a zone as one image, with its left and top edge."""
        here = self.cube.isel(chip=np.flatnonzero(self.cube.epsg.values == epsg))
        values = here[array].sel(**at).values
        px = values.shape[-1]
        pixel = float(self.cube[array].attrs["pixel_size_m"])
        left, top = float(here.x0.min()), float(here.y0.max())
        cols = round((float(here.x0.max()) - left) / pixel) + px
        rows = round((top - float(here.y0.min())) / pixel) + px
        out = np.full((rows, cols), np.nan)
        for chip, x0, y0 in zip(values, here.x0.values, here.y0.values, strict=True):
            row, col = round((top - y0) / pixel), round((x0 - left) / pixel)
            out[row : row + px, col : col + px] = chip
        return out, left, top


def raster_item(
    path: Path,
    values_yx: NDArray[Any],
    epsg: int,
    transform: tuple[float, float, float, float, float, float],
    asset: str = "data",
    moment: str | None = "2023-06-15T00:00:00Z",
    nodata: float | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """Write one band as a tiled GeoTIFF; its STAC item, of collection `made`."""
    rows, cols = values_yx.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=1, dtype=values_yx.dtype, crs=f"EPSG:{epsg}",
        transform=rasterio.Affine(*transform), nodata=nodata, tiled=True, blockxsize=256, blockysize=256,
    ) as target:  # fmt: skip
        target.write(values_yx, 1)
        bounds = transform_bounds(target.crs, "EPSG:4326", *target.bounds)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": path.stem,
        "collection": "made",
        "geometry": None,
        "bbox": list(bounds),
        "properties": {
            "datetime": moment,
            "proj:epsg": epsg,
            "proj:transform": list(transform),
            "proj:shape": [rows, cols],
            **properties,
        },
        "assets": {asset: {"href": str(path)}},
        "links": [],
    }


def catalog_of(folder: Path, *items: dict[str, Any]) -> str:
    """An ItemCollection of items, as an override of the spec."""
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    return f"catalog={path}"


def level_ground(folder: Path, bbox: tuple[float, float, float, float]) -> str:
    """A catalogue of elevation over a box, for runs of labels: something has to be there to learn from."""
    west, south, east, north = bbox
    pixel = (east - west) / 100
    elevation = np.full((round((north - south) / pixel) + 1, 101), 5, np.float32)
    catalog_of(folder, raster_item(folder / "ground.tif", elevation, 4326, (pixel, 0, west, 0, -pixel, north)))
    return f"{folder}/items.json"
