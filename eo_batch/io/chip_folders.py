"""Chips that lie as M3LEO's do, as an ItemCollection: what is read then goes the way of all other files.

Layout: `<folder>/<data set>/<chip>.tif`, the data sets of one area beside each other, and beside them or above tables
`*_splits*.csv` with the columns `identifier` and `split`. Chips need not be in every data set.
"""

import csv
import json
from pathlib import Path
from typing import Any

from eo_batch.core.errors import CatalogError


def write_catalog(folder: Path, out: Path) -> tuple[Path, dict[str, int]]:
    """Write the catalogue; its path and the chips found of each data set. Raises CatalogError if there are none."""
    files = sorted(path for path in folder.glob("*/*.tif") if path.is_file())
    if not files:
        raise CatalogError(f"{folder} holds no <data set>/<chip>.tif; give the folder of one area")
    splits = _splits(folder)
    items = [_item(path.resolve(), splits.get(path.stem)) for path in files]
    out.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    counts: dict[str, int] = {}
    for item in items:
        counts[item["collection"]] = counts.get(item["collection"], 0) + 1
    return out, counts


def _splits(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for table in sorted([*folder.glob("*_splits*.csv"), *folder.parent.glob(f"{folder.name}_splits*.csv")]):
        with table.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if "identifier" not in row or "split" not in row:
                    raise CatalogError(f"{table} has no columns identifier and split; it has {', '.join(row)}")
                found[row["identifier"]] = row["split"]
    return found


def _item(path: Path, split: str | None) -> dict[str, Any]:
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.warp import transform_bounds

    try:
        with rasterio.open(path) as source:
            epsg = source.crs.to_epsg() if source.crs else None
            if epsg is None:
                raise CatalogError(f"{path} names no EPSG code; give it one with gdal_edit.py -a_srs")
            box = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
            grid = {
                "proj:code": f"EPSG:{epsg}",
                "proj:transform": list(source.transform)[:6],
                "proj:shape": [source.height, source.width],
            }
            bands = [
                {"name": name or f"{number}", **({} if source.nodata is None else {"nodata": source.nodata})}
                for number, name in enumerate(source.descriptions, 1)
            ]
    except RasterioError as error:
        raise CatalogError(f"{path} can't be read ({error}); delete or mend it") from error
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": path.stem,
        "collection": path.parent.name,
        "geometry": None,
        "bbox": list(box),
        # Files tell no time: these are products of a year or of all time, read by kinds without a time axis.
        "properties": {"datetime": "1970-01-01T00:00:00Z", **({"m3leo:split": split} if split else {})},
        "assets": {"data": {"href": str(path), **grid, "bands": bands}},
        "links": [],
    }
