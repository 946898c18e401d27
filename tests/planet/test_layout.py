"""Where the planet's rasters lie: grids that nest, tiles that overlap, zones that both reach their edge."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import translate
from shapely.geometry import box

from eo_batch.core.planet import PlanetSpec
from eo_batch.core.utm import zone_of_epsg
from eo_batch.pixels.planet import Planet
from eo_batch.pixels.planet_grids import RasterGrid, centre_grid, degree_tiles, s1_frames, s2_tiles


def covered(spec: PlanetSpec) -> dict[int, shapely.Geometry]:
    parts: dict[int, list[shapely.Geometry]] = {}
    for tile in s2_tiles(spec):
        outline = tile.grid.footprint()
        turn = 360 * round((spec.centre_lon - outline.centroid.x) / 360)
        parts.setdefault(tile.grid.epsg, []).append(translate(outline, turn))
    return {epsg: shapely.union_all(found) for epsg, found in parts.items()}


def test_the_default_planet_lies_in_two_zones_that_each_cover_their_side_and_more() -> None:
    spec = PlanetSpec()
    found = covered(spec)
    assert set(found) == {32632, 32633}
    west, south, east, north = spec.lonlat_bbox(spec.margin_km)
    beyond = 0.8 * spec.overlap_km / 75  # a degree is about 75 km here
    assert found[32632].buffer(1e-6).contains(box(west, south, 12 + beyond, north))
    assert found[32633].buffer(1e-6).contains(box(12 - beyond, south, east, north))


@given(
    lon=st.sampled_from([12.0, 12.5, -66.0, 177.9, 180.0, -179.97]),
    lat=st.sampled_from([48.0, -33.0, 0.5, 79.0, -79.0]),
    overlap=st.sampled_from([0.2, 0.5, 1.0]),
)
@settings(max_examples=20, deadline=None)
def test_tiles_cover_the_planet_in_every_zone_it_touches(lon: float, lat: float, overlap: float) -> None:
    spec = PlanetSpec(centre_lon=lon, centre_lat=lat, width_km=9, height_km=7, tile_km=5, overlap_km=overlap)
    area = box(*spec.lonlat_bbox(spec.margin_km))
    everything = shapely.union_all([zone.buffer(1e-6) for zone in covered(spec).values()])
    assert everything.contains(area)
    for epsg, ground in covered(spec).items():
        strip = zone_of_epsg(epsg).strip
        own = area.intersection(shapely.union_all([translate(strip, turn) for turn in (-360, 0, 360)]))
        assert not own.is_empty
        assert ground.buffer(1e-6).contains(own)


def test_tile_origins_and_overlaps() -> None:
    spec = PlanetSpec()
    tiles = s2_tiles(spec)
    assert len({tile.name for tile in tiles}) == len(tiles)
    for tile in tiles:
        assert tile.grid.x0 % 20 == 0
        assert tile.grid.y0 % 20 == 0
        assert tile.grid.coarser(2).bounds == tile.grid.bounds
    by_corner = {(t.grid.epsg, t.grid.x0, t.grid.y0): t for t in tiles}
    pitch = 6400.0  # 7.4 km less 1 km
    neighbours = [t for t in tiles if (t.grid.epsg, t.grid.x0 + pitch, t.grid.y0) in by_corner]
    assert neighbours


def test_frames_cover_the_planet_and_long_ones_are_cut() -> None:
    frames = s1_frames(PlanetSpec(height_km=50, width_km=4))
    assert max(frame.grid.height for frame in frames) == 2048
    for epsg in (32632, 32633):
        column = [frame.grid for frame in frames if frame.grid.epsg == epsg]
        assert [g.y0 for g in column[1:]] == [g.bounds[1] for g in column[:-1]]


def test_degree_tiles_meet_at_whole_degrees_without_seam() -> None:
    spec = PlanetSpec()
    tiles = dict(degree_tiles(spec, 1.0))
    assert set(tiles) == {"N47E011", "N47E012", "N48E011", "N48E012"}
    assert tiles["N48E012"].x0 == 12.0
    assert tiles["N48E011"].bounds[2] == pytest.approx(12.0, abs=1e-12)
    assert tiles["N47E012"].y0 == 48.0
    west, south, east, north = spec.lonlat_bbox(spec.margin_km)
    assert tiles["N47E011"].x0 <= west
    assert tiles["N47E011"].bounds[1] <= south
    assert tiles["N48E012"].bounds[2] >= east - 1e-12
    assert tiles["N48E012"].y0 >= north
    for grid in tiles.values():
        assert grid.x0 * 3600 == pytest.approx(round(grid.x0 * 3600), abs=1e-6)


def test_degree_tiles_end_at_the_antimeridian() -> None:
    tiles = dict(degree_tiles(PlanetSpec(centre_lon=180, centre_lat=66), 1.0))
    assert set(tiles) == {"N65E179", "N65W180", "N66E179", "N66W180"}
    assert tiles["N66E179"].bounds[2] == pytest.approx(180, abs=1e-12)
    assert tiles["N66W180"].x0 == -180
    assert tiles["N66W180"].shape == tiles["N66E179"].shape
    assert dict(degree_tiles(PlanetSpec(centre_lon=-180, centre_lat=66), 1.0)) == tiles


@pytest.mark.parametrize("lon", [180.0, -180.0])
def test_places_have_one_name_on_both_sides_of_the_antimeridian(lon: float) -> None:
    planet = Planet(PlanetSpec(centre_lon=lon, centre_lat=66))
    west, _, east, _ = planet.spec.area_bbox
    assert 179 < west < 180
    assert -180 < east < -179
    x, y = planet.plane(np.array([179.99, -179.99]), np.array([66.0, 66.0]))
    assert x[0] == pytest.approx(-x[1], abs=0.01)
    assert abs(x[0]) == pytest.approx(452.3, abs=0.1)
    assert abs(y).max() < 1e-3


def test_centres_are_half_a_pixel_inside() -> None:
    grid = RasterGrid(4326, 10.0, 50.0, 0.5, 0.25, 2, 3)
    lon, lat = grid.lonlat()
    np.testing.assert_allclose(lon, [[10.25, 10.75, 11.25]] * 2)
    np.testing.assert_allclose(lat, [[49.875] * 3, [49.625] * 3])
    coarse = RasterGrid(32632, 0.0, 80.0, 10, 10, 4, 4).coarser(2)
    assert (coarse.dx, coarse.shape) == (20, (2, 2))


def test_pixel_numbers_are_those_of_the_crs() -> None:
    whole = RasterGrid(32632, 500_000.0, 5_000_000.0, 10, 10, 100, 100)
    part = RasterGrid(32632, 500_200.0, 4_999_700.0, 10, 10, 50, 50)
    assert part.first_col - whole.first_col == 20
    assert part.first_row - whole.first_row == 30
    assert whole.rows(30, 80).first_row == part.first_row


def test_centre_grid_covers_the_planet() -> None:
    spec = PlanetSpec.tiny()
    grid = centre_grid(spec)
    assert grid.epsg == 32633
    assert grid.footprint().buffer(1e-6).contains(box(*spec.lonlat_bbox(spec.margin_km)))
