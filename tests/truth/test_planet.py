"""Chips of the simulated planet against its analytic truth: geolocation and radiometry, on both sides of a UTM edge."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from eo_batch.core import layout
from eo_batch.core.planet import LAND_CLASSES, S2_CONVENTIONS, PlanetSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.core.utm import project
from eo_batch.entry.drive import StageState, drive
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.io.tables import read_table
from eo_batch.pixels.planet import Planet
from eo_batch.runners.base import Event
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate

SPEC = """
name: truth
time: {start: 2023-06-01, end: 2023-09-01} # the middle of a season's coherence is in July
grid: {chip_px: 32, gsd_m: 10, block_chips: 4}
sensors:
  s2: {kind: s2-l2a, bands: [B02, B04, B08, B11]}
  s1: {kind: s1, orbit: ascending}
  dem: {kind: dem, collections: [dem]}
  coh: {kind: coherence, collections: [coherence], assets: {coh06: coh06}}
  ratio: {kind: s1, orbit: ascending, bands: [VV/VH]}
  terrain: {kind: dem, collections: [dem], bands: [slope, eastness]}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
split: {cell_km: 1, test: 0.3}
"""


class Quiet:
    def begin(self, state: StageState) -> None: ...

    def event(self, state: StageState, event: Event) -> None:
        assert event.kind == "done", event.message

    def end(self, state: StageState) -> None: ...


class World:
    """A planet, and the cube made from it."""

    def __init__(self, folder: Path, planet: PlanetSpec, *overrides: str) -> None:
        catalog = simulate(planet, parse_store(str(folder / "planet")))
        spec = parse_spec(SPEC, [f"catalog={catalog}", f"area.bbox={list(planet.area_bbox)}", *overrides])
        self.run = Run(spec, parse_store(str(folder / "runs")), Settings())
        drive(self.run, LocalRunner(0), Quiet(), until="publish")
        self.planet = Planet(planet)
        cube = layout.cube(self.run.identity.prefix("chips"))
        self.stored = xr.open_zarr(self.run.store.zarr(cube, read_only=True), mask_and_scale=False).load()
        self.chips = read_table(self.run.store, f"{self.run.identity.prefix('publish')}/chips.parquet").to_pylist()

    def truth(self, slot: int, pixel_m: float, what: Any, shift_px: tuple[float, float] = (0, 0)) -> Any:
        """A truth function at the pixel centres of a chip, optionally shifted (rows, columns)."""
        px = round(320 / pixel_m)
        epsg = int(self.stored.epsg[slot])
        x = float(self.stored.x0[slot]) + (np.arange(px) + 0.5 + shift_px[1]) * pixel_m
        y = float(self.stored.y0[slot]) - (np.arange(px) + 0.5 + shift_px[0]) * pixel_m
        lon, lat = project(epsg, 4326, *np.meshgrid(x, y))
        return what(lon, lat)

    def slots(self, count: int) -> Iterator[int]:
        """Chips of every zone."""
        for epsg in sorted({c["epsg"] for c in self.chips}):
            in_zone = [c["slot"] for c in self.chips if c["epsg"] == epsg]
            yield from in_zone[:: max(1, len(in_zone) // count)]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> World:
    """No clouds, haze, noise; nearly no speckle; one date."""
    planet = PlanetSpec.tiny(
        cloud_share=0.0, haze=0.0, s2_noise=0.0, s1_looks=100.0, s2_dates=1, s1_dates=1, grain_m=160.0
    )
    return World(tmp_path_factory.mktemp("clear"), planet)


def test_both_zones_are_there(clear: World) -> None:
    assert {c["epsg"] for c in clear.chips} == {32632, 32633}


@pytest.mark.parametrize(("array", "band"), [("s2_10m", "B02"), ("s2_10m", "B08"), ("s2_20m", "B11")])
def test_reflectance_is_exact(clear: World, array: str, band: str) -> None:
    """Nested grids: every valid pixel is the truth at its centre, to the rounding of a digital number. All three
    publishers' offset conventions are among the files."""
    compared, conventions = 0, set()
    for shard in clear.run.receipts("chips").values():
        conventions |= {source.offset_dn for source in shard.sources if source.band == band}
    assert conventions == {0.0, -1000.0}
    assert len(S2_CONVENTIONS) == 3
    for slot in clear.slots(40):
        stored = clear.stored[array].sel({f"band_{array}": band}).isel(time=0).values[slot].astype(float)
        valid = stored > 0
        pixel_m = clear.stored[array].attrs["pixel_size_m"]
        truth = clear.truth(slot, pixel_m, lambda lon, lat: clear.planet.s2_reflectance_at(lon, lat, band))
        error = np.abs(stored * 0.0001 - 0.1 - truth)[valid]
        assert error.max(initial=0) <= 0.00011
        compared += int(valid.sum())
    assert compared > 5000


