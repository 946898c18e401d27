"""Data sets that xarray opens (Zarr, netCDF, Earth Engine through xee), as a catalogue and as files.

An address is `<data set>#<variable>`, or `<data set>#<variable>@<time>` for one step of a series. Values are what
xarray decodes (scale and fill value applied), so NaN is no data.
"""

import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from obstore.exceptions import BaseError

from eo_batch.core.errors import CatalogError, ReadError, SpecError, StoreError
from eo_batch.core.scenes import Affine6, Asset
from eo_batch.core.telling import one_line, shown
from eo_batch.core.utm import WGS84, project
from eo_batch.io.assets import open_asset
from eo_batch.io.fetch import classify
from eo_batch.io.windows import BoundsOf, RawImage, moved, window_of
from eo_batch.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

_ENDS = (".zarr", ".zarr/", ".nc", ".nc4")
_UNEVEN_PX = 0.01
"""Coordinates further off an even spacing than this share of a pixel are no grid."""
_X = ("x", "lon", "longitude", "easting")
_Y = ("y", "lat", "latitude", "northing")


def is_dataset(href: str) -> bool:
    """Whether an address is that of a data set."""
    return href.startswith("ee://") or href.split("?", 1)[0].endswith(_ENDS)


def _path(href: str) -> str:
    return href.split("?", 1)[0].rstrip("/")


def open_dataset(href: str, settings: Settings) -> "xr.Dataset":
    """The data set, opened lazily (netCDF: fetched whole). Raises obstore's errors and what xarray raises."""
    import xarray as xr

    if href.startswith("ee://"):
        try:
            return xr.open_dataset(href, engine="ee")
        except ValueError as error:
            raise SpecError(
                f"{shown(href)} needs Earth Engine's reader and a log-in: pip install xee ({one_line(error)})"
            ) from error
    client, key = open_asset(href, settings)
    if _path(href).endswith(".zarr"):
        from zarr.storage import ObjectStore

        from eo_batch.io.zarr_store import BelowPrefix

        store = BelowPrefix(ObjectStore(client, read_only=True), key.strip("/"))
        opened: xr.Dataset = xr.open_zarr(store, chunks=None)
        return opened
    import obstore

    try:
        return xr.open_dataset(io.BytesIO(bytes(obstore.get(client, key).bytes())), engine="h5netcdf")
    except ValueError as error:
        if "unrecognized engine" in str(error):
            raise SpecError(f"{shown(href)} is netCDF: pip install 'eo-batch[netcdf]'") from error
        raise


def items_of(href: str, settings: Settings, epsg: int | None) -> Iterator[Mapping[str, Any]]:
    """A STAC item for each time step, and one for what has no time; its assets are the variables.

    epsg: CRS where the data set does not tell. Raises CatalogError for a data set without a grid.
    """
    try:
        dataset = open_dataset(href, settings)
    except (BaseError, OSError, StoreError, KeyError, ValueError) as error:
        raise CatalogError(f"{shown(href)} can't be opened by xarray ({one_line(error)}); check the address") from error
    variables = {str(name): v for name, v in dataset.data_vars.items() if _axes(v) is not None}
    if not variables:
        raise CatalogError(
            f"{shown(href)} has no variable on x and y, with or without time; it has {list(dataset.data_vars)}"
        )
    times = dataset["time"].values if "time" in dataset.dims else np.zeros(0, "datetime64[s]")
    name = _path(href).rpartition("/")[2].rpartition(".")[0]
    for moment in (None, *times):
        timed = moment is not None
        chosen = {key: v for key, v in variables.items() if ("time" in v.dims) == timed}
        if not chosen:
            continue
        # What has no time belongs to all of it; an item must have one.
        stamp = f"{np.datetime_as_string(moment, 's')}Z" if timed else "1970-01-01T00:00:00Z"
        assets, boxes = {}, []
        for key, variable in chosen.items():
            code = _epsg(dataset, variable) or epsg
            if code is None:
                raise CatalogError(f"{shown(href)}: {key} names no CRS; declare sensors.*.epsg")
            transform, shape, _ = _grid(variable, shown(href))
            boxes.append(_box(code, transform, shape))
            assets[key] = {
                "href": f"{href}#{key}" + (f"@{stamp}" if timed else ""),
                "proj:code": f"EPSG:{code}",
                "proj:transform": list(transform),
                "proj:shape": list(shape),
            }
        low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
        yield {
            "type": "Feature",
            "id": f"{name}_{re.sub('[^0-9T]', '', stamp)}" if timed else name,
            "collection": name,
            "bbox": [float(low[0]), float(low[1]), float(high[2]), float(high[3])],
            "properties": {"datetime": stamp},
            "assets": assets,
        }


