"""The world is a fair task: band statistics say nothing about texture classes, texture says a lot."""

import numpy as np
import pytest

from eo_batch.core.planet import TEXTURE_CODES, PlanetSpec
from eo_batch.pixels.planet import Planet
from eo_batch.pixels.planet_grids import s1_frames
from eo_batch.pixels.planet_render import S1Renderer, S2Renderer

CHIP_PX = 32


@pytest.fixture(scope="module")
def chips() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chips (n, band, y, x) of three sensors' bands with noise; class shares (n, class); a column number."""
    spec = PlanetSpec(width_km=10, height_km=10, centre_lon=12.5, cloud_share=0)
    planet = Planet(spec)
    (frame,) = s1_frames(spec)
    s1, s2 = S1Renderer(planet, frame.grid), S2Renderer(planet, frame.grid)
    dates = [s1.image(day) for day in range(4)]
    medians = [np.median([date[pol] for date in dates], axis=0) for pol in ("VV", "VH")]
    bands = [10 * np.log10(np.maximum(median, 1e-5)) for median in medians]
    bands += [s2.image(0, ("B04", "B08")).reflectance_yx[name] for name in ("B04", "B08")]
    rows, cols = (size // CHIP_PX for size in frame.grid.shape)

    def cut(image: np.ndarray) -> np.ndarray:
        part = image[: rows * CHIP_PX, : cols * CHIP_PX].reshape(rows, CHIP_PX, cols, CHIP_PX)
        return part.transpose(0, 2, 1, 3).reshape(-1, CHIP_PX, CHIP_PX)

    code = cut(planet.class_at(*frame.grid.lonlat()))
    shares = np.stack([(code == value).mean(axis=(1, 2)) for value in TEXTURE_CODES], axis=1)
    pixels = np.stack([cut(band) for band in bands], axis=1)
    inside = (pixels[:, 0] > -40).all(axis=(1, 2))  # outside the swath and its noisy border
    column = np.tile(np.arange(cols), rows)
    return pixels[inside], shares[inside], column[inside]


def held_out_r2(features: np.ndarray, shares: np.ndarray, column: np.ndarray) -> float:
    """Mean R² over classes of a ridge regression, tested on the eastern third."""
    test = column > np.quantile(column, 2 / 3)
    scaled = (features - features[~test].mean(axis=0)) / features[~test].std(axis=0)
    x, y = scaled[~test], shares[~test]
    weights = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    error = shares[test] - (scaled[test] @ weights + y.mean(axis=0))
    spread = shares[test] - shares[test].mean(axis=0)
    return float((1 - (error**2).sum(axis=0) / (spread**2).sum(axis=0)).mean())


def test_band_means_and_deviations_do_not_tell_texture_classes(
    chips: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pixels, shares, column = chips
    statistics = np.concatenate([pixels.mean(axis=(2, 3)), pixels.std(axis=(2, 3))], axis=1)
    assert held_out_r2(statistics, shares, column) <= 0.1


def test_the_direction_of_gradients_tells_texture_classes(
    chips: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pixels, shares, column = chips
    south = pixels[..., 2:, 1:-1] - pixels[..., :-2, 1:-1]
    east = pixels[..., 1:-1, 2:] - pixels[..., 1:-1, :-2]
    tensor = [(a * b).mean(axis=(2, 3)) for a, b in ((south, south), (east, east), (south, east))]
    assert held_out_r2(np.concatenate(tensor, axis=1), shares, column) >= 0.4
