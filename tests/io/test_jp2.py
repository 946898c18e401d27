"""JPEG 2000 and striped files take the slow path behind the same protocol, with the same pixels."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from eo_batch.core.errors import ReadError
from eo_batch.core.scenes import Asset
from eo_batch.io.rasters import AssetReader
from eo_batch.settings import Settings

PIXELS = (np.arange(300 * 200, dtype=np.uint16).reshape(300, 200) * 7) % 9973


def write(path: Path, **how: object) -> Asset:
    with rasterio.open(
        path,
        "w",
        height=300,
        width=200,
        count=1,
        dtype="uint16",
        crs="EPSG:32633",
        transform=from_origin(500_000, 5_300_000, 10, 10),
        **how,
    ) as target:
        target.write(PIXELS, 1)
    return Asset("B04", str(path), None, None, None, None, 1.0, 0.0, "", False)


def read(asset: Asset, bounds: tuple[float, float, float, float]) -> object:
    return asyncio.run(AssetReader(Settings()).read(asset, lambda epsg: bounds, 1))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("lossless.jp2", {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}),
        ("striped.tif", {"driver": "GTiff"}),
        ("tiled.tif", {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}),
    ],
)
def test_every_layout_gives_the_same_window(tmp_path: Path, name: str, how: dict[str, object]) -> None:
    image = read(write(tmp_path / name, **how), (500_400, 5_298_000, 500_900, 5_299_000))
    assert image is not None
    assert image.epsg == 32633  # type: ignore[attr-defined]
    assert image.transform == (10, 0, 500_390, 0, -10, 5_299_010)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(image.pixels_yx, PIXELS[99:201, 39:91])  # type: ignore[attr-defined]


def test_a_window_beside_the_file_is_none(tmp_path: Path) -> None:
    assert read(write(tmp_path / "b.jp2", driver="JP2OpenJPEG"), (600_000, 0, 600_100, 100)) is None


def test_a_jp2_cut_short_is_an_error(tmp_path: Path) -> None:
    asset = write(tmp_path / "b.jp2", driver="JP2OpenJPEG", quality=100, reversible=True)
    Path(asset.href).write_bytes(Path(asset.href).read_bytes()[:2000])
    with pytest.raises(ReadError) as failure:
        read(asset, (500_000, 5_297_000, 502_000, 5_300_000))
    assert failure.value.kind in ("corrupt", "truncated")
