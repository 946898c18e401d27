"""Held-out chips: apart from training chips on the ground, and the same in every run."""

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from eo_batch.core.area import area_from_bbox
from eo_batch.core.grid import PlannedCell, cells_of_area
from eo_batch.core.spec import SplitSpec
from eo_batch.core.splits import split_cells

AREAS = {
    "one zone": (10.0, 47.0, 11.0, 47.5),
    "zone edge": (11.5, 46.0, 12.5, 46.5),
    "zone edge, high": (23.0, 78.0, 25.0, 78.4),
    "zone edge at the equator": (5.5, -0.3, 6.5, 0.3),
    "south": (-66.5, -33.4, -65.5, -33.0),
    "antimeridian": (179.4, 66.0, -179.4, 66.4),
    "antimeridian at the equator": (179.7, -0.3, -179.7, 0.3),
}


@lru_cache
def planned_cells(bbox: tuple[float, ...], chip_m: int = 2560) -> tuple[PlannedCell, ...]:
    return tuple(cells_of_area(area_from_bbox(bbox), chip_m))


def on_the_ground(cells: tuple[PlannedCell, ...], middle_lon: float, middle_lat: float) -> list[shapely.Polygon]:
    """Outlines in metres of a plane around one place, whatever zone a cell is of."""
    plane = CRS.from_proj4(f"+proj=aeqd +lon_0={middle_lon} +lat_0={middle_lat} +datum=WGS84 +units=m")
    outlines = []
    to_plane: dict[int, Transformer] = {}
    for planned in cells:
        epsg = planned.cell.epsg
        if epsg not in to_plane:
            to_plane[epsg] = Transformer.from_crs(epsg, plane, always_xy=True)
        x0, y0, x1, y1 = planned.cell.bounds
        along = np.linspace(0, 1, 9)[:-1]
        x = np.concatenate([x0 + along * (x1 - x0), np.full(8, x1), x1 - along * (x1 - x0), np.full(8, x0)])
        y = np.concatenate([np.full(8, y0), y0 + along * (y1 - y0), np.full(8, y1), y1 - along * (y1 - y0)])
        outlines.append(shapely.Polygon(np.column_stack(to_plane[epsg].transform(x, y))))
    return outlines


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(AREAS)),
    st.sampled_from([0.0, 500.0, 3000.0, 12_000.0]),
    st.sampled_from([8.0, 20.0]),
    st.integers(0, 1000),
)
@example("zone edge at the equator", 10_245.0, 8.0, 0)  # just over four chips: a degree of latitude is shortest here
def test_no_test_chip_touches_a_training_chip(place: str, buffer_m: float, cell_km: float, seed: int) -> None:
    bbox = AREAS[place]
    cells = planned_cells(bbox)
    splits = split_cells(cells, SplitSpec(cell_km=cell_km, buffer_m=buffer_m, seed=seed))
    middle_lon = (bbox[0] + (bbox[2] - bbox[0]) % 360 / 2 + 180) % 360 - 180
    outlines = on_the_ground(cells, middle_lon, (bbox[1] + bbox[3]) / 2)
    test = shapely.STRtree([o for o, s in zip(outlines, splits, strict=True) if s == "test"])
    for outline, side in zip(outlines, splits, strict=True):
        if side == "train" and len(test.geometries):
            nearest = test.geometries[test.nearest(outline)]
            # The plane stretches distances by less than 0.1 % here; chips that share a corner are 0 apart.
            assert outline.distance(nearest) > max(buffer_m * 0.999, 0.5)


@pytest.mark.parametrize("place", AREAS)
def test_the_buffer_is_no_wider_than_it_must_be(place: str) -> None:
    """Training chips are not thrown away: a buffer chip has a held-out chip within the buffer's diagonal."""
    bbox, buffer_m = AREAS[place], 3000.0
    cells = planned_cells(bbox)
    splits = split_cells(cells, SplitSpec(cell_km=20, buffer_m=buffer_m))
    assert set(splits) == {"train", "test", "buffer"}
    middle_lon = (bbox[0] + (bbox[2] - bbox[0]) % 360 / 2 + 180) % 360 - 180
    outlines = on_the_ground(cells, middle_lon, (bbox[1] + bbox[3]) / 2)
    test = shapely.STRtree([o for o, s in zip(outlines, splits, strict=True) if s == "test"])
    for outline, side in zip(outlines, splits, strict=True):
        if side == "buffer":
            # The box is grown around a square that may be turned by up to 3 degrees (15 near the pole).
            assert outline.distance(test.geometries[test.nearest(outline)]) < 1.5 * buffer_m + 700


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(AREAS)), st.floats(0, 5000), st.integers(0, 1000), st.floats(0.05, 0.6))
def test_a_larger_area_moves_no_ground_to_the_other_side(place: str, buffer_m: float, seed: int, test: float) -> None:
    """The held-out side never changes; only training chips may become buffer."""
    west, south, east, north = AREAS[place]
    spec = SplitSpec(cell_km=10, buffer_m=buffer_m, seed=seed, test=test)
    small, large = (
        planned_cells((west, south, east, north)),
        planned_cells((west - 0.2, south - 0.1, east + 0.2, north)),
    )
    before = dict(zip((p.cell for p in small), split_cells(small, spec), strict=True))
    after = dict(zip((p.cell for p in large), split_cells(large, spec), strict=True))
    assert before.keys() < after.keys()
    moves = Counter((before[cell], after[cell]) for cell in before)
    assert moves.keys() <= {("test", "test"), ("train", "train"), ("buffer", "buffer"), ("train", "buffer")}


def test_coarse_cells_are_never_divided() -> None:
    """Chips that share a coarse cell share their side: the number of sides switched equals that of coarse cells."""
    cells = planned_cells(AREAS["one zone"])
    splits = split_cells(cells, SplitSpec(cell_km=20, test=0.5))
    held = [p for p, s in zip(cells, splits, strict=True) if s == "test"]
    for p in held:  # a held-out chip is surrounded by its own kind up to the border of its coarse cell
        near = sum(abs(q.cell.row - p.cell.row) <= 1 and abs(q.cell.col - p.cell.col) <= 1 for q in held)
        assert near >= 2
    assert len(held) > 20


@pytest.mark.parametrize("wanted", [0.0, 0.1, 0.25, 0.5])
def test_the_share_is_about_the_wanted_one(wanted: float) -> None:
    cells = planned_cells((8.0, 45.0, 12.0, 48.0), 5120)
    shares = []
    for seed in range(8):
        splits = split_cells(cells, SplitSpec(cell_km=20, test=wanted, seed=seed))
        shares.append(sum(s == "test" for s in splits) / len(splits))
    assert np.mean(shares) == pytest.approx(wanted, abs=0.02)


def test_seeds_draw_differently_and_repeatably() -> None:
    cells = planned_cells(AREAS["one zone"])
    first, again, other = (split_cells(cells, SplitSpec(seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_no_cells_no_splits() -> None:
    assert split_cells([], SplitSpec()) == []


def test_known_ground_falls_on_a_known_side() -> None:
    """Held-out ground is part of every published score: this must never change."""
    cells = planned_cells((15.0, 45.6, 15.6, 46.0), 10_240)
    held = {p.cell.chip_id for p, s in zip(cells, split_cells(cells, SplitSpec(seed=0)), strict=True) if s == "test"}
    rows = {493: (51, 52, 53), 495: (51, 52, 53), 496: (51, 52, 53), 497: (49, 50)}
    assert held == {f"u33n-10240m-r{row:05d}-c{col:05d}" for row, cols in rows.items() for col in cols}