def test_a_shift_of_a_tenth_of_a_pixel_would_be_seen(clear: World) -> None:
    """What makes the test above a test of geolocation."""
    slot = next(iter(clear.slots(1)))
    stored = clear.stored.s2_10m.sel(band_s2_10m="B04").isel(time=0).values[slot].astype(float)
    truth = clear.truth(slot, 10, lambda lon, lat: clear.planet.s2_reflectance_at(lon, lat, "B04"), (0.1, 0.0))
    assert np.abs(stored * 0.0001 - 0.1 - truth)[stored > 0].max() > 0.0005


def test_backscatter_is_linear_and_in_place(clear: World) -> None:
    ratios = []
    for slot in clear.slots(15):
        stored = clear.stored.s1_10m.sel(band_s1_10m="VV").isel(time=0).values[slot]
        truth = clear.truth(slot, 10, lambda lon, lat: clear.planet.s1_gamma0_at(lon, lat, "VV"))
        ratios.append((stored / truth)[np.isfinite(stored)])
    ratio = np.concatenate(ratios)
    assert len(ratio) > 10_000
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert ratio.std() == pytest.approx(0.1, abs=0.02)  # 1 / sqrt(looks)


def test_elevation_is_bilinear_and_not_shifted(clear: World) -> None:
    """From one second of arc to 10 m: off by what bilinear interpolation leaves, least unshifted."""
    error = {}
    for shift in (-0.25, 0.0, 0.25):
        parts = []
        for slot in clear.slots(15):
            stored = clear.stored.dem_10m.sel(band_dem_10m="elevation").values[slot]
            assert np.isfinite(stored).all()
            for at in ((shift, 0.0), (0.0, shift)):
                parts.append(np.abs(stored - clear.truth(slot, 10, clear.planet.elevation_at, at)).ravel())
        error[shift] = np.concatenate(parts)
    assert error[0.0].max() < 2.0
    assert error[0.0].mean() < 0.2
    assert min(error, key=lambda shift: error[shift].mean()) == 0.0


def test_labels_are_nearest_and_not_shifted(clear: World) -> None:
    """From 0.3 seconds of arc to 10 m: wrong only within half a label pixel of an edge, least wrong unshifted."""
    names = {land.code for land in LAND_CLASSES}
    agreement = {}
    for shift in (-0.5, -0.25, 0.0, 0.25, 0.5):
        same, total = 0, 0
        for slot in clear.slots(25):
            stored = clear.stored.labels_10m.values[slot, 0]
            assert set(np.unique(stored)) <= names
            for at in ((shift, 0.0), (0.0, shift)):
                same += int((stored == clear.truth(slot, 10, clear.planet.class_at, at)).sum())
                total += stored.size
        agreement[shift] = same / total
    assert agreement[0.0] > 0.97
    assert max(agreement, key=lambda shift: agreement[shift]) == 0.0


def test_class_proportions_are_areas_of_the_truth(clear: World) -> None:
    """Label pixels of 9 x 6 m that are cut by a chip's edge count by what of them lies in it."""
    compared = 0
    for chip in clear.chips[:: len(clear.chips) // 10]:
        labels = clear.stored.labels_10m.values[chip["slot"], 0]
        shares = {land.code: chip.get(f"share:labels_10m:{land.code}") or 0.0 for land in LAND_CLASSES}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-9)
        fine = clear.truth(chip["slot"], 2.0, clear.planet.class_at)
        for code, share in shares.items():
            assert share == pytest.approx((labels == code).mean(), abs=0.03)
            assert share == pytest.approx((fine == code).mean(), abs=0.01)
            compared += share > 0
    assert compared > 10


def test_coherence_is_a_share(clear: World) -> None:
    """The files hold percent; the cube hundredths that xarray decodes to 0 to 1."""
    stored = clear.stored.coh_10m.sel(band_coh_10m="coh06").isel(time=0)
    assert stored.dtype == np.uint8
    for slot in clear.slots(8):
        truth = clear.truth(slot, 10, lambda lon, lat: clear.planet.coherence_at(lon, lat, 6))
        values = stored.values[slot]
        assert (values > 0).mean() > 0.9
        assert np.median(np.abs(values * stored.attrs["scale_factor"] - truth)[values > 0]) < 0.02


