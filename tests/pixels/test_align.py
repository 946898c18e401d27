"""Alignment: copies are bit-exact, resampling agrees with GDAL. Legend: y rows (downwards), x columns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from eo_batch.core.scenes import Affine6
from eo_batch.pixels.align import Aligned, align
from eo_batch.pixels.grids import PixelGrid, SourceImage, outline_in

Pixels = NDArray[Any]


def picture(rows: int, cols: int, dtype: type = np.float32, seed: int = 0) -> Pixels:
    """Texture at all scales, above 0 everywhere so that 0 can mean no data."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :cols]
    smooth = np.sin(x / 7.0) * np.cos(y / 11.0) + 0.3 * np.sin((x + 2 * y) / 3.0)
    return (5000 + 2000 * smooth + rng.normal(0, 300, (rows, cols))).astype(dtype)


def image(pixels: Pixels, epsg: int, transform: Affine6, valid: NDArray[np.bool_] | None = None) -> SourceImage:
    return SourceImage(pixels, np.ones(pixels.shape, bool) if valid is None else valid, epsg, transform)


def positions(source: SourceImage, grid: PixelGrid) -> tuple[Pixels, Pixels]:
    """Where each pixel centre of the grid falls in the source, (column, row), transformed point by point."""
    x = grid.left + (np.arange(grid.cols) + 0.5) * grid.pixel
    y = grid.top - (np.arange(grid.rows) + 0.5) * grid.pixel
    x_yx, y_yx = np.meshgrid(x, y)
    if source.epsg != grid.epsg:
        x_yx, y_yx = Transformer.from_crs(grid.epsg, source.epsg, always_xy=True).transform(x_yx, y_yx)
    a, b, c, d, e, f = source.transform
    inverse = np.linalg.inv([[a, b], [d, e]])
    col_yx, row_yx = np.einsum("ij,jyx->iyx", inverse, np.stack([x_yx - c, y_yx - f]))
    return col_yx, row_yx


def by_gdal(source: SourceImage, grid: PixelGrid, method: Resampling) -> Pixels:
    """GDAL's warp without its approximate transformer; 0 where it finds no data."""
    pixels = np.where(source.valid_yx, source.pixels_yx, 0).astype(source.pixels_yx.dtype)
    rows, cols = pixels.shape
    profile = {"driver": "GTiff", "count": 1, "height": rows, "width": cols, "dtype": pixels.dtype, "nodata": 0}
    place = {"crs": f"EPSG:{source.epsg}", "transform": Affine(*source.transform)}
    with MemoryFile() as memory:
        with memory.open(**profile, **place) as dataset:
            dataset.write(pixels, 1)
        with (
            memory.open() as dataset,
            WarpedVRT(
                dataset,
                crs=f"EPSG:{grid.epsg}",
                transform=Affine(grid.pixel, 0, grid.left, 0, -grid.pixel, grid.top),
                height=grid.rows,
                width=grid.cols,
                resampling=method,
                tolerance=1e-9,  # 0 is refused
                nodata=0,
                XSCALE="1",
                YSCALE="1",
            ) as warped,
        ):
            return warped.read(1)  # type: ignore[no-any-return]


UTM33 = PixelGrid(32633, 270_000.0, 5_150_000.0, 10.0, 150, 130)
NORTH = PixelGrid(32633, 430_000.0, 8_700_000.0, 10.0, 140, 140)
SOUTH = PixelGrid(32720, 400_000.0, 6_300_000.0, 20.0, 120, 120)

