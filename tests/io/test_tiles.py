"""Windows of tiled TIFFs as GDAL writes them, beside GDAL's own reading."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window

from eo_batch.core.errors import ReadError
from eo_batch.core.scenes import Asset
from eo_batch.io.rasters import AssetReader
from eo_batch.io.windows import RawImage
from eo_batch.settings import Settings

ROWS, COLS = 150, 130
_TRANSFORM = rasterio.Affine(10, 0, 500000, 0, -10, 5400000)


def write(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> None:
    profile = {"driver": "GTiff", "width": COLS, "height": ROWS, "count": 1, "dtype": pixels.dtype, "crs": "EPSG:32633"}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "transform": _TRANSFORM}
    with rasterio.open(path, "w", **profile, **tiles, **options) as target:
        target.write(pixels, 1)


def read(path: Path, window: tuple[int, int, int, int], part: str = "") -> RawImage:
    row, col, rows, cols = window
    x, y = 500000 + col * 10, 5400000 - row * 10
    asset = Asset("B04", f"{path}{part}", None, None, None, None, 1.0, 0.0, "", False)
    image = asyncio.run(AssetReader(Settings.from_env()).read(asset, lambda _: (x, y - rows * 10, x + cols * 10, y), 0))
    assert image is not None
    return image


def noise(dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    values = np.cumsum(np.random.default_rng(seed).normal(0, 3, (ROWS, COLS)), 1) + 100
    return np.abs(values).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)


@pytest.mark.parametrize("compress", ["DEFLATE", "ZSTD", "LZW", "NONE"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("predicted", [True, False])
def test_compressions_predictors_and_types(tmp_path: Path, compress: str, dtype: str, predicted: bool) -> None:
    pixels = noise(dtype)
    options = {}
    if predicted and compress in ("DEFLATE", "ZSTD", "LZW"):
        options["predictor"] = 3 if dtype.startswith("float") else 2
    path = tmp_path / "a.tif"
    write(path, pixels, compress=compress, **options)
    found = read(path, (20, 5, 101, 120))
    assert found.pixels_yx.dtype == dtype
    np.testing.assert_array_equal(found.pixels_yx, pixels[20:121, 5:125])


@given(st.data())
def test_any_window(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "window.tif"
    if not path.exists():
        write(path, noise("uint16"), compress="DEFLATE", predictor=2)
    row, col = data.draw(st.integers(0, ROWS - 1)), data.draw(st.integers(0, COLS - 1))
    rows, cols = data.draw(st.integers(1, ROWS - row)), data.draw(st.integers(1, COLS - col))
    with rasterio.open(path) as source:
        expected = source.read(1, window=Window(col, row, cols, rows))
    np.testing.assert_array_equal(read(path, (row, col, rows, cols)).pixels_yx, expected)


@pytest.mark.parametrize("nodata", [None, 0, 7])
def test_tiles_that_are_left_out(tmp_path: Path, nodata: int | None) -> None:
    pixels = np.full((ROWS, COLS), nodata or 0, np.uint16)
    pixels[70:80, 70:80] = 9
    write(tmp_path / "a.tif", pixels, compress="DEFLATE", predictor=2, sparse_ok=True, nodata=nodata)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", (0, 0, ROWS, COLS)).pixels_yx, pixels)


@pytest.mark.parametrize("endianness", ["BIG", "LITTLE"])
def test_byte_orders(tmp_path: Path, endianness: str) -> None:
    pixels = noise("uint16")
    write(tmp_path / "a.tif", pixels, compress="DEFLATE", predictor=2, endianness=endianness)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", (0, 0, ROWS, COLS)).pixels_yx, pixels)


@pytest.mark.parametrize("compress", ["DEFLATE", "ZSTD", "LZW"])
def test_a_tile_with_a_broken_byte_is_corrupt_or_the_same(tmp_path: Path, compress: str) -> None:
    """Deflate carries a checksum. The others may decode to something else, but never to less."""
    path, pixels = tmp_path / "a.tif", noise("uint16")
    write(path, pixels, compress=compress)
    whole = path.read_bytes()
    for at in range(len(whole) // 2, len(whole) // 2 + 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        found = kind_or_pixels(path)
        if isinstance(found, str):
            assert found == "corrupt"
        else:
            assert found.shape == pixels.shape
            assert compress != "DEFLATE" or np.array_equal(found, pixels)


def kind_or_pixels(path: Path) -> Any:
    """All pixels, or the class of the failure."""
    try:
        return read(path, (0, 0, ROWS, COLS)).pixels_yx
    except ReadError as error:
        return error.kind


@pytest.mark.parametrize("tiled", [True, False])
def test_a_band_is_named_by_its_number(tmp_path: Path, tiled: bool) -> None:
    bands, path = np.stack([noise("uint16", seed) for seed in (1, 2)]), tmp_path / "a.tif"
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {}
    with rasterio.open(
        path, "w", driver="GTiff", width=COLS, height=ROWS, count=2, dtype="uint16", crs="EPSG:32633",
        transform=_TRANSFORM, **layout,
    ) as target:  # fmt: skip
        target.write(bands)
    for number in (1, 2):
        found = read(path, (20, 5, 101, 120), f"#{number}")
        np.testing.assert_array_equal(found.pixels_yx, bands[number - 1, 20:121, 5:125])
    with pytest.raises(ReadError, match="the file has 2 bands, no band 3") as missing:
        read(path, (0, 0, 9, 9), "#3")
    assert missing.value.kind == "missing"
    with pytest.raises(ReadError, match="2 bands where one was expected; name one of them"):
        read(path, (0, 0, 9, 9))
