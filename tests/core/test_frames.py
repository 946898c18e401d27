"""Items whose projection fields and bbox contradict each other are told from those that do not."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from eo_batch.core.frames import misplaced
from eo_batch.core.scenes import Asset, Scene
from eo_batch.core.utm import project


def scene(epsg: int | None, left: float, top: float, pixel: float = 10.0, side: int = 10980) -> Scene:
    transform = (pixel, 0.0, left, 0.0, -pixel, top)
    asset = Asset("B02", "b.tif", epsg, transform, (side, side), None, 1.0, 0.0, "", False)
    return Scene(
        scene_id="s",
        collection="c",
        sensor="s2",
        moment=datetime(2023, 6, 1, tzinfo=UTC),
        bbox=(0.0, 0.0, 0.0, 0.0),
        tile="",
        platform="",
        baseline=None,
        orbit_state=None,
        relative_orbit=None,
        cloud_pct=None,
        assets=(asset,),
    )


def box(epsg: int, left: float, top: float, size: float) -> tuple[float, float, float, float]:
    """A plain bbox of four corners."""
    x, y = np.array([left, left + size, left, left + size]), np.array([top, top, top - size, top - size])
    lon, lat = project(epsg, 4326, x, y)
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def is_misplaced(one: Scene, bbox: tuple[float, float, float, float]) -> bool:
    (found,) = misplaced([one], np.zeros(1, np.int64), np.array([bbox]))
    return bool(found)


UTM = [(epsg, 399_960.0, top) for epsg in (32604, 32633, 32657, 32733) for top in (1.2e6, 5.4e6, 8.8e6)]


@pytest.mark.parametrize(("epsg", "left", "top"), [*UTM, (3035, 4e6, 5.4e6)])
def test_a_tile_lies_where_its_box_does_and_not_a_zone_further(epsg: int, left: float, top: float) -> None:
    own = box(epsg, left, top, 109_800.0)
    assert not is_misplaced(scene(epsg, left, top), own)
    part = own[0], own[1], own[0] + (own[2] - own[0]) / 10, own[3]
    assert not is_misplaced(scene(epsg, left, top), part), "a swath's edge covers a part of its tile"
    zone = max(6.0, 1.2 * (own[2] - own[0]))  # near the poles a tile is many degrees wide
    for turn in (-2 * zone, -zone, zone, 2 * zone, 180.0):
        assert is_misplaced(scene(epsg, left, top), (own[0] + turn, own[1], own[2] + turn, own[3]))
    assert is_misplaced(scene(epsg, left, top), (own[0], -own[3] - 3, own[2], -own[1] - 3)), "the other hemisphere"


@pytest.mark.parametrize("bbox", [(179.3, 0.5, -179.2, 1.6), (-180.0, 0.5, 180.0, 1.6), (179.3, 0.5, 180.8, 1.6)])
def test_boxes_across_the_antimeridian(bbox: tuple[float, float, float, float]) -> None:
    for epsg, left in ((32660, 799_980.0), (32601, 99_960.0)):
        assert not is_misplaced(scene(epsg, left, 150_000.0), bbox)
    assert is_misplaced(scene(32633, 399_960.0, 150_000.0), (179.3, 0.5, -179.2, 1.6))


def test_maps_in_degrees_and_whole_worlds() -> None:
    assert not is_misplaced(scene(4326, 15.0, 48.0, 1 / 3600, 3600), (15.0, 47.0, 16.0, 48.0))
    assert is_misplaced(scene(4326, 48.0, 15.0, 1 / 3600, 3600), (15.0, 47.0, 16.0, 48.0)), "axes exchanged"
    assert not is_misplaced(scene(4326, -180.0, 90.0, 0.1, 3600), (3.0, 4.0, 5.0, 6.0))
    assert not is_misplaced(scene(4326, 0.0, 90.0, 0.1, 3600), (-180.0, -90.0, 180.0, 90.0))


def test_what_is_not_told_does_not_contradict_and_what_is_nowhere_does() -> None:
    assert not is_misplaced(scene(None, 0.0, 0.0), (15.0, 47.0, 16.0, 48.0))
    assert is_misplaced(scene(32633, 4e9, 4e9), (15.0, 47.0, 16.0, 48.0))


def test_scenes_are_told_apart_by_their_kinds() -> None:
    kinds = [scene(32633, 399_960.0, 5_400_000.0), scene(None, 0.0, 0.0), scene(32601, 399_960.0, 5_400_000.0)]
    right = box(32633, 399_960.0, 5_400_000.0, 109_800.0)
    found = misplaced(kinds, np.array([2, 0, 1, 0]), np.array([right, right, right, (0.0, 0.0, 1.0, 1.0)]))
    assert found.tolist() == [True, False, False, True]
