"""The planet's truth: what classes share, what tells them apart, and what is independent of them."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from eo_batch.core.planet import BUILT_UP, LAND_CLASSES, S2_BANDS, TEXTURE_CODES, WATER, PlanetSpec
from eo_batch.pixels.planet import Ground, Planet
from eo_batch.pixels.planet_noise import noise_key, normal, pixel_bits, speckle

PLANET = Planet(PlanetSpec())
SIDE = 500


def random_places(planet: Planet, count: int = SIDE * SIDE) -> tuple[np.ndarray, np.ndarray]:
    west, south, east, north = planet.area_bbox
    draw = np.random.default_rng(5).random((2, count))
    return west + draw[0] * (east - west), south + draw[1] * (north - south)


@pytest.fixture(scope="module")
def places() -> tuple[np.ndarray, np.ndarray]:
    return random_places(PLANET)


@pytest.fixture(scope="module")
def ground(places: tuple[np.ndarray, np.ndarray]) -> Ground:
    return PLANET.ground_at(*places)


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    both = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(v), both, side="right") / len(v) for v in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def measured(ground: Ground) -> dict[str, np.ndarray]:
    """Every sensor's values at the points, with sensor noise."""
    bits = pixel_bits(noise_key("marginals"), 0, 0, (SIDE, SIDE))
    loud = PLANET.spec.s2_noise * normal(bits, 0).ravel()
    haze = PLANET.sky.haze(ground.x_m, ground.y_m, 0)
    found = {b: PLANET.s2_reflectance(ground, b, haze) * (1 + loud) for b in S2_BANDS}
    grains = speckle(bits, 1, PLANET.spec.s1_looks).ravel()
    return found | {pol: PLANET.s1_gamma0(ground, pol) * grains for pol in ("VV", "VH")}


def test_texture_classes_have_one_mean_and_one_distribution_in_every_sensor() -> None:
    # The fields go on beyond the area: over 100 km, smooth nuisances average out within each class.
    x_m, y_m = np.random.default_rng(5).uniform(-50_000, 50_000, (2, SIDE * SIDE))
    ground = PLANET.ground_at(*PLANET.lonlat(x_m, y_m))
    for name, value in measured(ground).items():
        by_class = [value[ground.code == code] for code in TEXTURE_CODES]
        means = np.array([v.mean() for v in by_class])
        assert np.ptp(means) < 0.02 * means.mean(), name
        assert max(ks_distance(by_class[0], other) for other in by_class[1:]) < 0.025, name


def test_levels_are_those_of_the_table(ground: Ground) -> None:
    textured = np.isin(ground.code, TEXTURE_CODES)
    assert PLANET.s1_gamma0(ground, "VV")[textured].mean() == pytest.approx(0.08, rel=0.03)
    assert PLANET.s2_reflectance(ground, "B08")[textured].mean() == pytest.approx(0.28, rel=0.02)
    assert PLANET.s1_gamma0(ground, "VV")[ground.code == WATER].max() < 0.02
    assert PLANET.s1_gamma0(ground, "VV")[ground.code == BUILT_UP].min() > 0.2


def test_only_the_direction_of_the_grain_tells_texture_classes_apart() -> None:
    step_m = 5.0
    for land in LAND_CLASSES:
        if land.grain_deg is None:
            continue
        turn = math.radians(land.grain_deg)
        x, y = (v.astype(np.float32) for v in np.random.default_rng(1).uniform(-6000, 6000, (2, 20_000)))
        waves = PLANET._grain[land.code]
        along, across = (
            waves(x + np.float32(step_m * math.cos(a)), y + np.float32(step_m * math.sin(a))) - waves(x, y)
            for a in (turn, turn + math.pi / 2)
        )
        assert (along**2).mean() > 5 * (across**2).mean()


def test_shares_of_classes(ground: Ground) -> None:
    share = {code: float((ground.code == code).mean()) for code in (*TEXTURE_CODES, BUILT_UP, WATER)}
    assert sum(share.values()) == 1
    for code in (BUILT_UP, WATER):
        assert share[code] == pytest.approx(PLANET.spec.rare_share, abs=0.02)
    for code in TEXTURE_CODES:
        assert 0.17 < share[code] < 0.30


def test_truth_functions_agree_with_the_ground_they_share(
    places: tuple[np.ndarray, np.ndarray], ground: Ground
) -> None:
    lon, lat = places[0][:1000], places[1][:1000]
    np.testing.assert_array_equal(PLANET.class_at(lon, lat), ground.code[:1000])
    np.testing.assert_allclose(PLANET.s1_gamma0_at(lon, lat, "VH"), PLANET.s1_gamma0(ground, "VH")[:1000], rtol=1e-4)
    hazy, clear = (PLANET.s2_reflectance_at(lon, lat, "B02", day) for day in (1, None))
    assert (hazy > clear).all()
    np.testing.assert_allclose(hazy - clear, PLANET.spec.haze * PLANET.sky_at(lon, lat, 1).haze, rtol=1e-3, atol=1e-6)