def read_variable(dataset: "xr.Dataset", asset: Asset, bounds_of: BoundsOf, margin_px: int) -> RawImage | None:
    """As `RasterReader.read`, for one variable of an open data set. Raises ReadError."""
    base, _, rest = asset.href.partition("#")
    name, _, moment = rest.partition("@")
    if name not in dataset.data_vars or _axes(dataset[name]) is None:
        raise ReadError(asset.href, "missing", f"no variable {name} on x and y; there are {list(dataset.data_vars)}")
    variable = dataset[name]
    try:
        if "time" in variable.dims:
            variable = (
                variable.sel(time=np.datetime64(moment.removesuffix("Z"), "ns")) if moment else variable.isel(time=0)
            )
        transform, shape, down = _grid(variable, base)
        epsg = _epsg(dataset, variable) or asset.epsg
        if epsg is None:
            raise ReadError(asset.href, "corrupt", "names no CRS; declare sensors.*.epsg")
        window = window_of(transform, *shape, bounds_of(epsg), margin_px)
        if window is None:
            return None
        row, col, rows, cols = window
        y, x = _axes(variable) or ("", "")
        first = row if down else shape[0] - row - rows
        part = variable.transpose(y, x).isel({y: slice(first, first + rows), x: slice(col, col + cols)})
        pixels: NDArray[Any] = part.values if down else part.values[::-1]
    except BaseError as error:
        raise ReadError(asset.href, classify(error), one_line(error)) from error
    except (CatalogError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise ReadError(asset.href, "corrupt", one_line(error)) from error
    # How much a store fetched is not told; what came out of it is.
    return RawImage(pixels.copy(order="C"), None, epsg, moved(transform, row, col), None, pixels.nbytes, 1)


def _axes(variable: "xr.DataArray") -> tuple[str, str] | None:
    """Names of the y and x dimensions of a variable that has no others but time."""
    names = {str(dim): str(dim).lower() for dim in variable.dims if dim != "time"}
    y = [dim for dim, low in names.items() if low in _Y]
    x = [dim for dim, low in names.items() if low in _X]
    return (y[0], x[0]) if len(y) == len(x) == 1 and len(names) == 2 else None


def _grid(variable: "xr.DataArray", href: str) -> tuple[Affine6, tuple[int, int], bool]:
    """Transform from the north-western corner, (rows, columns), and whether rows run southwards in the file."""
    axes = _axes(variable)
    assert axes is not None  # callers have looked
    y, x = (np.asarray(variable[name].values, np.float64) for name in axes)
    if len(y) < 2 or len(x) < 2:
        raise CatalogError(f"{href}: a grid of {len(y)} x {len(x)} pixels has no pixel size")
    step_y, step_x = (y[-1] - y[0]) / (len(y) - 1), (x[-1] - x[0]) / (len(x) - 1)
    even = all(
        np.abs(at - (at[0] + s * np.arange(len(at)))).max() < _UNEVEN_PX * abs(s)
        for at, s in ((y, step_y), (x, step_x))
    )
    if not even or step_x <= 0:
        raise CatalogError(f"{href}: coordinates {axes} are not evenly spaced eastwards; regrid it first")
    top = max(y[0], y[-1]) + abs(step_y) / 2
    transform = (float(step_x), 0.0, float(x[0] - step_x / 2), 0.0, -float(abs(step_y)), float(top))
    return transform, (len(y), len(x)), bool(step_y < 0)


def _epsg(dataset: "xr.Dataset", variable: "xr.DataArray") -> int | None:
    """CRS by CF's grid mapping, by an attribute, or since the axes are longitude and latitude."""
    from pyproj import CRS

    mapping = variable.attrs.get("grid_mapping") or variable.encoding.get("grid_mapping") or "spatial_ref"
    holder = dataset[mapping].attrs if mapping in dataset.variables else {}
    for stated in (
        holder.get("crs_wkt"),
        holder.get("spatial_ref"),
        variable.attrs.get("crs"),
        dataset.attrs.get("crs"),
    ):
        if stated is not None:
            code = CRS.from_user_input(stated).to_epsg()
            return int(code) if code is not None else None
    y, x = _axes(variable) or ("", "")
    return WGS84 if x.lower().startswith("lon") and y.lower().startswith("lat") else None


def _box(epsg: int, transform: Affine6, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """West, south, east, north of a grid, degrees."""
    a, _, left, _, e, top = transform
    x = left + np.linspace(0, a * shape[1], 33)
    y = top + np.linspace(0, e * shape[0], 33)
    lon, lat = project(epsg, WGS84, *np.meshgrid(x, y)) if epsg != WGS84 else np.meshgrid(x, y)
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())