CASES: dict[str, tuple[PixelGrid, int, Affine6]] = {
    "same CRS, part of a pixel": (UTM33, 32633, (10, 0, 269_873.3, 0, -10, 5_150_128.7)),
    "same CRS, other pixel size": (UTM33, 32633, (13, 0, 269_873.3, 0, -13, 5_150_128.7)),
    "south-up": (UTM33, 32633, (10, 0, 269_873.3, 0, 10, 5_148_371.3)),
    "turned": (UTM33, 32633, (9.8, 1.7, 269_700.0, 1.7, -9.8, 5_150_100.0)),
    "zone 32 to 33": (UTM33, 32632, (10, 0, 729_500.0, 0, -10, 5_150_900.0)),
    "far north": (NORTH, 32632, (10, 0, 561_000.0, 0, -10, 8_704_500.0)),
    "degrees": (UTM33, 4326, (1.2e-4, 0, 11.988, 0, -9e-5, 46.453)),
    "degrees, far north": (NORTH, 4326, (4e-4, 0, 11.6, 0, -9e-5, 78.372)),
    "degrees, far north, decimated": (replace(NORTH, pixel=120.0), 4326, (4.8e-3, 0, 11.6, 0, -1.08e-3, 78.4)),
    "degrees, south": (SOUTH, 4326, (2e-4, 0, -64.095, 0, -1.8e-4, -33.42)),
}


def case(name: str, dtype: type = np.float32, holes: bool = True) -> tuple[SourceImage, PixelGrid]:
    """A source around the grid: centred on it, larger than it."""
    grid, epsg, transform = CASES[name]
    centre = positions(image(np.zeros((1, 1)), epsg, transform), grid)
    side = 300
    middle_col, middle_row = (int(np.median(p)) for p in centre)
    a, b, c, d, e, f = transform
    col, row = middle_col - side // 2, middle_row - side // 2
    placed: Affine6 = (a, b, c + a * col + b * row, d, e, f + d * col + e * row)
    pixels = picture(side, side, dtype)
    valid = np.ones(pixels.shape, bool)
    if holes:
        valid[::17, ::13] = False
        valid[140:150, 140:160] = False
    return SourceImage(pixels, valid, epsg, placed), grid


class TestParityWithGdal:
    @pytest.mark.parametrize("name", CASES)
    def test_nearest(self, name: str) -> None:
        source, grid = case(name, np.uint16)
        result = align(source, grid, "nearest")
        assert result.how == "nearest"
        assert result.pixels_yx.dtype == np.uint16
        col, row = positions(source, grid)
        clear = np.minimum(np.abs(col - np.rint(col)), np.abs(row - np.rint(row))) > 1e-3  # no tie between two pixels
        assert clear.mean() > 0.99
        wanted = by_gdal(source, grid, Resampling.nearest)
        np.testing.assert_array_equal(np.where(result.valid_yx, result.pixels_yx, 0)[clear], wanted[clear])
        assert 0.8 < result.valid_yx.mean() < 1

    @pytest.mark.parametrize("name", CASES)
    @pytest.mark.parametrize("dtype", [np.float32, np.uint16])
    def test_bilinear(self, name: str, dtype: type) -> None:
        source, grid = case(name, dtype)
        result = align(source, grid, "bilinear")
        assert result.how == "bilinear"
        whole = self.all_four(source, grid)
        assert whole.mean() > 0.5
        assert result.valid_yx[whole].all()
        wanted = by_gdal(source, grid, Resampling.bilinear)
        reach = float(np.ptp(source.pixels_yx))
        limit = max(1e-3 * reach, 1.0 if dtype == np.uint16 else 0)
        error = np.abs(result.pixels_yx.astype(float) - wanted)[whole]
        assert error.max() <= limit

    def all_four(self, source: SourceImage, grid: PixelGrid) -> NDArray[np.bool_]:
        """Pixels whose four neighbours in the source are all valid."""
        col, row = positions(source, grid)
        c0, r0 = np.floor(col - 0.5).astype(int), np.floor(row - 0.5).astype(int)
        rows, cols = source.pixels_yx.shape
        inside = (c0 >= 0) & (r0 >= 0) & (c0 < cols - 1) & (r0 < rows - 1)
        c0, r0 = np.clip(c0, 0, cols - 2), np.clip(r0, 0, rows - 2)
        v = source.valid_yx
        return inside & v[r0, c0] & v[r0 + 1, c0] & v[r0, c0 + 1] & v[r0 + 1, c0 + 1]  # type: ignore[no-any-return]

    def test_half_a_pixel_is_the_mean_of_neighbours(self) -> None:
        pixels = picture(40, 50)
        source = image(pixels, 32633, (10, 0, 500_005.0, 0, -10, 5_100_005.0))
        grid = PixelGrid(32633, 500_010.0, 5_100_000.0, 10.0, 39, 49)
        result = align(source, grid, "bilinear")
        wanted = (pixels[:-1, :-1] + pixels[1:, :-1] + pixels[:-1, 1:] + pixels[1:, 1:]) / 4
        np.testing.assert_allclose(result.pixels_yx, wanted, rtol=1e-6)
        assert result.valid_yx.all()

    def test_elevation_of_point_pixels(self, shared_data: Path) -> None:
        """Copernicus DEM is pixel-is-point: its grid is half a pixel off the degree, and so must the result be."""
        (file,) = (shared_data / "data" / "saotome" / "cop-dem-glo-30").rglob("*.tif")
        grid = PixelGrid(32632, 0.0, 0.0, 30.0, 200, 220)
        with rasterio.open(file) as dataset:
            heights = dataset.read(1)
            row, col = np.unravel_index(int(heights.argmax()), heights.shape)
            cut = heights[int(row) - 200 : int(row) + 200, int(col) - 200 : int(col) + 200]
            a, b, c, d, e, f = tuple(dataset.transform)[:6]
            transform: Affine6 = (a, b, c + a * (int(col) - 200), d, e, f + e * (int(row) - 200))
            to_utm = Transformer.from_crs(4326, 32632, always_xy=True)
            x, y = to_utm.transform(*dataset.xy(int(row), int(col)))
        assert abs(transform[2] * 3600 % 1 - 0.5) < 1e-6
        grid = replace(grid, left=x - 3000, top=y + 3000)
        source = image(cut, 4326, transform)
        result = align(source, grid, "bilinear")
        wanted = by_gdal(source, grid, Resampling.bilinear)
        whole = self.all_four(source, grid) & (wanted > 0)
        assert whole.mean() > 0.5
        assert np.abs(result.pixels_yx - wanted)[whole].max() < 1e-3 * float(np.ptp(cut))