def test_plane_and_lonlat_are_inverse(places: tuple[np.ndarray, np.ndarray]) -> None:
    lon, lat = PLANET.lonlat(*PLANET.plane(*places))
    assert np.abs(lon - places[0]).max() < 1e-7
    assert np.abs(lat - places[1]).max() < 1e-7
    west, south, east, north = PLANET.area_bbox
    x, y = PLANET.plane([west, east], [south, north])
    assert x.tolist() == [-8000, 8000]
    assert y.tolist() == [-6000, 6000]


def test_shift_moves_only_the_level(places: tuple[np.ndarray, np.ndarray]) -> None:
    lon, lat = places[0][:500], places[1][:500]
    shifted = Planet(PlanetSpec(shift_db=3.0, shift_reflectance=0.05))
    ratio = shifted.s1_gamma0_at(lon, lat, "VV") / PLANET.s1_gamma0_at(lon, lat, "VV")
    np.testing.assert_allclose(ratio, 10**0.3, rtol=1e-4)
    more = shifted.s2_reflectance_at(lon, lat, "B04") - PLANET.s2_reflectance_at(lon, lat, "B04")
    np.testing.assert_allclose(more, 0.05, atol=1e-6)


@pytest.mark.parametrize(("asked", "low", "high"), [(0.0, -0.1, 0.1), (0.8, 0.7, 0.9)])
def test_elevation_correlates_with_class_as_asked(asked: float, low: float, high: float) -> None:
    planet = Planet(PlanetSpec(dem_class_correlation=asked))
    lon, lat = random_places(planet, 60_000)
    x, y = planet.plane(lon, lat)
    first, second, third, fourth = (waves(x, y) for waves in planet._cover[:4])
    height = planet.elevation_at(lon, lat)
    assert low < np.corrcoef(height, first + second - third - fourth)[0, 1] < high
    assert height.std() == pytest.approx(planet.spec.relief_m, rel=0.25)


def test_coherence_decays_exponentially_and_does_not_know_texture_classes(
    places: tuple[np.ndarray, np.ndarray], ground: Ground
) -> None:
    short, long = (PLANET.coherence_at(*places, days) for days in (6, 24))
    textured = np.isin(ground.code, TEXTURE_CODES)
    np.testing.assert_allclose((short[textured] / 0.9) ** 4, long[textured] / 0.9, rtol=1e-3)
    means = [short[ground.code == code].mean() for code in TEXTURE_CODES]
    assert np.ptp(means) < 0.03
    assert short[ground.code == WATER].max() < 0.1
    assert long[ground.code == BUILT_UP].min() > 0.8


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_cloud_share_is_roughly_the_asked_one(share: float) -> None:
    planet = Planet(PlanetSpec(cloud_share=share))
    lon, lat = random_places(planet, 20_000)
    found = np.mean([np.isin(planet.cloud_state_at(lon, lat, day), (8, 9)).mean() for day in range(8)])
    assert found == pytest.approx(share, abs=0.04)


def test_no_clouds_when_none_are_asked(places: tuple[np.ndarray, np.ndarray]) -> None:
    planet = Planet(PlanetSpec(cloud_share=0))
    assert set(np.unique(planet.cloud_state_at(*places, 0))) == {4, 5, 6}


def test_what_the_mask_calls_clear_is_untouched_and_cloud_is_bright(
    places: tuple[np.ndarray, np.ndarray], ground: Ground
) -> None:
    sky = PLANET.sky_at(*places, 0)
    clean = PLANET.s2_reflectance(ground, "B04", sky.haze)
    seen = sky.seen(clean)
    np.testing.assert_array_equal(seen[sky.mask == 0], clean[sky.mask == 0])
    assert (seen[sky.mask == 9] > 0.7).all()
    shadow = (sky.mask == 3) & (sky.shade == 1) & (sky.cirrus == 0)
    np.testing.assert_allclose(seen[shadow], 0.35 * clean[shadow], rtol=1e-4)
    assert {3, 8, 9, 10} <= set(np.unique(sky.mask))


def test_sky_is_independent_of_class(places: tuple[np.ndarray, np.ndarray], ground: Ground) -> None:
    for day in range(3):
        haze = PLANET.sky_at(*places, day).haze
        means = [haze[ground.code == code].mean() for code in TEXTURE_CODES]
        assert np.ptp(means) < 0.1


def test_another_seed_is_another_world(places: tuple[np.ndarray, np.ndarray]) -> None:
    other = Planet(PlanetSpec(seed=8))
    same = (other.class_at(*places) == PLANET.class_at(*places)).mean()
    assert same < 0.35


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tile_km": 5.011}, "tile_km"),
        ({"overlap_km": 8.0}, "overlap_km"),
        ({"dem_arcsec": 0.7}, "dem_arcsec"),
        ({"clouds": 0.2}, "clouds"),
        ({"cloud_share": 1.0}, "cloud_share"),
    ],
)
def test_impossible_specs_are_refused_by_name(changes: dict[str, float], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        PlanetSpec.model_validate(changes)
