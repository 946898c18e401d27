"""Arrays to Cloud-Optimised GeoTIFF bytes.

Dims: y row, x column.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile

Overview = Literal["AVERAGE", "NEAREST", "MODE"]


def cog_bytes(
    pixels_yx: NDArray[Any],
    *,
    epsg: int,
    transform: tuple[float, float, float, float, float, float],
    nodata: float | None,
    overview: Overview = "AVERAGE",
    colours: Mapping[int, str] | None = None,
    block_px: int = 256,
) -> bytes:
    """One band as a Cloud-Optimised GeoTIFF: tiled, deflated with a predictor, overviews ahead of the pixels.

    transform: affine coefficients a, b, c, d, e, f of pixel corners (pixel is area).
    overview: how overviews are made; NEAREST or MODE for classes, whose codes can't be averaged.
    colours: RRGGBB by class code, uint8 rasters only.
    block_px: side of a tile; a multiple of 16.
    The same arguments give the same bytes. Raises ValueError unless the array has two dimensions.
    """
    if pixels_yx.ndim != 2:
        raise ValueError(f"pixels have shape {pixels_yx.shape}; one band with (rows, columns) is written")
    height, width = pixels_yx.shape
    with MemoryFile() as memory:
        # One compression thread: several would put tiles in the order in which they finish.
        with memory.open(
            driver="COG",
            width=width,
            height=height,
            count=1,
            dtype=pixels_yx.dtype,
            crs=rasterio.CRS.from_epsg(epsg),
            transform=rasterio.Affine(*transform),
            nodata=nodata,
            blocksize=block_px,
            compress="DEFLATE",
            level=6,
            predictor="YES",
            overview_resampling=overview,
            num_threads=1,
        ) as target:
            if colours:
                target.write_colormap(1, {code: _rgba(text) for code, text in colours.items()})
            target.write(np.ascontiguousarray(pixels_yx), 1)
        return bytes(memory.read())


def _rgba(text: str) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(text)
    return red, green, blue, 255