class TestAntimeridian:
    GRID = PixelGrid(32601, 360_000.0, 7_380_000.0, 10.0, 64, 900)
    """Some 9 km across 180° at latitude 66.5."""

    def degrees(self) -> tuple[Pixels, Pixels]:
        x = self.GRID.left + (np.arange(self.GRID.cols) + 0.5) * 10
        y = self.GRID.top - (np.arange(self.GRID.rows) + 0.5) * 10
        return Transformer.from_crs(32601, 4326, always_xy=True).transform(*np.meshgrid(x, y))  # type: ignore[no-any-return]

    def ramp(self, west: float, cols: int, pixel: float) -> SourceImage:
        """A raster whose values are degrees east of 179° E, going on across the antimeridian."""
        lon = west + (np.arange(cols) + 0.5) * pixel
        values = np.broadcast_to((lon - 179) % 360, (60, cols)).astype(np.float64)
        return image(values, 4326, (pixel, 0, west, 0, -0.01, 66.8))

    def setup_method(self) -> None:
        x = Transformer.from_crs(4326, 32601, always_xy=True).transform(180.0, 66.5)[0]
        self.GRID = replace(self.GRID, left=round(x / 10) * 10 - 4500.0)

    def test_the_grid_lies_on_both_sides(self) -> None:
        lon, _ = self.degrees()
        assert (lon > 179).any()
        assert (lon < -179).any()

    @pytest.mark.parametrize("west", [179.0, -181.0])
    def test_a_raster_across_it(self, west: float) -> None:
        result = align(self.ramp(west, 2000, 0.001), self.GRID, "bilinear")
        lon, _ = self.degrees()
        assert result.valid_yx.all()
        np.testing.assert_allclose(result.pixels_yx, (lon - 179) % 360, atol=1e-6)

    def test_tiles_on_either_side_join(self) -> None:
        lon, _ = self.degrees()
        east, west = (align(self.ramp(w, 1000, 0.001), self.GRID, "nearest") for w in (179.0, -180.0))
        np.testing.assert_array_equal(east.valid_yx, lon > 0)
        np.testing.assert_array_equal(west.valid_yx, lon < 0)
        both = np.where(east.valid_yx, east.pixels_yx, west.pixels_yx)
        np.testing.assert_allclose(both, (lon - 179) % 360, atol=0.00051)

    @pytest.mark.parametrize("west", [-180.0, 0.0])
    def test_rasters_around_the_globe(self, west: float) -> None:
        lon, _ = self.degrees()
        result = align(self.ramp(west, 36_000, 0.01), self.GRID, "nearest")
        assert result.valid_yx.all()
        np.testing.assert_allclose(result.pixels_yx, (lon - 179) % 360, atol=0.0051)

    def test_between_zones_60_and_1(self) -> None:
        pixels = picture(400, 1300)
        x, y = Transformer.from_crs(32601, 32660, always_xy=True).transform(self.GRID.left, self.GRID.top)
        source = image(pixels, 32660, (10, 0, round(x) - 1000.0, 0, -10, round(y) + 1500.0))
        result = align(source, self.GRID, "bilinear")
        wanted = by_gdal(source, self.GRID, Resampling.bilinear)
        assert result.valid_yx.mean() > 0.9
        inside = result.valid_yx & (wanted > 0)
        error = np.abs(result.pixels_yx - wanted)[inside]
        assert np.quantile(error, 0.99) <= 1e-3 * float(np.ptp(pixels))