def test_terrain_and_ratio_are_those_of_the_truth(clear: World) -> None:
    """Slope from true elevations 10 m around each pixel; VV/VH over many pixels, since speckle has two sources."""
    from eo_batch.pixels.derived import derive

    slopes, ratios = [], []
    for slot in clear.slots(12):
        px = np.arange(-1, 33)
        x = float(clear.stored.x0[slot]) + (px + 0.5) * 10
        y = float(clear.stored.y0[slot]) - (px + 0.5) * 10
        lon, lat = project(int(clear.stored.epsg[slot]), 4326, *np.meshgrid(x, y))
        truth, _ = derive(clear.planet.elevation_at(lon, lat)[None], ("elevation",), ("slope", "eastness"), 10.0)
        found = clear.stored.terrain_10m.values[slot]
        slopes.append(np.abs(found - truth).reshape(2, -1))
        vv, vh = (clear.truth(slot, 10, lambda a, b, p=pol: clear.planet.s1_gamma0_at(a, b, p)) for pol in ("VV", "VH"))
        ratio = clear.stored.ratio_10m.isel(time=0).values[slot, 0]
        ratios.append((10 * np.log10(ratio) - 10 * np.log10(vv / vh))[np.isfinite(ratio)])
    error = np.hstack(slopes)
    assert np.isfinite(error).mean() > 0.99, "chips' edges have neighbours; only the planet's own have none"
    assert np.nanmedian(error[0]) < 1.0
    assert np.nanmedian(error[1]) < 0.02
    assert len(np.concatenate(ratios)) > 8_000
    assert np.concatenate(ratios).mean() == pytest.approx(0.0, abs=0.05)


def _agrees_with_its_class(sky: list[Any]) -> Any:
    """Pixels of 10 m whose state is that of all their neighbours on every day: the classification has 20 m pixels, so
    at the edge of a cloud it can't be right for all four pixels it covers."""
    same = np.zeros(sky[0].shape, bool)
    inner = same[1:-1, 1:-1]  # a chip's outermost pixels have neighbours that are not at hand
    inner[...] = True
    rows, cols = inner.shape
    for state in sky:
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                inner &= state[dy : dy + rows, dx : dx + cols] == state[1:-1, 1:-1]
    return same


def test_clouds_are_left_out_and_counted(tmp_path: Path) -> None:
    """Cloudy planet: every valid pixel still is near the truth, and the counts are those of clear observations."""
    planet = PlanetSpec.tiny(cloud_share=0.4, haze=0.0, s2_noise=0.0, s2_dates=3)
    # The planet strews class 7 (unclassified) over ground and cloud alike.
    world = World(tmp_path, planet, "sensors.s2.scl_invalid=[0, 1, 3, 7, 8, 9, 10]")
    errors, counts, edges = [], [], []
    for slot in world.slots(25):
        stored = world.stored.s2_10m.sel(band_s2_10m="B04").isel(time=0).values[slot].astype(float)
        truth = world.truth(slot, 10, lambda lon, lat: world.planet.s2_reflectance_at(lon, lat, "B04"))
        valid = world.stored.s2_10m_valid.isel(time=0).values[slot]
        assert ((valid > 0) <= (stored > 0)).all()
        error = np.abs(stored * 0.0001 - 0.1 - truth)
        sky = [
            world.truth(slot, 10, lambda lon, lat, d=day: world.planet.cloud_state_at(lon, lat, d)) for day in range(3)
        ]
        clear_or_known = _agrees_with_its_class(sky)
        errors.append(error[(valid > 0) & clear_or_known])
        edges.append((valid > 0) & ~clear_or_known)
        counts.append(valid.ravel())
    error, count = np.concatenate(errors), np.concatenate(counts)
    assert (error <= 0.00016).mean() > 0.995  # the mean of two rounded numbers
    assert error.max() < 0.002  # where only the other zone's tile is clear, it is resampled
    assert len(error) > 20_000
    assert np.concatenate(edges).mean() < 0.35
    assert set(np.unique(count)) == {0, 1, 2, 3}
    ledger = read_table(world.run.store, f"{world.run.identity.prefix('publish')}/ledger.parquet").to_pylist()
    states = {row["state"] for row in ledger if row["level"] == "chip" and row["sensor"] == "s2"}
    assert "ok" in states
