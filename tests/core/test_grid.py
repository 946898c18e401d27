"""The chip lattice: one owner for every point, no overlap within a CRS, ids that never change."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import Geod, Proj, Transformer
from shapely.geometry import MultiPolygon

from eo_batch.core.area import area_from_bbox
from eo_batch.core.errors import UsageError
from eo_batch.core.grid import (
    Block,
    Cell,
    PlannedCell,
    block_of,
    cells_of_area,
    parse_block_key,
    parse_chip_id,
    zones_of_area,
)
from eo_batch.core.utm import Zone, zone_of_epsg

CHIP_M = 2560
ORIGIN = shapely.Point(0, 0)
EPSG_CODES = [Zone(number, north).epsg for number in range(1, 61) for north in (True, False)]
epsg_codes = st.sampled_from(EPSG_CODES)
cells = st.builds(
    Cell, epsg_codes, st.integers(-5, 9000), st.integers(-5, 900), st.sampled_from([20, 640, 2560, 4480, 5120])
)

PLACES = {
    "mid latitudes": (10.3, 47.2),
    "zone edge": (12.0, 46.9),
    "high north": (17.9, 78.2),
    "zone edge, high": (24.0, 83.6),
    "equator": (8.4, 0.0),
    "equator at a zone edge": (6.0, 0.0),
    "south": (-67.1, -33.3),
    "zone edge, far south": (-66.0, -79.7),
    "antimeridian": (180.0, 66.1),
    "antimeridian at the equator": (180.0, 0.0),
    "antimeridian, south": (180.0, -16.8),
    "Norway, where MGRS bends its zones": (3.1, 60.5),
}


def bbox_around(lon: float, lat: float, width: float, height: float, shift: tuple[float, float]) -> list[float]:
    """[west, south, east, north] of a box with its middle near a place; west > east across the antimeridian."""
    west, east = lon + (shift[0] - 0.5) * width, lon + (shift[0] + 0.5) * width
    south, north = lat + (shift[1] - 0.5) * height, lat + (shift[1] + 0.5) * height
    wrap = [(x + 180) % 360 - 180 for x in (west, east)]
    return [wrap[0], max(south, -80.0), wrap[1], min(north, 84.0)]


@st.composite
def areas(draw: st.DrawFn) -> MultiPolygon:
    """Boxes of some kilometres and triangles within them, near the places where grids go wrong."""
    lon, lat = draw(st.sampled_from(sorted(PLACES.values())))
    share = st.floats(0.05, 0.95)
    bbox = bbox_around(
        lon, lat, draw(st.floats(0.002, 0.4)), draw(st.floats(0.002, 0.15)), (draw(share) - 0.5, draw(share) - 0.5)
    )
    area = area_from_bbox(bbox)
    if draw(st.booleans()):
        return area
    corners = [shapely.Polygon(list(part.exterior.coords)[:3]) for part in area.geoms]
    return MultiPolygon(corners)


def points_in(area: MultiPolygon, n: int, seed: int) -> np.ndarray:
    """Points of an area, (n, 2) longitudes and latitudes: corners, edges, and inside."""
    rng = np.random.default_rng(seed)
    found = [np.asarray(part.exterior.coords)[:, :2] for part in area.geoms]
    for part in area.geoms:
        ring = part.exterior
        along = shapely.line_interpolate_point(ring, rng.random(n) * ring.length)
        found.append(shapely.get_coordinates(along))
        west, south, east, north = part.bounds
        draw = rng.random((4 * n, 2)) * [east - west, north - south] + [west, south]
        inside = shapely.contains_xy(part, draw[:, 0], draw[:, 1])
        found.append(draw[inside][:n])
    return np.concatenate(found)


def own_cell(lon: float, lat: float, chip_m: int) -> Cell:
    """The cell that holds a point in the lattice of the point's own zone, straight from the definition."""
    zone = Zone(min(int((lon + 180) // 6) + 1, 60), lat >= 0)
    x, y = Transformer.from_crs(4326, zone.epsg, always_xy=True).transform(lon, lat)
    return Cell(zone.epsg, int(y // chip_m), int(x // chip_m), chip_m)


class TestEveryPointHasOneOwner:
    @settings(max_examples=60, deadline=None)
    @given(areas(), st.integers(0, 2**32 - 1))
    def test_the_cell_of_every_point_in_its_own_zone_is_planned(self, area: MultiPolygon, seed: int) -> None:
        planned = {p.cell for p in cells_of_area(area, CHIP_M)}
        for lon, lat in points_in(area, 12, seed):
            assert own_cell(lon, lat, CHIP_M) in planned, (lon, lat)

    @pytest.mark.parametrize("place", PLACES)
    def test_each_place(self, place: str) -> None:
        area = area_from_bbox(bbox_around(*PLACES[place], 0.3, 0.1, (0.0, 0.0)))
        planned = {p.cell for p in cells_of_area(area, CHIP_M)}
        missed = [tuple(p) for p in points_in(area, 60, 0) if own_cell(*p, CHIP_M) not in planned]
        assert missed == []

    @pytest.mark.parametrize(("lat", "chip_m", "height"), [(60.0, 2560, 0.3), (45.0, 20, 1e-5), (-72.0, 20, 1e-5)])
    def test_edges_of_wide_areas_bend(self, lat: float, chip_m: int, height: float) -> None:
        """Parallels are no straight lines in UTM: points along a long edge are planned all the same."""
        area = area_from_bbox([12.2, lat, 12.2 + (5 if chip_m > 100 else 0.9), lat + height])
        planned = {(p.cell.row, p.cell.col) for p in cells_of_area(area, chip_m)}
        to_utm = Transformer.from_crs(4326, 32633 if lat > 0 else 32733, always_xy=True)
        lon = np.linspace(*area.bounds[::2], 20_000)
        for edge in (area.bounds[1], area.bounds[3]):
            x, y = to_utm.transform(lon, np.full(lon.shape, edge))
            assert set(zip((y // chip_m).astype(int), (x // chip_m).astype(int), strict=True)) <= planned

    @settings(max_examples=40, deadline=None)
    @given(areas())
    def test_planned_cells_lie_within_a_chip_of_the_area(self, area: MultiPolygon) -> None:
        """The plan is not bought with cells that have nothing to do with the area."""
        for p in cells_of_area(area, CHIP_M):
            near_m = min(_metres_from(p, part, turn) for part in area.geoms for turn in (-360, 0, 360))
            assert near_m < 0.72 * CHIP_M  # half a diagonal


def _metres_from(p: PlannedCell, part: shapely.Polygon, turn: int) -> float:
    """Distance of a polygon from a cell's centre, with degrees as long as they are at the centre."""
    metres = 111_320 * np.array([math.cos(math.radians(p.lat)), 1.0])
    return float(shapely.transform(part, lambda n2: (n2 - [p.lon + turn, p.lat]) * metres).distance(ORIGIN))


class TestCells:
    @settings(max_examples=60, deadline=None)
    @given(areas())
    def test_within_one_epsg_cells_never_overlap(self, area: MultiPolygon) -> None:
        planned = cells_of_area(area, CHIP_M)
        assert len({p.cell for p in planned}) == len(planned)
        for epsg in {p.cell.epsg for p in planned}:
            squares = [shapely.box(*p.cell.bounds) for p in planned if p.cell.epsg == epsg]
            assert shapely.unary_union(squares).area == pytest.approx(len(squares) * CHIP_M**2)

    @given(cells)
    def test_neighbours_share_an_edge_exactly(self, cell: Cell) -> None:
        east = Cell(cell.epsg, cell.row, cell.col + 1, cell.chip_m)
        north = Cell(cell.epsg, cell.row + 1, cell.col, cell.chip_m)
        x0, y0, x1, y1 = cell.bounds
        assert east.bounds == (x1, y0, x1 + cell.chip_m, y1)
        assert north.bounds == (x0, y1, x1, y1 + cell.chip_m)

    @settings(max_examples=40, deadline=None)
    @given(areas())
    def test_cells_are_sorted_and_centres_are_theirs(self, area: MultiPolygon) -> None:
        planned = cells_of_area(area, CHIP_M)
        assert list(planned) == sorted(planned, key=lambda p: p.cell)
        for p in planned:
            x, y = Transformer.from_crs(4326, p.cell.epsg, always_xy=True).transform(p.lon, p.lat)
            x0, y0, _, _ = p.cell.bounds
            assert (x, y) == pytest.approx((x0 + CHIP_M / 2, y0 + CHIP_M / 2), abs=0.01)

    @settings(max_examples=30, deadline=None)
    @given(areas(), st.floats(0.01, 0.1))
    def test_a_larger_area_keeps_every_cell(self, area: MultiPolygon, margin: float) -> None:
        larger = shapely.unary_union([area, *(shapely.box(*p.bounds).buffer(margin) for p in area.geoms)])
        larger = shapely.intersection(larger, shapely.box(-180, -80, 180, 84))
        larger = MultiPolygon(list(getattr(larger, "geoms", [larger])))
        before, after = cells_of_area(area, CHIP_M), cells_of_area(larger, CHIP_M)
        assert set(before) <= set(after)
        assert len(after) >= len(before)

    def test_known_ground_has_a_known_id(self) -> None:
        """Ids are part of every store that exists: this one must never change."""
        planned = cells_of_area(area_from_bbox([15.001, 46.001, 15.002, 46.002]), 2560)
        assert [p.cell.chip_id for p in planned] == ["u33n-2560m-r01989-c00195"]
        assert planned[0].cell.bounds == (499_200, 5_091_840, 501_760, 5_094_400)


class TestOwners:
    @settings(max_examples=60, deadline=None)
    @given(areas())
    @example(area_from_bbox([179.9, 66.0, -179.9, 66.1]))
    def test_owner_means_the_centre_lies_in_the_own_strip(self, area: MultiPolygon) -> None:
        for p in cells_of_area(area, CHIP_M):
            assert p.owner == (own_cell((p.lon + 180) % 360 - 180, p.lat, CHIP_M) == p.cell)

    @pytest.mark.parametrize(
        "bbox", [[11.0, 46.0, 13.0, 46.5], [-66.6, -33.5, -65.4, -33.0], [179.5, 66.0, -179.5, 66.4], [5, -0.4, 7, 0.4]]
    )
    def test_owners_count_ground_once_across_zones(self, bbox: list[float]) -> None:
        """Ground of the owners whose centre is in the area adds up to the area; that of all cells is more."""
        area = area_from_bbox(bbox)
        planned = [p for p in cells_of_area(area, 640) if area.covers(shapely.Point(_wrapped(p.lon), p.lat))]
        assert len({p.cell.epsg for p in planned}) >= 2
        truth = abs(sum(Geod(ellps="WGS84").geometry_area_perimeter(part)[0] for part in area.geoms))
        owned = _ground_m2([p for p in planned if p.owner])
        assert owned == pytest.approx(truth, rel=0.004)
        assert _ground_m2(planned) > owned * 1.001


def _wrapped(lon: float) -> float:
    return (lon + 180) % 360 - 180


def _ground_m2(planned: Sequence[PlannedCell]) -> float:
    """Area of cells on the ellipsoid: the squares' area over the projection's areal scale at their centres."""
    total = 0.0
    for epsg in {p.cell.epsg for p in planned}:
        own = [p for p in planned if p.cell.epsg == epsg]
        scale = Proj(epsg).get_factors([p.lon for p in own], [p.lat for p in own]).areal_scale
        total += float(np.sum(own[0].cell.chip_m ** 2 / np.asarray(scale)))
    return total


class TestNames:
    @given(cells)
    def test_chip_ids_round_trip(self, cell: Cell) -> None:
        assert parse_chip_id(cell.chip_id) == cell

    @given(st.lists(cells, unique=True, max_size=20))
    def test_chip_ids_are_unique(self, many: list[Cell]) -> None:
        assert len({cell.chip_id for cell in many}) == len(many)

    @given(cells, st.integers(1, 64))
    def test_block_keys_round_trip(self, cell: Cell, side: int) -> None:
        block = block_of(cell, side)
        assert parse_block_key(block.key) == block

    @pytest.mark.parametrize(
        "name", ["", "u33n-2560m-r1", "u33x-2560m-r00001-c00001", "u33n-2560m-8x8-r0-c0", "r1-c1\n"]
    )
    def test_what_is_no_chip_id_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="is not a chip id; one looks like u33n-"):
            parse_chip_id(name)

    @pytest.mark.parametrize(
        "name", ["", "u33n-2560m-r00001-c00001", "u33n-2560m-8x4-r00001-c00001", "33n-2560m-8x8-r1-c1"]
    )
    def test_what_is_no_block_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="is not a block; one looks like u33n-"):
            parse_block_key(name)

    @pytest.mark.parametrize("number", [0, 61, 99])
    def test_zones_that_do_not_exist_are_refused(self, number: int) -> None:
        with pytest.raises(UsageError, match="is not a chip id"):
            parse_chip_id(f"u{number:02d}n-2560m-r00001-c00001")
        with pytest.raises(UsageError, match="is not a block"):
            parse_block_key(f"u{number:02d}s-2560m-8x8-r00001-c00001")


class TestBlocks:
    @given(cells, st.integers(1, 16))
    def test_a_cell_lies_in_its_block_at_its_place(self, cell: Cell, side: int) -> None:
        block = block_of(cell, side)
        held = block.cells()
        assert len(held) == side**2
        assert held[block.place(cell)] == cell
        assert [block.place(c) for c in held] == list(range(side**2))
        assert Counter(block_of(c, side) for c in held) == {block: side**2}

    @given(cells, st.integers(1, 16))
    def test_a_block_covers_its_cells_and_nothing_else(self, cell: Cell, side: int) -> None:
        block = block_of(cell, side)
        bounds = np.array([c.bounds for c in block.cells()])
        assert block.bounds == (*bounds[:, :2].min(0), *bounds[:, 2:].max(0))
        x0, y0, x1, y1 = block.bounds
        assert (x1 - x0) * (y1 - y0) == len(bounds) * cell.chip_m**2

    def test_places_count_northwards(self) -> None:
        block = Block(32633, 0, 0, 100, 2)
        assert [(c.row, c.col) for c in block.cells()] == [(0, 0), (0, 1), (1, 0), (1, 1)]


class TestZones:
    @pytest.mark.parametrize("epsg", EPSG_CODES)
    def test_codes_round_trip(self, epsg: int) -> None:
        assert zone_of_epsg(epsg).epsg == epsg

    @pytest.mark.parametrize("epsg", [4326, 3857, 32600, 32661, 32700, 32761, 25832, 326330])
    def test_other_codes_are_no_zones(self, epsg: int) -> None:
        with pytest.raises(ValueError, match=f"EPSG:{epsg} is not a WGS 84 UTM zone"):
            zone_of_epsg(epsg)

    @pytest.mark.parametrize(
        ("bbox", "names"),
        [
            ([11.9, 46, 12.1, 46.1], ["32n", "33n"]),
            ([12.0, 46, 12.1, 46.1], ["33n"]),
            ([179.9, -0.1, -179.9, 0.1], ["01n", "01s", "60n", "60s"]),
            ([-180, 10, -179, 11], ["01n"]),
        ],
    )
    def test_zones_of_an_area(self, bbox: list[float], names: list[str]) -> None:
        assert [zone.name for zone in zones_of_area(area_from_bbox(bbox))] == names