GRID = PixelGrid(32633, 500_000.0, 5_100_000.0, 10.0, 12, 16)


def nested(rows: int, cols: int, ratio: int, offset: tuple[int, int], dtype: type = np.uint16) -> SourceImage:
    """A source whose pixels are `ratio` of the grid's, with its corner `offset` (rows, columns) of the grid in."""
    size = 10.0 * ratio
    corner = (500_000.0 + 10 * offset[1], 5_100_000.0 - 10 * offset[0])
    pixels = picture(rows, cols, dtype)
    valid = np.random.default_rng(1).random(pixels.shape) < 0.8
    return image(pixels, 32633, (size, 0, corner[0], 0, -size, corner[1]), valid)


def pasted(source: SourceImage, ratio: int, offset: tuple[int, int]) -> tuple[Pixels, NDArray[np.bool_]]:
    """The grid with each of its pixels looked up, one by one."""
    pixels = np.zeros(GRID.shape, source.pixels_yx.dtype)
    valid = np.zeros(GRID.shape, bool)
    rows, cols = source.pixels_yx.shape
    for y, x in np.ndindex(GRID.shape):
        r, c = (y - offset[0]) // ratio, (x - offset[1]) // ratio
        if 0 <= r < rows and 0 <= c < cols:
            pixels[y, x], valid[y, x] = source.pixels_yx[r, c], source.valid_yx[r, c]
    return pixels, valid


