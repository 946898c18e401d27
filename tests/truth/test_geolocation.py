"""Chips of simulated planets against their analytic truth, at places all over the globe: where each pixel lies, and
what it holds.

Files whose grids nest with the chips' are copied; those of the neighbouring zone, and those in degrees, are warped. All
are compared with the truth at the centres of the chips' own pixels. Legend: c chips, y rows (downwards), x columns.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, maximum_filter, minimum_filter

from eo_batch.core import layout
from eo_batch.core.grid import parse_chip_id
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.core.utm import WGS84, project
from eo_batch.entry.drive import drive
from eo_batch.entry.run import Run
from eo_batch.io.cogs import cog_bytes
from eo_batch.io.store import parse_store
from eo_batch.pixels.planet import Ground, Planet
from eo_batch.pixels.planet_render import S1_NODATA
from eo_batch.pixels.planet_sky import S1_BORDER_M
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate
from tests.truth.test_planet import Quiet

Floats = NDArray[np.float64]
Json = dict[str, Any]
Shift = tuple[float, float]
"""(down, right), pixels."""

NESTED_PX, WARPED_PX = 0.05, 0.25
"""What a chip may be off by, pixels."""
SHAM: Shift = (0.18, -0.24)
"""0.3 pixel: a shift that must be found."""
LOOKS = 100.0
"""Speckle has a standard deviation of a tenth."""

SPEC = """
name: geolocation
time: {start: 2023-06-01, end: 2023-07-01, step: all}
grid: {chip_px: 64, gsd_m: 10, block_chips: 2}
"""


@dataclass(frozen=True)
class Place:
    """Where a planet lies."""

    lon: float
    lat: float
    zones: tuple[int, ...]
    """EPSG codes of the UTM zones in which it has chips."""


PLACES = {
    "middle of a zone": Place(9.0, 48.0, (32632,)),
    "zone edge": Place(12.0, 46.0, (32632, 32633)),
    "zone edge, far north": Place(24.0, 78.0, (32634, 32635)),
    "zone edge, south": Place(-66.0, -54.0, (32719, 32720)),
    "antimeridian": Place(180.0, 66.0, (32601, 32660)),
}


@dataclass(frozen=True, eq=False)
class Lattice:
    """The pixels of all chips of one zone at one pixel size."""

    epsg: int
    left_c: Floats
    top_c: Floats
    pixel_m: float
    px: int
    planet: Planet
    _grounds: dict[Shift, Ground] = field(default_factory=dict)

    def lonlat(self, shift: Shift = (0.0, 0.0)) -> tuple[Floats, Floats]:
        """Longitude and latitude of points that lie (down, right) pixels of the pixels' centres, (c, y, x) each."""
        at = np.arange(self.px) + 0.5
        y_cy = self.top_c[:, None] - (at + shift[0]) * self.pixel_m
        x_cx = self.left_c[:, None] + (at + shift[1]) * self.pixel_m
        y_cyx, x_cyx = np.broadcast_arrays(y_cy[:, :, None], x_cx[:, None, :])
        return project(self.epsg, WGS84, x_cyx, y_cyx)

    def ground(self, shift: Shift = (0.0, 0.0)) -> Ground:
        """The truth there."""
        if shift not in self._grounds:
            self._grounds[shift] = self.planet.ground_at(*self.lonlat(shift))
        return self._grounds[shift]


Truth = Callable[[Lattice, Shift], Any]
"""What should be at a lattice's pixels, (c, y, x), if these lie so far off."""


def reflectance(band: str) -> Truth:
    return lambda lattice, shift: lattice.planet.s2_reflectance(lattice.ground(shift), band)


def log_backscatter(lattice: Lattice, shift: Shift) -> Any:
    return np.log(lattice.planet.s1_gamma0(lattice.ground(shift), "VV"))


def elevation(lattice: Lattice, shift: Shift) -> Any:
    return lattice.planet.elevation_at(*lattice.lonlat(shift))


