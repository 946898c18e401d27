"""Files that the fast path can't read (JPEG 2000, striped TIFFs): fetched whole, windows of them read by stackstac.

stackstac's reader warps onto the grid that it is given. It is given the file's own, so it reads pixels as they are.
"""

import asyncio

import numpy as np

from eo_batch.core.errors import ReadError
from eo_batch.core.scenes import Asset
from eo_batch.io.fetch import Fetcher
from eo_batch.io.windows import BoundsOf, RawImage, moved, window_of


async def read_whole(fetcher: Fetcher, key: str, asset: Asset, bounds_of: BoundsOf, margin_px: int) -> RawImage | None:
    """As `RasterReader.read`, for one file that is fetched as a whole."""
    data = await fetcher.whole(key)
    return await asyncio.to_thread(_decode, data, asset, bounds_of, margin_px, fetcher.bytes_in, fetcher.requests)


def _decode(
    data: bytes, asset: Asset, bounds_of: BoundsOf, margin_px: int, bytes_in: int, requests: int
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
                if source.count != 1:
                    raise ReadError(asset.href, "corrupt", f"the file has {source.count} bands where one was expected")
                epsg = source.crs.to_epsg() if source.crs else None
                if epsg is None:
                    raise ReadError(asset.href, "corrupt", "the file names no EPSG code")
                t, dtype, nodata = source.transform, np.dtype(source.dtypes[0]), source.nodata
                height, width, bounds = source.height, source.width, tuple(source.bounds)
            if t.b or t.d or t.a <= 0 or t.e >= 0:
                raise ReadError(asset.href, "corrupt", "its pixel grid is turned or not north-up")
            transform = (t.a, t.b, t.c, t.d, t.e, t.f)
            window = window_of(transform, height, width, bounds_of(epsg), margin_px)
            if window is None:
                return None
            row, col, rows, cols = window
            fill = dtype.type(0 if nodata is None else nodata)
            own_grid = RasterSpec(epsg, bounds, (t.a, -t.e))
            reader = AutoParallelRioReader(
                url=memory.name,
                spec=own_grid,
                resampling=Resampling.nearest,
                dtype=dtype,
                fill_value=fill,
                scale_offset=(1, 0),
            )
            try:
                pixels = np.asarray(reader.read(Window(col, row, cols, rows)))
            finally:
                reader.close()
            return RawImage(pixels, None, epsg, moved(transform, row, col), nodata, bytes_in, requests)
    except (RasterioError, RuntimeError) as error:
        raise ReadError(asset.href, "corrupt", str(error).split("\n", 1)[0][:300]) from error