class TestNestedGrids:
    @given(
        st.integers(1, 20),
        st.integers(1, 20),
        st.integers(-15, 15),
        st.integers(-20, 20),
        st.sampled_from([1, 2, 3, 6]),
    )
    def test_copies_are_bit_exact(self, rows: int, cols: int, down: int, right: int, ratio: int) -> None:
        """1:1 and 1:n, wherever the source lies: inside, around, across an edge, or elsewhere."""
        source = nested(rows, cols, ratio, (down, right))
        result = align(source, GRID, "nearest")
        pixels, valid = pasted(source, ratio, (down, right))
        assert result.how == ("copied" if ratio == 1 else f"repeated {ratio}x")
        np.testing.assert_array_equal(result.valid_yx, valid)
        np.testing.assert_array_equal(result.pixels_yx[valid], pixels[valid])
        assert result.pixels_yx.dtype == source.pixels_yx.dtype

    @pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
    def test_equal_grids_are_copied_whatever_the_method(self, method: Any, dtype: type) -> None:
        source = nested(20, 20, 1, (-3, -2), dtype)
        result = align(source, GRID, method)
        assert result.how == "copied"
        np.testing.assert_array_equal(result.pixels_yx, source.pixels_yx[3:15, 2:18])
        np.testing.assert_array_equal(result.valid_yx, source.valid_yx[3:15, 2:18])

    @pytest.mark.parametrize("noise", [1e-9, 4e-4, -4e-4])
    def test_rounding_of_published_transforms_is_forgiven(self, noise: float) -> None:
        source = nested(20, 20, 1, (0, 0))
        a, b, c, d, e, f = source.transform
        shifted = replace(source, transform=(a, b, c + noise, d, e, f - noise))
        assert align(shifted, GRID, "bilinear").how == "copied"

    @pytest.mark.parametrize("shift", [0.1, -0.1, 5.0])
    def test_real_shifts_are_not(self, shift: float) -> None:
        source = nested(20, 20, 1, (0, 0))
        a, b, c, d, e, f = source.transform
        assert align(replace(source, transform=(a, b, c + shift, d, e, f)), GRID, "bilinear").how == "bilinear"
        assert align(replace(source, transform=(a * 1.001, b, c, d, e * 1.001, f)), GRID, "bilinear").how == "bilinear"

    def test_coarse_measurements_are_interpolated_not_repeated(self) -> None:
        """60 m bands in the 20 m array: smooth, and marked as resampled."""
        source = nested(10, 10, 2, (-2, -2))
        assert align(source, GRID, "bilinear").how == "bilinear"

    @given(st.sampled_from([2, 3, 5]), st.integers(0, 99))
    def test_finer_measurements_are_averaged(self, k: int, seed: int) -> None:
        """The mean of the valid ones of k x k pixels, if they are at least half; checked pixel by pixel."""
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 65536, (GRID.rows * k, GRID.cols * k)).astype(np.uint16)
        valid = rng.random(pixels.shape) < 0.6
        source = image(pixels, 32633, (10 / k, 0, GRID.left, 0, -10 / k, GRID.top), valid)
        result = align(source, GRID, "bilinear")
        assert result.how == f"averaged {k}x"
        for y, x in np.ndindex(GRID.shape):
            block = slice(y * k, y * k + k), slice(x * k, x * k + k)
            count = int(valid[block].sum())
            assert result.valid_yx[y, x] == (2 * count >= k * k)
            if 2 * count >= k * k:
                assert result.pixels_yx[y, x] == np.rint(pixels[block][valid[block]].mean())

    def test_finer_classes_are_picked_not_averaged(self) -> None:
        pixels = np.random.default_rng(0).choice([10, 80], (GRID.rows * 4, GRID.cols * 4)).astype(np.uint8)
        source = image(pixels, 32633, (2.5, 0, GRID.left, 0, -2.5, GRID.top))
        result = align(source, GRID, "nearest")
        assert result.valid_yx.all()
        assert set(np.unique(result.pixels_yx)) == {10, 80}

    @pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
    @pytest.mark.parametrize("epsg", [32633, 32632, 4326])
    def test_no_overlap_is_all_invalid(self, method: Any, epsg: int) -> None:
        transform: Affine6 = (
            (1e-4, 0, 20.0, 0, -1e-4, 40.0) if epsg == 4326 else (10, 0, 700_003.0, 0, -10, 5_100_000.0)
        )
        result = align(image(picture(30, 30), epsg, transform), GRID, method)
        assert not result.valid_yx.any()
        assert result.pixels_yx.shape == GRID.shape


