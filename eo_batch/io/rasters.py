"""Read one band of one file over one block: async range requests, decoding in threads, no resampling.

Tiled GeoTIFFs take the fast path (async-geotiff over obstore); other formats and layouts are fetched whole
and opened by GDAL behind the same protocol. An address with a `#` names a band by number, or a variable of
what xarray opens.
"""

import asyncio
import threading
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from async_geotiff import GeoTIFF, Window
from obstore.exceptions import BaseError

from eo_batch.core.errors import ReadError, StoreError
from eo_batch.core.scenes import Affine6, Asset
from eo_batch.core.telling import one_line
from eo_batch.io.assets import open_asset, renew_asset
from eo_batch.io.fetch import ByteBudget, Fetcher, classify
from eo_batch.io.gdal import check_band, read_whole
from eo_batch.io.headers import check_header
from eo_batch.io.tiles import check_tiles, decodable, read_window
from eo_batch.io.windows import BoundsOf, RawImage, elsewhere, moved, window_of
from eo_batch.io.xarrays import open_dataset, read_variable
from eo_batch.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")


class RasterReader(Protocol):
    """Reads windows of files."""

    @property
    def patience_s(self) -> float:
        """Seconds that one shard waits, in all, for sources of which none answers."""
        ...

    async def read(self, asset: Asset, bounds_of: BoundsOf, margin_px: int) -> RawImage | None:
        """The window of `asset` that covers some bounds plus a margin; None if the file does not reach them. Its pixels
        are the caller's: they may be written over.

        bounds_of: maps an EPSG code to the wanted bounds in it; asked once the file's CRS is known.
        margin_px: pixels of the file added on every side.

        Raises ReadError with the failure's class.
        """
        ...


class AssetReader:
    """The real reader. One instance serves one shard, on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budget = ByteBudget(settings.inflight_bytes)
        self._datasets: dict[str, Any] = {}
        self._opening = threading.Lock()

    @property
    def patience_s(self) -> float:
        """See `RasterReader`."""
        return self._settings.assets_patience_s

    async def whole(self, asset: Asset) -> tuple[bytes, int, int]:
        """A file's bytes, the bytes that were fetched, and the requests. Raises ReadError."""

        async def all_of(fetcher: Fetcher, key: str) -> tuple[bytes, int, int]:
            return await fetcher.whole(key), fetcher.bytes_in, fetcher.requests

        return await self._with_token(asset, all_of)

    async def read(self, asset: Asset, bounds_of: BoundsOf, margin_px: int) -> RawImage | None:
        """See `RasterReader`."""
        href, _, part = asset.href.partition("#")
        if part and not part.isdigit():
            return await asyncio.to_thread(self._variable, asset, bounds_of, margin_px)
        file = replace(asset, href=href)
        band = int(part or 0)
        return await self._with_token(file, lambda found, key: self._read(found, key, file, bounds_of, margin_px, band))

    async def _with_token(self, asset: Asset, job: Callable[[Fetcher, str], Awaitable[T]]) -> T:
        """What `job` gives for a file. What a token does not open is tried once more with a new one."""
        client, key = self._open(asset)
        stall_s = self._settings.assets_stall_s
        try:
            return await job(Fetcher(client, asset.href, self._budget, stall_s), key)
        except ReadError as error:
            if error.kind != "forbidden" or not renew_asset(asset.href, self._settings, client):
                raise
        client, key = self._open(asset)
        return await job(Fetcher(client, asset.href, self._budget, stall_s), key)

    def _open(self, asset: Asset) -> tuple["ObjectStore", str]:
        try:
            return open_asset(asset.href, self._settings)
        except StoreError as error:
            raise ReadError(asset.href, classify(error), str(error)) from error
        except ValueError as error:
            raise ReadError(asset.href, "missing", f"the catalogue's address is none: {error}") from error

    async def _read(
        self, fetcher: Fetcher, key: str, asset: Asset, bounds_of: BoundsOf, margin_px: int, band: int
    ) -> RawImage | None:
        try:
            await check_header(fetcher, key)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # striped files: told apart below
                tiff = await GeoTIFF.open(key, store=fetcher)
            if tiff.ifd.tile_width is None:
                return await read_whole(fetcher, key, asset, bounds_of, margin_px, band)
            return await self._window(tiff, fetcher, key, asset, bounds_of, margin_px, band)
        except (ReadError, MemoryError):
            raise
        except Exception as error:
            # The TIFF library raises its own types for what the fetcher met; the fetcher knows the class.
            if fetcher.failure is not None:
                raise fetcher.failure from error
            if "magic bytes" in str(error) and await _looks_like_jp2(fetcher, key):
                return await read_whole(fetcher, key, asset, bounds_of, margin_px, band)
            raise ReadError(asset.href, "corrupt", one_line(error)) from error

    def _variable(self, asset: Asset, bounds_of: BoundsOf, margin_px: int) -> RawImage | None:
        base = asset.href.partition("#")[0]
        with self._opening:  # one after another: netCDF's library takes one thread, and a data set is opened once
            try:
                if base not in self._datasets:
                    self._datasets[base] = open_dataset(base, self._settings)
            except (BaseError, OSError, StoreError) as error:
                raise ReadError(asset.href, classify(error), one_line(error)) from error
            except (KeyError, ValueError) as error:
                raise ReadError(asset.href, "corrupt", one_line(error)) from error
            return read_variable(self._datasets[base], asset, bounds_of, margin_px)

    async def _window(
        self, tiff: GeoTIFF, fetcher: Fetcher, key: str, asset: Asset, bounds_of: BoundsOf, margin_px: int, band: int
    ) -> RawImage | None:
        epsg = _epsg_of(tiff, asset)
        transform = _transform_of(tiff)
        check_band(asset, tiff.count, band)
        window = window_of(transform, tiff.height, tiff.width, bounds_of(epsg), margin_px)
        if window is None:
            return None
        row, col, rows, cols = window
        check_tiles(tiff)
        mask = None
        if decodable(tiff):
            pixels = await read_window(tiff, fetcher, key, window)
        else:
            array = await tiff.read(window=Window(col_off=col, row_off=row, width=cols, height=rows))
            pixels, mask = array.data[max(band, 1) - 1], array.mask
        return RawImage(
            pixels,
            mask,
            epsg,
            moved(transform, row, col),
            tiff.nodata,
            fetcher.bytes_in,
            fetcher.requests,
            elsewhere(asset, epsg, transform, (tiff.height, tiff.width)),
        )


def _epsg_of(tiff: GeoTIFF, asset: Asset) -> int:
    keys = tiff._gkd
    for code in (keys.projected_type, keys.geographic_type):
        if code is not None and code != 32767:  # 32767: user-defined, no code
            return int(code)
    if asset.epsg is not None:
        return asset.epsg
    raise ReadError(asset.href, "corrupt", "neither the file nor the catalogue names an EPSG code")


def _transform_of(tiff: GeoTIFF) -> Affine6:
    """Transform of pixel corners. async-geotiff takes a tie point for the first pixel's, wherever it is tied."""
    matrix = tiff.transform
    a, b, c, d, e, f = matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f
    tie = tiff.ifd.model_tiepoint
    if tie and tiff.ifd.model_pixel_scale:
        return moved((a, b, c, d, e, f), -tie[1], -tie[0])
    return a, b, c, d, e, f


async def _looks_like_jp2(fetcher: Fetcher, key: str) -> bool:
    head = bytes(await fetcher.get_range_async(key, start=0, end=12))
    return head[4:8] == b"jP  "
