"""Composites of a simulated month against loops over its single overpasses. Legend: t overpasses.

The cube of step `observation` holds what was seen; every composite of the same scenes must follow from it.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from eo_batch.core import layout
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.drive import drive
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate
from tests.truth.test_planet import Quiet

SPEC = """
name: composites
time: {start: 2023-06-01, end: 2023-07-01}
grid: {chip_px: 32, gsd_m: 10, block_chips: 2}
sensors:
  s2: {kind: s2-l2a, bands: [B02, B04, B11]}
  s1: {kind: s1, orbit: ascending}
"""
COMPOSITES = ("medoid", "geomedian", "least-cloudy", "latest-valid")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PlanetSpec, str]:
    folder = tmp_path_factory.mktemp("composites")
    planet = PlanetSpec.tiny(s2_dates=5, s1_dates=4, cloud_share=0.5, collections=("sentinel-2-l2a", "sentinel-1-rtc"))
    return folder, planet, simulate(planet, parse_store(str(folder / "planet")))


def cube(catalog: tuple[Path, PlanetSpec, str], *overrides: str) -> Any:
    folder, planet, href = catalog
    area = list(planet.area_bbox)
    spec = parse_spec(SPEC, [f"catalog={href}", f"area.bbox={area}", *overrides])
    run = Run(spec, parse_store(str(folder / "runs")), Settings())
    drive(run, LocalRunner(0), Quiet(), until="publish")
    path = layout.cube(run.identity.prefix("chips"))
    return xr.open_zarr(run.store.zarr(path, read_only=True), mask_and_scale=False).load().set_index(chip="chip_id")


@pytest.fixture(scope="module")
def single(catalog: tuple[Path, PlanetSpec, str]) -> Any:
    return cube(catalog, "time.step=observation", "sensors.s2.composite=latest-valid", "sensors.s1.composite=medoid")


def test_overpasses_are_bins_of_their_own(single: Any) -> None:
    keys = [str(key) for key in single.time_bin.values]
    assert len(keys) == len(set(keys)) >= 5
    days = single.time.values.astype("datetime64[D]").astype(str)
    assert [key[:10] for key in keys] == list(days)
    for array in ("s2_10m", "s1_10m"):
        assert set(np.unique(single[f"{array}_valid"])) == {0, 1}


@pytest.mark.parametrize("how", COMPOSITES)
def test_composites_follow_from_single_overpasses(catalog: Any, single: Any, how: str) -> None:
    made = cube(catalog, f"sensors.s2.composite={how}", f"sensors.s1.composite={how}")
    checked = 0
    for array in ("s2_10m", "s2_20m", "s1_10m"):
        assert made[array].attrs["composite"] == how
        order = np.argsort(single.time.values, kind="stable")
        seen, valid = single[array].values[:, order], single[f"{array}_valid"].values[:, order] > 0
        np.testing.assert_array_equal(made[f"{array}_valid"].values[:, 0], valid.sum(axis=1))
        result = made[array].values[:, 0]
        clear = valid.sum(axis=(2, 3))
        rng = np.random.default_rng(4)
        for chip, y, x in zip(*(rng.integers(0, n, 400) for n in valid[:, 0].shape), strict=True):
            there = np.flatnonzero(valid[chip, :, y, x])
            pixel = result[chip, :, y, x]
            if not there.size:
                fill = 0 if pixel.dtype == np.uint16 else np.nan
                np.testing.assert_array_equal(pixel, np.full_like(pixel, fill))
                continue
            points = [[float(v) for v in seen[chip, t, :, y, x]] for t in there]
            totals = [sum(math.dist(a, b) for b in points) for a in points]
            if how == "geomedian":
                total = math.fsum(math.dist([float(v) for v in pixel], point) for point in points)
                slack = len(points) * math.sqrt(len(pixel)) / 2 if pixel.dtype == np.uint16 else 1e-5 * min(totals)
                assert total <= min(totals) + slack
            else:
                ranks = {
                    "latest-valid": [-int(t) for t in there],
                    "least-cloudy": [-int(clear[chip, t]) for t in there],
                    "medoid": totals,
                }[how]
                np.testing.assert_array_equal(pixel, seen[chip, there[ranks.index(min(ranks))], :, y, x])
            checked += len(there) > 1
    assert checked > 100


def test_bins_about_an_event_hold_what_was_seen_then(catalog: Any, single: Any) -> None:
    """The overpasses next to a day, as single observations, from the cube of all of them."""
    days = [key for key in single.time_bin.values if single["s2_10m_valid"].sel(time=single.time_bin == key).any()]
    event = str(np.datetime64(sorted(days)[2]))
    made = cube(
        catalog,
        "time.step=observation",
        f"time.event={{date: {event}, before: 2, after: 1}}",
        "sensors.s2.composite=latest-valid",
        "sensors.s1.composite=medoid",
    )
    keys = list(made.time_bin.values)
    stem = event.replace("-", "")
    assert keys == [f"{stem}-before2", f"{stem}-before1", f"{stem}-after1"]
    order = sorted(days)
    for key, day in zip(keys, (order[0], order[1], order[3]), strict=True):
        was = single["s2_10m"].isel(time=list(single.time_bin.values).index(day)).values
        np.testing.assert_array_equal(made["s2_10m"].isel(time=keys.index(key)).values, was)
