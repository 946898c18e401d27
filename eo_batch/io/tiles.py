"""Tiles of a TIFF to the pixels of a window: fetched in one go, each decoded by a thread into its place.

Decoding is most of what reading costs, so the formats that publishers use are decoded by imagecodecs (libdeflate and
its like), into buffers that are used again: fresh memory for every tile costs as much as half of its decoding. Other
formats are left to async-tiff.

Legend: y rows, x columns.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from async_geotiff import GeoTIFF
from async_tiff import ImageFileDirectory
from async_tiff.enums import Compression, Endianness, PhotometricInterpretation, Predictor, SampleFormat
from numpy.typing import NDArray

from eo_batch.io.fetch import Fetcher

Pixels = NDArray[Any]

_DECODERS: dict[Any, Callable[..., Any]] = {
    Compression.Deflate: imagecodecs.deflate_decode,
    Compression.OldDeflate: imagecodecs.deflate_decode,
    Compression.ZSTD: imagecodecs.zstd_decode,
    Compression.LZW: imagecodecs.lzw_decode,
}
_KINDS = {SampleFormat.Uint: "u", SampleFormat.Int: "i", SampleFormat.Float: "f"}
_MOST_PIXELS = 2**28
"""Of one tile: more than a whole Sentinel-2 scene; a damaged header must not ask for all of a machine's memory."""
_buffers = threading.local()


def decodable(tiff: GeoTIFF) -> bool:
    """Whether `read_window` knows the file's compression, predictor and sample type. It knows no masks."""
    ifd = tiff.ifd
    floating = ifd.sample_format[:1] == [SampleFormat.Float]
    return (
        ifd.compression in _DECODERS
        and (ifd.predictor in (None, Predictor.Unknown, Predictor.FloatingPoint if floating else Predictor.Horizontal))
        and ifd.samples_per_pixel == 1
        and _dtype(ifd) is not None
        and tiff.mask_ifd is None
        and tiff.tiff.endianness == Endianness.LittleEndian
        and ifd.photometric_interpretation != PhotometricInterpretation.WhiteIsZero
    )


def check_tiles(tiff: GeoTIFF) -> None:
    """Raise ValueError for tiles larger than any real one."""
    high, wide = _sides(tiff.ifd)
    if high * wide > _MOST_PIXELS:
        raise ValueError(f"its tiles have {wide} x {high} pixels")


async def read_window(tiff: GeoTIFF, fetcher: Fetcher, key: str, window: tuple[int, int, int, int]) -> Pixels:
    """Pixels (y, x) of (row, column, rows, columns), which lie within the raster. The file is `decodable`.

    Tiles that the file leaves out hold its nodata value, or 0, as GDAL has it. Raises what the fetcher and the decoders
    raise.
    """
    ifd = tiff.ifd
    row, col, rows, cols = window
    high, wide = _sides(ifd)
    places, starts, ends = [], [], []
    dtype = _dtype(ifd)
    pixels = np.empty((rows, cols), dtype)
    across = -(-ifd.image_width // wide)
    counts, offsets = ifd.tile_byte_counts or [], ifd.tile_offsets or []
    for y in range(row // high, (row + rows - 1) // high + 1):
        for x in range(col // wide, (col + cols - 1) // wide + 1):
            number = y * across + x
            if not counts[number]:
                pixels[_within(y * high - row, high, rows), _within(x * wide - col, wide, cols)] = tiff.nodata or 0
                continue
            places.append((y * high - row, x * wide - col))
            starts.append(offsets[number])
            ends.append(offsets[number] + counts[number])
    if places:
        parts = await fetcher.get_ranges_async(key, starts=starts, ends=ends)
        decode = [asyncio.to_thread(_decode, ifd, part, pixels, at) for part, at in zip(parts, places, strict=True)]
        await asyncio.gather(*decode)
    return pixels


def _decode(ifd: ImageFileDirectory, data: Any, pixels_yx: Pixels, at: tuple[int, int]) -> None:
    """Decode one tile, whose corner lies at `at` of the window (negative where the window begins within the tile)."""
    high, wide = _sides(ifd)
    tile = _buffer((high, wide), pixels_yx.dtype)
    flat = tile.reshape(-1).view(np.uint8)
    found = _DECODERS[ifd.compression](memoryview(data), out=flat)
    if len(found) != flat.size:
        raise ValueError(f"a tile decodes to {len(found)} bytes instead of {flat.size}")
    rows, cols = _within(at[0], high, pixels_yx.shape[0]), _within(at[1], wide, pixels_yx.shape[1])
    needed = tile[rows.start - at[0] : rows.stop - at[0]]
    if ifd.predictor == Predictor.Horizontal:
        imagecodecs.delta_decode(needed, axis=1, out=needed)
    elif ifd.predictor == Predictor.FloatingPoint:
        needed = imagecodecs.floatpred_decode(needed, axis=-1)
    pixels_yx[rows, cols] = needed[:, cols.start - at[1] : cols.stop - at[1]]


def _buffer(shape: tuple[int, int], dtype: np.dtype[Any]) -> Pixels:
    """This thread's tile of that shape: what it held before is lost."""
    held: Pixels | None = getattr(_buffers, "tile", None)
    if held is None or held.shape != shape or held.dtype != dtype:
        held = _buffers.tile = np.empty(shape, dtype)
    return held


def _within(first: int, length: int, limit: int) -> slice:
    return slice(max(first, 0), min(first + length, limit))


def _sides(ifd: ImageFileDirectory) -> tuple[int, int]:
    assert ifd.tile_height is not None  # striped files are told apart before
    assert ifd.tile_width is not None
    return ifd.tile_height, ifd.tile_width


def _dtype(ifd: ImageFileDirectory) -> np.dtype[Any] | None:
    """Type of the samples, little-endian; None for those that numpy does not have."""
    kind, bits = _KINDS.get(ifd.sample_format[0]), ifd.bits_per_sample[0]
    whole = bits in ((32, 64) if kind == "f" else (8, 16, 32, 64))
    return np.dtype(f"<{kind}{bits // 8}") if kind and whole else None
