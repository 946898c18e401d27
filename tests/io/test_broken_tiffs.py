"""Files with damaged headers: what is read is what GDAL reads, or the failure has a class; never a crash or a hang."""

import asyncio
import io
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioError

from eo_batch.core.errors import ReadError
from eo_batch.core.scenes import Asset
from eo_batch.io.rasters import AssetReader
from eo_batch.io.windows import RawImage
from eo_batch.settings import Settings

SIDE, BOX = 128, (500100.0, 5399000.0, 501000.0, 5399900.0)
EACH = 1500


def cog(dtype: str, compress: str, **more: Any) -> bytes:
    """A tiled file whose header lies before its pixels."""
    pixels = np.cumsum(np.random.default_rng(0).integers(0, 9, (SIDE, SIDE)), 1).astype(dtype)
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": compress, "predictor": 2} | more
    if dtype == "float32":
        options["predictor"] = 3
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=SIDE, height=SIDE, count=1, dtype=dtype, crs="EPSG:32633", nodata=0,
            transform=rasterio.Affine(10, 0, 500000, 0, -10, 5400000), **options,
        ) as target:  # fmt: skip
            target.write(pixels, 1)
        return bytes(memory.read())


def header_bytes(data: bytes) -> list[int]:
    """Positions of everything that is not a tile."""
    with rasterio.MemoryFile(data) as memory, memory.open() as source:
        names = [f"{x}_{y}" for y in range(2) for x in range(2)]
        tags = [source.get_tag_item(f"BLOCK_OFFSET_{name}", "TIFF", bidx=1) for name in names]
        sizes = [source.get_tag_item(f"BLOCK_SIZE_{name}", "TIFF", bidx=1) for name in names]
    tiles = [(int(a), int(a) + int(n)) for a, n in zip(tags, sizes, strict=True)]
    return [at for at in range(len(data)) if not any(first <= at < last for first, last in tiles)]


def ours(path: Path) -> RawImage | str | None:
    asset = Asset("B04", str(path), None, None, None, None, 1.0, 0.0, "", False)

    async def read() -> RawImage | None:
        reader = AssetReader(Settings.from_env())
        return await asyncio.wait_for(reader.read(asset, lambda _: BOX, 1), 20)

    try:
        return asyncio.run(read())
    except ReadError as error:
        return error.kind


def gdals(path: Path, at: RawImage) -> Any:
    """The same window by GDAL; None where GDAL refuses the file, or reads another georeference out of damaged tags."""
    try:
        with rasterio.open(path) as source:
            col, row = ~source.transform * (at.transform[2], at.transform[5])
            rows, cols = at.pixels_yx.shape
            same = (source.transform.a, source.transform.e) == (at.transform[0], at.transform[4])
            if not same or abs(col - round(col)) + abs(row - round(row)) > 1e-6:
                return None
            return source.read(1, window=rasterio.windows.Window(round(col), round(row), cols, rows))
    except (RasterioError, ValueError, TypeError):
        return None


@pytest.mark.parametrize(("dtype", "compress"), [("uint16", "DEFLATE"), ("float32", "ZSTD"), ("uint8", "LZW")])
def test_a_damaged_header_is_never_a_wrong_pixel(tmp_path: Path, dtype: str, compress: str) -> None:
    whole, rng = cog(dtype, compress), random.Random(f"{dtype}{compress}")
    places = header_bytes(whole)
    assert 200 < len(places) < len(whole) / 2
    path, kinds, compared = tmp_path / "a.tif", dict[str, int](), 0
    for number in range(EACH):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.choice(places)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(data)
        found = ours(path)
        kind = found if isinstance(found, str) else "outside" if found is None else "read"
        kinds[kind] = kinds.get(kind, 0) + 1
        if isinstance(found, RawImage):
            expected = gdals(path, found)
            if expected is not None:
                compared += 1
                np.testing.assert_array_equal(found.pixels_yx, expected, f"mutation {number}")
    assert compared > EACH / 10, kinds
    assert kinds["corrupt"] > EACH / 10, kinds


@pytest.mark.parametrize("cut", [0, 3, 8, 100, 300, 2000])
def test_a_file_cut_short(tmp_path: Path, cut: int) -> None:
    whole = cog("uint16", "DEFLATE")
    (tmp_path / "a.tif").write_bytes(whole[:cut])
    assert ours(tmp_path / "a.tif") in ("corrupt", "truncated")


def test_tiles_larger_than_any_real_one_are_not_tried(tmp_path: Path) -> None:
    """A damaged width must not ask for all memory of a machine."""
    whole = bytearray(cog("uint16", "DEFLATE"))
    first = struct.unpack_from("<I", whole, 4)[0]
    for number in range(struct.unpack_from("<H", whole, first)[0]):
        entry = first + 2 + 12 * number
        if struct.unpack_from("<H", whole, entry)[0] in (322, 323):  # TileWidth, TileLength
            struct.pack_into("<HHII", whole, entry, struct.unpack_from("<H", whole, entry)[0], 4, 1, 1 << 20)
    (tmp_path / "a.tif").write_bytes(whole)
    assert ours(tmp_path / "a.tif") == "corrupt"


def test_what_is_no_tiff(tmp_path: Path) -> None:
    for data in (b"", b"<html>not found</html>", b"II*\0", bytes(1000), io.BytesIO(b"P" * 5000).getvalue()):
        (tmp_path / "a.tif").write_bytes(data)
        assert ours(tmp_path / "a.tif") in ("corrupt", "truncated")


def test_a_tie_point_within_the_raster(tmp_path: Path) -> None:
    """GeoTIFF ties any pixel to the ground, not only the first (OGC 19-008r4, 7.2.1)."""
    whole = bytearray(cog("uint16", "DEFLATE"))
    at = whole.index(struct.pack("<6d", 0, 0, 0, 500000, 5400000, 0))
    struct.pack_into("<6d", whole, at, 3, 5, 0, 500030, 5399950, 0)
    (tmp_path / "a.tif").write_bytes(whole)
    found = ours(tmp_path / "a.tif")
    assert isinstance(found, RawImage)
    (tmp_path / "b.tif").write_bytes(cog("uint16", "DEFLATE"))
    same = ours(tmp_path / "b.tif")
    assert isinstance(same, RawImage)
    assert found.transform == same.transform
    np.testing.assert_array_equal(found.pixels_yx, same.pixels_yx)
    np.testing.assert_array_equal(gdals(tmp_path / "a.tif", found), found.pixels_yx)


@pytest.mark.parametrize("big", [False, True])
def test_counts_that_no_file_can_hold_are_told_before_memory_is_asked_for(tmp_path: Path, big: bool) -> None:
    """The TIFF library ends the process where it is refused: this one would ask for 68 GB."""
    data = bytearray(cog("uint16", "DEFLATE", BIGTIFF="YES" if big else "NO"))
    first, head, count = (16, 8, "<Q") if big else (8, 2, "<I")
    assert struct.unpack_from("<Q" if big else "<I", data, 8 if big else 4)[0] == first
    struct.pack_into(count, data, first + head + 4, 2**32 - 1)
    (tmp_path / "a.tif").write_bytes(data)
    assert ours(tmp_path / "a.tif") == "corrupt"
    struct.pack_into("<Q" if big else "<H", data, first, 60_000)  # entries
    (tmp_path / "a.tif").write_bytes(data)
    assert ours(tmp_path / "a.tif") == "corrupt"