class TestValidity:
    @settings(max_examples=60)
    @given(st.floats(-0.49, 0.49), st.floats(-0.49, 0.49), st.integers(0, 99))
    def test_bilinear_pixel_by_pixel(self, dx: float, dy: float, seed: int) -> None:
        """Weights of valid neighbours, renormalised; valid from half of the weight on."""
        if max(abs(dx), abs(dy)) < 1e-2:
            return  # nests
        rng = np.random.default_rng(seed)
        pixels = rng.normal(0, 1000, (8, 9))
        valid = rng.random(pixels.shape) < 0.6
        source = image(
            np.where(valid, pixels, np.nan), 32633, (10, 0, GRID.left + 10 * dx, 0, -10, GRID.top - 10 * dy), valid
        )
        grid = replace(GRID, rows=8, cols=9)
        result = align(source, grid, "bilinear")
        for y, x in np.ndindex(grid.shape):
            row, col = y + 0.5 - dy, x + 0.5 - dx
            if not (0 <= row < 8 and 0 <= col < 9):
                assert not result.valid_yx[y, x]
                continue
            weights = [
                (max(0.0, 1 - abs(r + 0.5 - row)) * max(0.0, 1 - abs(c + 0.5 - col)), pixels[r, c])
                for r, c in np.ndindex(pixels.shape)
                if valid[r, c]
            ]
            total = sum(w for w, _ in weights)
            if abs(total - 0.5) > 1e-9:
                assert result.valid_yx[y, x] == (total > 0.5)
            if result.valid_yx[y, x]:
                assert result.pixels_yx[y, x] == pytest.approx(
                    sum(w * v for w, v in weights) / total, rel=1e-9, abs=1e-6
                )

    @pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
    @pytest.mark.parametrize("name", CASES)
    def test_invalid_pixels_never_bleed(self, name: str, method: Any) -> None:
        source, grid = case(name)
        junk = replace(source, pixels_yx=np.where(source.valid_yx, source.pixels_yx, np.nan))
        clean, dirty = align(source, grid, method), align(junk, grid, method)
        np.testing.assert_array_equal(clean.valid_yx, dirty.valid_yx)
        np.testing.assert_array_equal(clean.pixels_yx[clean.valid_yx], dirty.pixels_yx[dirty.valid_yx])
        assert not clean.valid_yx.all()

    def test_integers_are_rounded_and_kept_in_range(self) -> None:
        pixels = np.array([[0, 65535], [65535, 65535]], np.uint16).repeat(6, 0).repeat(8, 1)
        result = align(image(pixels, 32633, (10, 0, 500_003.0, 0, -10, 5_100_003.0)), GRID, "bilinear")
        assert result.pixels_yx.dtype == np.uint16
        assert result.pixels_yx[result.valid_yx].max() == 65535
        assert result.pixels_yx[result.valid_yx].min() == 0


@pytest.mark.parametrize("epsg", [32632, 32634, 4326])
@pytest.mark.parametrize("grid", [UTM33, PixelGrid(32633, 200_000.0, 9_000_000.0, 20.0, 1024, 1024)])
def test_outlines_hold_their_grid(grid: PixelGrid, epsg: int) -> None:
    x0, y0, x1, y1 = outline_in(grid, epsg)
    left, bottom, right, top = grid.bounds
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    u, v = Transformer.from_crs(grid.epsg, epsg, always_xy=True).transform(x, y)
    slack = 1e-3 * max(x1 - x0, y1 - y0)
    assert x0 - slack <= u.min() <= x0 + slack
    assert x1 - slack <= u.max() <= x1 + slack
    assert y0 - slack <= v.min() <= y0 + slack
    assert y1 - slack <= v.max() <= y1 + slack


def test_a_constant_stays_a_constant() -> None:
    """Weights sum to one, in every way of resampling."""
    for name in CASES:
        source, grid = case(name)
        flat = replace(source, pixels_yx=np.full(source.pixels_yx.shape, 1234.5, np.float32))
        coarse = replace(grid, pixel=grid.pixel * 3, rows=grid.rows // 3, cols=grid.cols // 3)
        found: list[Aligned] = [align(flat, g, m) for g in (grid, coarse) for m in ("nearest", "bilinear", "average")]
        assert {one.how.split(" ")[0] for one in found} >= {"nearest", "bilinear", "averaged"}
        for one in found:
            np.testing.assert_allclose(one.pixels_yx[one.valid_yx], 1234.5, rtol=1e-6)
