"""Files that the fast path can't read (JPEG 2000, striped TIFFs): fetched whole, windows of them read by stackstac.

stackstac's reader warps onto the grid that it is given. It is given the file's own, so it reads pixels as they are.
"""

import asyncio

import numpy as np

from eo_batch.core.errors import ReadError
from eo_batch.core.scenes import Asset
from eo_batch.core.telling import one_line
from eo_batch.io.fetch import Fetcher
from eo_batch.io.windows import BoundsOf, RawImage, elsewhere, moved, window_of


async def read_whole(
    fetcher: Fetcher, key: str, asset: Asset, bounds_of: BoundsOf, margin_px: int, band: int
) -> RawImage | None:
    """As `RasterReader.read`, for one file that is fetched as a whole; `band` as for `check_band`."""
    data = await fetcher.whole(key)
    cost = fetcher.bytes_in, fetcher.requests
    return await asyncio.to_thread(_decode, data, asset, bounds_of, margin_px, band, *cost)


def check_band(asset: Asset, count: int, band: int) -> None:
    """Raise ReadError unless a file of `count` bands has that one, counted from 1; 0 is the only one."""
    if not band and count != 1:
        remedy = "name one of them with assets: {band: key#number}"
        raise ReadError(asset.href, "corrupt", f"the file has {count} bands where one was expected; {remedy}")
    if band > count:
        raise ReadError(asset.href, "missing", f"the file has {count} bands, no band {band}")


def _decode(
    data: bytes, asset: Asset, bounds_of: BoundsOf, margin_px: int, band: int, bytes_in: int, requests: int
) -> RawImage | None:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError
    from rasterio.windows import Window
    from stackstac.raster_spec import RasterSpec
    from stackstac.rio_reader import AutoParallelRioReader

    try:
        with rasterio.MemoryFile(data) as memory:
            with memory.open() as source:
                check_band(asset, source.count, band)
                epsg = source.crs.to_epsg() if source.crs else None
                if epsg is None:
                    raise ReadError(asset.href, "corrupt", "the file names no EPSG code")
                t, dtype, nodata = source.transform, np.dtype(source.dtypes[0]), source.nodata
                if t.b or t.d or t.a <= 0 or t.e >= 0:
                    raise ReadError(asset.href, "corrupt", "its pixel grid is turned or not north-up")
                transform = (t.a, t.b, t.c, t.d, t.e, t.f)
                told = elsewhere(asset, epsg, transform, source.shape)
                found = window_of(transform, source.height, source.width, bounds_of(epsg), margin_px)
                if found is None:
                    return None
                row, col, rows, cols = found
                window = Window(col, row, cols, rows)
                # stackstac knows files of one band only.
                pixels = source.read(band, window=window) if source.count > 1 else None
                own_grid = RasterSpec(epsg, tuple(source.bounds), (t.a, -t.e))
            if pixels is None:
                reader = AutoParallelRioReader(
                    url=memory.name,
                    spec=own_grid,
                    resampling=Resampling.nearest,
                    dtype=dtype,
                    fill_value=dtype.type(0 if nodata is None else nodata),
                    scale_offset=(1, 0),
                )
                try:
                    pixels = np.asarray(reader.read(window))
                finally:
                    reader.close()
            return RawImage(pixels, None, epsg, moved(transform, row, col), nodata, bytes_in, requests, told)
    except (RasterioError, RuntimeError) as error:
        raise ReadError(asset.href, "corrupt", one_line(error)) from error