class World:
    """A planet without noise but for a little speckle, and what is made of it."""

    def __init__(self, folder: Path, place: Place) -> None:
        spec = PlanetSpec.tiny(
            centre_lon=place.lon, centre_lat=place.lat, height_km=2.4, tile_km=3.2, overlap_km=1.4, grain_m=160.0,
            cloud_share=0.0, haze=0.0, s2_noise=0.0, s1_looks=LOOKS, s1_contrast=0.8, s2_dates=1, s1_dates=1,
            s2_bands=("B08", "B11"),
            collections=("sentinel-2-l2a", "sentinel-1-rtc", "dem", "landcover"),
        )  # fmt: skip
        self.planet, self.zones, self.folder = Planet(spec), place.zones, folder / "planet"
        catalog = simulate(spec, parse_store(str(self.folder)))
        self.items: list[Json] = json.loads((self.folder / "items.json").read_text())["features"]
        sensors: Json = {
            "s2": {"kind": "s2-l2a", "bands": ["B08", "B11"]},
            "s1": {"kind": "s1", "orbit": "ascending", "bands": ["VV"]},
            "dem": {"kind": "dem", "collections": ["dem"]},
            "labels": {"kind": "classes", "collections": ["landcover"], "assets": {"class": "map"}},
        }
        sensors["s1_moved"] = sensors["s1"] | {"catalog": self._moved()}
        for zone in self.zones:  # as if only this zone's files had been published
            own = self.listed(f"of-{zone}.json", [item for item in self.items if epsg_of(item) == zone])
            sensors |= {f"{name}_{zone}": sensors[name] | {"catalog": own} for name in ("s2", "s1")}
        words = [f"catalog={catalog}", f"area.bbox={list(spec.area_bbox)}", f"sensors={json.dumps(sensors)}"]
        self.run = Run(parse_spec(SPEC, words), parse_store(str(folder / "runs")), Settings())
        drive(self.run, LocalRunner(0), Quiet(), until="chips")
        zarr = self.run.store.zarr(layout.cube(self.run.identity.prefix("chips")), read_only=True)
        cube = xr.open_zarr(zarr, mask_and_scale=False).load().squeeze("time")
        asked = {chip for receipt in self.run.receipts("chips").values() for chip in receipt.chips}
        self.cube = cube.sel(chip=cube.chip_id.isin(list(asked)))
        self.lattices = {
            (zone, pixel_m): self._lattice(zone, pixel_m) for zone in self.zones for pixel_m in (10.0, 20.0)
        }

    def listed(self, name: str, items: list[Json]) -> str:
        """A catalogue of some of the planet's items."""
        path = self.folder / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return str(path)

    def _moved(self) -> str:
        """A catalogue of the first zone's Sentinel-1 frames in files that lie 0.3 pixel too far in the east."""
        moved = []
        for item in deepcopy(self.of("sentinel-1-rtc", self.zones[0])):
            asset = item["assets"]["vv"]
            power, (a, b, c, d, e, f) = self.file(asset)
            asset |= {"href": f"{item['id']}.tif", "proj:transform": [a, b, c + 3.0, d, e, f]}
            data = cog_bytes(power, epsg=self.zones[0], transform=(a, b, c + 3.0, d, e, f), nodata=S1_NODATA)
            (self.folder / asset["href"]).write_bytes(data)
            moved.append(item)
        return self.listed("moved.json", moved)

    def of(self, collection: str, zone: int) -> list[Json]:
        """The items of a collection in one zone."""
        return [item for item in self.items if item["collection"] == collection and epsg_of(item) == zone]

    def file(self, asset: Json) -> tuple[Any, tuple[float, ...]]:
        """Pixels and transform of a file."""
        with rasterio.open(self.folder / asset["href"]) as source:
            return source.read(1), tuple(source.transform)[:6]

    def within_files(self, collection: str, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Which places lie in files in degrees whose next pixels on all sides are there, be it in another file."""
        items = self.of(collection, WGS84)
        (asset,) = items[0]["assets"].values()
        size = asset["proj:transform"][0]

        def held(east: float, north: float) -> NDArray[np.bool_]:
            inside = np.zeros(lon.shape, bool)
            for item in items:
                (asset,) = item["assets"].values()
                (_, _, left, _, _, top), (rows, cols) = asset["proj:transform"], asset["proj:shape"]
                col, row = ((lon + east - left + 180) % 360 - 180) / size, (top - lat - north) / size
                inside |= (col > 0) & (col < cols) & (row > 0) & (row < rows)
            return inside

        return np.logical_and.reduce([held(i * size, j * size) for i in (-1, 1) for j in (-1, 1)])

    def _lattice(self, zone: int, pixel_m: float) -> Lattice:
        own = self.cube.sel(chip=self.cube.epsg == zone)
        return Lattice(zone, own.x0.values * 1.0, own.y0.values * 1.0, pixel_m, round(640 / pixel_m), self.planet)

    def stored(self, array: str, band: str, zone: int) -> Floats:
        """Physical values of one zone's chips, (c, y, x); NaN where nothing is valid."""
        own = self.cube.sel(chip=self.cube.epsg == zone)
        found, valid = own[array].sel({f"band_{array}": band}), own[f"{array}_valid"].values > 0
        values = found.values.astype(float) * found.attrs.get("scale_factor", 1.0) + found.attrs.get("add_offset", 0.0)
        return np.where(valid, values, np.nan)

    def log_power(self, array: str, zone: int) -> Floats:
        """Logarithm of one zone's backscatter, without the swath's noisy edge, which is not always left out whole."""
        inside = self.planet.s1_depth_at(*self.lattices[zone, 10.0].lonlat(), 0) > S1_BORDER_M + 20
        found: Floats = np.log(np.where(inside, self.stored(array, "VV", zone), np.nan))
        return found

    def measured(self) -> Iterator[tuple[str, int, int, Lattice, Floats, Truth]]:
        """(array, zone of its files, zone of its chips, their lattice, what is stored, what should be)."""
        for files in self.zones:
            for zone in self.zones:
                fine, coarse = self.lattices[zone, 10.0], self.lattices[zone, 20.0]
                for name, band, lattice in ((f"s2_{files}_10m", "B08", fine), (f"s2_{files}_20m", "B11", coarse)):
                    yield name, files, zone, lattice, self.stored(name, band, zone), reflectance(band)
                name = f"s1_{files}_10m"
                yield name, files, zone, fine, self.log_power(name, zone), log_backscatter


def epsg_of(item: Json) -> int:
    properties = item["properties"]
    return int(properties.get("proj:epsg") or properties["proj:code"].removeprefix("EPSG:"))


def of_one_class(lattice: Lattice, shift: Shift = (0.0, 0.0)) -> NDArray[np.bool_]:
    """Pixels whose neighbours are of their own class: at the edges of classes the truth jumps."""
    code = lattice.ground(shift).code
    same: NDArray[np.bool_] = maximum_filter(code, (1, 3, 3)) == minimum_filter(code, (1, 3, 3))
    same[:, [0, -1]] = same[:, :, [0, -1]] = False
    return same


def displacements(
    lattice: Lattice, stored_cyx: Floats, truth: Truth, sham: Shift = (0.0, 0.0), *, together: bool = False
) -> Floats:
    """How far away from each chip's pixels lies what they hold, (down, right) in pixels, shape (c, 2).

    Least squares of stored = truth + down * d(truth)/dy + right * d(truth)/dx + gain * truth + offset, over pixels of
    one class; chips with few such pixels are left out. `together` takes all chips as one.
    sham: the truth is taken from so far off.
    """
    down, right = sham
    middle = truth(lattice, sham)
    along_y = truth(lattice, (down + 0.5, right)) - truth(lattice, (down - 0.5, right))
    along_x = truth(lattice, (down, right + 0.5)) - truth(lattice, (down, right - 0.5))
    use = of_one_class(lattice, sham) & np.isfinite(stored_cyx)
    terms = np.stack([along_y, along_x, middle, np.ones_like(middle)], -1).astype(float)
    rest = stored_cyx - middle
    groups = [use] if together else [use & (np.arange(len(use)) == c)[:, None, None] for c in range(len(use))]
    found = [np.linalg.lstsq(terms[group], rest[group])[0][:2] for group in groups if group.sum() >= lattice.px**2 / 2]
    return np.array(found).reshape(-1, 2)


def length(shift: Any) -> Any:
    return np.linalg.norm(shift, axis=-1)


@pytest.fixture(scope="module", params=PLACES, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("geolocation"), PLACES[request.param])


def test_chips_of_every_zone_are_made_of_files_of_every_zone(world: World) -> None:
    """Of which files, is told by receipts; whether these were copied or warped, by the next test."""
    zone_of = {item["id"]: epsg_of(item) for item in world.items}
    made: Counter[tuple[str, int]] = Counter()
    read: dict[tuple[str, int], set[int]] = defaultdict(set)
    for key, receipt in world.run.receipts("chips").items():
        for chip, state in receipt.chips.items():
            own = key.split("/")[0], parse_chip_id(chip).epsg
            made[own] += state == "ok"
            read[own] |= {zone_of[source.scene] for source in receipt.sources if source.state == "ok"}
    all_zones = set(world.zones)
    wanted = {"dem": {WGS84}, "labels": {WGS84}, "s1": all_zones, "s2": all_zones, "s1_moved": {world.zones[0]}}
    wanted |= {f"{name}_{zone}": {zone} for name in ("s1", "s2") for zone in world.zones}
    assert read == {(sensor, zone): files for sensor, files in wanted.items() for zone in world.zones}
    assert min(made.values()) >= 14


def test_nested_files_are_copied_and_others_warped(world: World) -> None:
    """Speckle tells: hardly a number occurs twice, and none outlives interpolation."""
    for files in world.zones:
        (item,) = world.of("sentinel-1-rtc", files)
        power, (size, _, left, _, _, top) = world.file(item["assets"]["vv"])
        for zone in world.zones:
            stored, lattice = world.stored(f"s1_{files}_10m", "VV", zone), world.lattices[zone, 10.0]
            valid = np.isfinite(stored)
            assert valid.sum() > 10_000
            if zone != files:
                assert np.isin(stored[valid], power).mean() < 0.01
                continue
            at = np.arange(lattice.px)
            row_cy = np.rint((top - lattice.top_c) / size).astype(int)[:, None] + at
            col_cx = np.rint((lattice.left_c - left) / size).astype(int)[:, None] + at
            rows, cols = np.broadcast_arrays(row_cy[:, :, None], col_cx[:, None, :])
            np.testing.assert_array_equal(stored[valid], power[rows[valid], cols[valid]])


def test_reflectance_is_exact_where_files_are_copied(world: World) -> None:
    """Every pixel is the truth at its centre, rounded to digital numbers; where files are warped, few are."""
    for name, files, zone, lattice, stored, truth in world.measured():
        if not name.startswith("s2"):
            continue
        valid = np.isfinite(stored)
        assert valid.sum() > 2500
        found = np.rint((stored[valid] + 0.1) * 10_000)
        wanted = np.rint(truth(lattice, (0.0, 0.0))[valid] * np.float32(10_000)) + 1000
        if zone == files:
            np.testing.assert_array_equal(found, wanted)
        else:
            assert (found == wanted).mean() < 0.5


def test_chips_are_where_they_should_be(world: World) -> None:
    """Each chip by itself, copied or warped, keeps its bar; and 0.3 pixel would be seen in each."""
    for name, files, zone, lattice, stored, truth in world.measured():
        off = displacements(lattice, stored, truth)
        assert len(off) >= 10, name
        assert length(off).max() < (NESTED_PX if files == zone else WARPED_PX), name
        # Of all chips together, speckle and classes' edges average out.
        assert length(displacements(lattice, stored, truth, together=True)) < 0.01, name
        seen = displacements(lattice, stored, truth, SHAM)
        assert length(seen).min() > WARPED_PX, name
        assert length(seen + SHAM).max() < 0.1, name


def test_files_in_a_wrong_place_are_found(world: World) -> None:
    """0.3 pixel in the files' own georeference, through a whole run."""
    zone = world.zones[0]
    lattice = world.lattices[zone, 10.0]
    off = displacements(lattice, world.log_power("s1_moved_10m", zone), log_backscatter)
    assert length(off).min() > NESTED_PX
    np.testing.assert_allclose(off, np.broadcast_to([0.0, -0.3], off.shape), atol=0.07)


def test_elevation_is_where_it_should_be(world: World) -> None:
    """From degrees; the terrain of one chip hardly curves, so that only all of them together tell a place."""
    for zone in world.zones:
        lattice, stored = world.lattices[zone, 10.0], world.stored("dem_10m", "elevation", zone)
        assert length(displacements(lattice, stored, elevation, together=True)) < WARPED_PX
        seen = displacements(lattice, stored, elevation, SHAM, together=True)
        assert length(seen + SHAM) < 0.05
        error = np.abs(stored - elevation(lattice, (0.0, 0.0)))
        inner = world.within_files("dem", *lattice.lonlat())
        assert inner.mean() > 0.8
        assert error[inner].max() < 0.1, "across the seams between files as well"


def class_displacement(lattice: Lattice, stored_cyx: Floats, sham: Shift = (0.0, 0.0)) -> Floats:
    """How far away from the pixels lie the classes that they hold, (down, right) in pixels.

    The share of pixels of another class than the truth's grows evenly with the distance, so that those at a pixel's
    distance on either side, m before and n behind, tell it: (m - n) / (m + n).
    """

    def wrong(down: float, right: float) -> int:
        code = lattice.planet.class_at(*lattice.lonlat((sham[0] + down, sham[1] + right)))
        return int((code != stored_cyx)[np.isfinite(stored_cyx)].sum())

    sides = [(wrong(-1.0, 0.0), wrong(1.0, 0.0)), (wrong(0.0, -1.0), wrong(0.0, 1.0))]
    return np.array([(before - behind) / (before + behind) for before, behind in sides])


def test_labels_are_where_they_should_be(world: World) -> None:
    for zone in world.zones:
        lattice, stored = world.lattices[zone, 10.0], world.stored("labels_10m", "class", zone)
        assert length(class_displacement(lattice, stored)) < 0.1 < WARPED_PX
        seen = class_displacement(lattice, stored, SHAM)
        assert length(seen) > 0.2
        assert length(seen + SHAM) < 0.1


def test_a_zones_own_files_come_first(world: World) -> None:
    """With all files at hand, the neighbouring zone's fill what the chips' own zone does not reach."""
    for zone in world.zones:
        for array, band in (("s2{}_10m", "B08"), ("s2{}_20m", "B11"), ("s1{}_10m", "VV")):
            wanted = world.stored(array.format(f"_{zone}"), band, zone)
            for other in world.zones:
                wanted = np.where(np.isnan(wanted), world.stored(array.format(f"_{other}"), band, zone), wanted)
            np.testing.assert_array_equal(world.stored(array.format(""), band, zone), wanted)


def looked_up(lattice: Lattice, stored_cyx: Floats, other: Lattice, shift: Shift) -> Floats:
    """One zone's chips at the pixels of another's, or so far off, interpolated; NaN where there are none."""
    left, top = lattice.left_c.min(), lattice.top_c.max()
    row_c, col_c = ((d / lattice.pixel_m).astype(int) for d in (top - lattice.top_c, lattice.left_c - left))
    mosaic = np.full((row_c.max() + lattice.px, col_c.max() + lattice.px), np.nan)
    for row, col, chip in zip(row_c, col_c, stored_cyx, strict=True):
        mosaic[row : row + lattice.px, col : col + lattice.px] = chip
    x, y = project(WGS84, lattice.epsg, *other.lonlat(shift))
    at = [(top - y) / lattice.pixel_m - 0.5, (x - left) / lattice.pixel_m - 0.5]
    found: Floats = map_coordinates(mosaic, at, order=1, cval=np.nan)
    return found


@pytest.mark.parametrize("world", [name for name in PLACES if len(PLACES[name].zones) == 2], indirect=True)
def test_adjoining_chips_of_both_zones_agree(world: World) -> None:
    """Each from its own zone's files, on the ground that they share."""
    first, second = world.zones
    here, there = world.lattices[second, 10.0], world.lattices[first, 10.0]
    # What one chip has of speckle, and the other after it was interpolated: on average 4/9 of its variance is left.
    speckle = np.sqrt((1 + 4 / 9) / LOOKS)
    for name, band, limit in (("s2", "B08", 0.1 * PlanetSpec().s2_noise), ("s1", "VV", 1.05 * speckle)):
        mine, theirs = (world.stored(f"{name}_{zone}_10m", band, zone) for zone in (second, first))
        apart = []
        for shift in ((0.0, 0.0), SHAM):
            ratio = np.log(looked_up(there, theirs, here, shift) / mine)
            ratio = ratio[of_one_class(here) & np.isfinite(ratio)]
            assert len(ratio) > 5000
            apart.append(np.sqrt((ratio**2).mean()))
        assert apart[0] < limit < apart[1]
