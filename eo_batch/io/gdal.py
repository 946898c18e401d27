"""Files that the fast path can't read (JPEG 2000, striped TIFFs): fetched whole, opened by GDAL in memory."""

import asyncio

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
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    try:
        with rasterio.MemoryFile(data) as memory, memory.open() as source:
            if source.count != 1:
                raise ReadError(asset.href, "corrupt", f"the file has {source.count} bands where one was expected")
            epsg = source.crs.to_epsg() if source.crs else asset.epsg
            if epsg is None:
                raise ReadError(asset.href, "corrupt", "neither the file nor the catalogue names an EPSG code")
            t = source.transform
            transform = (t.a, t.b, t.c, t.d, t.e, t.f)
            window = window_of(transform, source.height, source.width, bounds_of(epsg), margin_px)
            if window is None:
                return None
            row, col, rows, cols = window
            pixels = source.read(1, window=Window(col, row, cols, rows))
            return RawImage(pixels, None, epsg, moved(transform, row, col), source.nodata, bytes_in, requests)
    except RasterioError as error:
        raise ReadError(asset.href, "corrupt", str(error).split("\n", 1)[0][:300]) from error
