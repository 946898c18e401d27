"""Write the simulated planet to a store: a STAC catalogue with Cloud-Optimised GeoTIFFs.

Not a stage of a run: it makes what a run then searches and reads, in place of the real archives.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eo_batch.core.digest import canonical_json
from eo_batch.core.planet import COHERENCE_DAYS, LAND_CLASSES, S2_CONVENTIONS, PlanetSpec, S2Convention
from eo_batch.core.sensors import SCL_CLOUD
from eo_batch.io.cogs import Overview, cog_bytes
from eo_batch.io.static_catalog import item_key, write_catalog
from eo_batch.io.store import Store
from eo_batch.pixels import planet_grids, planet_stac
from eo_batch.pixels.planet import Planet
from eo_batch.pixels.planet_grids import RasterGrid, S1Frame, S2Tile
from eo_batch.pixels.planet_render import (
    S1_NODATA,
    S1Renderer,
    S2Image,
    S2Renderer,
    coherence_percent,
    s2_digital_numbers,
)

Json = dict[str, Any]
Progress = Callable[[int, int, str], None]

VERSION = 1
"""Raised whenever the same spec gives other bytes than before, so that old copies are written anew."""
MARKER = "planet.json"
"""Written last; holds the spec and version that the store was filled from."""

_LABEL_TILE_DEG = 3
"""Land cover is cut at multiples of three degrees, as ESA WorldCover is."""
_STRIP_ROWS = 1024
"""Rows computed at a time where a raster has no natural pieces: bounds memory."""


@dataclass(frozen=True)
class _Job:
    """Rasters that share what they are computed from."""

    label: str
    run: Callable[[], list[Json]]
    """Writes the rasters and returns their items."""


def simulate(spec: PlanetSpec, store: Store, on_progress: Progress | None = None, workers: int | None = None) -> str:
    """Write the planet's catalogue and rasters below `store`; returns the address of `items.json`.

    on_progress: called with (jobs done, jobs in all, what was done last).
    workers: threads; None means one for each core, at most eight.
    A store that this spec already filled is left alone; half-filled ones are written again, with the same
    bytes. Raises SpecError if the spec needs too many tiles, StoreError if the store refuses.
    """
    marker = canonical_json({"version": VERSION, "spec": spec.model_dump(mode="json")}).encode()
    if store.exists(MARKER) and store.get(MARKER) == marker:
        return store.href("items.json")
    planet = Planet(spec)
    jobs = list(_jobs(planet, store))
    items: list[Json] = []
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        waiting = {pool.submit(job.run): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                items.extend(future.result())
                if on_progress:
                    on_progress(done, len(jobs), waiting[future].label)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    collections = [planet_stac.collection(name) for name in sorted(set(spec.collections))]
    about = "A simulated planet whose truth is known at every point (eo-batch)."
    href = write_catalog(store, f"planet-{spec.seed}", about, collections, items)
    store.put(MARKER, marker)
    return href


def _jobs(planet: Planet, store: Store) -> Iterator[_Job]:
    spec = planet.spec
    if "sentinel-1-rtc" in spec.collections:
        for frame in planet_grids.s1_frames(spec):
            label = f"Sentinel-1 frame {frame.slice} in EPSG:{frame.grid.epsg}"
            yield _Job(label, partial(_write_s1, planet, store, frame))
    if "sentinel-2-l2a" in spec.collections:
        for tile in planet_grids.s2_tiles(spec):
            yield _Job(f"Sentinel-2 tile {tile.name}", partial(_write_s2, planet, store, tile))
    if "landcover" in spec.collections:
        if spec.labels_in_utm:
            grid = planet_grids.centre_grid(spec)
            tiles = [(f"U{grid.epsg % 100}", grid)]
        else:
            tiles = planet_grids.degree_tiles(spec, spec.label_arcsec, _LABEL_TILE_DEG)
        for name, grid in tiles:
            yield _Job(f"land cover {name}", partial(_write_landcover, planet, store, name, grid))
    if "dem" in spec.collections:
        for name, grid in planet_grids.degree_tiles(spec, spec.dem_arcsec):
            yield _Job(f"elevation {name}", partial(_write_dem, planet, store, name, grid))
    if "coherence" in spec.collections:
        for name, grid in planet_grids.degree_tiles(spec, spec.coherence_arcsec):
            yield _Job(f"coherence {name}", partial(_write_coherence, planet, store, name, grid))


def _write_s2(planet: Planet, store: Store, tile: S2Tile) -> list[Json]:
    renderer = S2Renderer(planet, tile.grid)
    items = []
    for day in range(planet.spec.s2_dates):
        image = renderer.image(day, planet.spec.s2_bands)
        if not image.scl_yx.any():
            continue  # the swath ends before the tile: such a scene is never delivered
        chosen = (tile.index + day) % len(S2_CONVENTIONS)
        twice = tile.index == 0 and day == 0
        items.append(_write_s2_item(planet, store, tile, day, image, S2_CONVENTIONS[chosen], int(twice)))
        if twice:
            # One sensing listed twice: the older processing stays in the catalogue.
            items.append(_write_s2_item(planet, store, tile, day, image, S2_CONVENTIONS[chosen + 1], 0))
    return items


def _write_s2_item(
    planet: Planet,
    store: Store,
    tile: S2Tile,
    day: int,
    image: S2Image,
    convention: S2Convention,
    sequence: int,
) -> Json:
    valid = image.scl_yx > 0
    cloud = np.isin(image.scl_yx, [code for code in SCL_CLOUD if code != 3])
    item = planet_stac.s2_item(
        planet, tile, day, convention, sequence,
        cloud_pct=100 * float(cloud.sum() / valid.sum()), nodata_pct=100 * float(1 - valid.mean()),
    )  # fmt: skip
    coarse = tile.grid.coarser(2)
    for name, reflectance in image.reflectance_yx.items():
        grid = tile.grid if reflectance.shape == tile.grid.shape else coarse
        numbers = s2_digital_numbers(reflectance, convention)
        _put(store, item_key(item, f"{name}.tif"), numbers, grid, 0)
    _put(store, item_key(item, "SCL.tif"), image.scl_yx, coarse, 0, "NEAREST")
    return item


def _write_s1(planet: Planet, store: Store, frame: S1Frame) -> list[Json]:
    renderer = S1Renderer(planet, frame.grid)
    items = []
    for day in range(planet.spec.s1_dates):
        if planet_stac.s1_footprint(planet, frame.grid, day).is_empty:
            continue
        item = planet_stac.s1_item(planet, frame, day)
        for pol, power in renderer.image(day).items():
            _put(store, item_key(item, f"{pol}.tif"), power, frame.grid, S1_NODATA)
        items.append(item)
    return items


def _write_landcover(planet: Planet, store: Store, name: str, grid: RasterGrid) -> list[Json]:
    item = planet_stac.landcover_item(planet, name, grid)
    codes = _in_strips(grid, lambda part: planet.class_at(*part.lonlat()))
    colours = {land.code: land.colour for land in LAND_CLASSES}
    _put(store, item_key(item, "Map.tif"), codes, grid, 0, "MODE", colours)
    return [item]


def _write_dem(planet: Planet, store: Store, name: str, grid: RasterGrid) -> list[Json]:
    item = planet_stac.dem_item(planet, name, grid)
    height = _in_strips(grid, lambda part: planet.elevation_at(*part.lonlat()))
    _put(store, item_key(item, "DEM.tif"), height, grid, None)
    return [item]


def _write_coherence(planet: Planet, store: Store, name: str, grid: RasterGrid) -> list[Json]:
    item = planet_stac.coherence_item(planet, name, grid)
    for days in COHERENCE_DAYS:
        percent = _in_strips(grid, partial(coherence_percent, planet, dt_days=days))
        _put(store, item_key(item, f"{planet_stac.coherence_key(days).upper()}.tif"), percent, grid, 0)
    return [item]


def _in_strips(grid: RasterGrid, compute: Callable[[RasterGrid], NDArray[Any]]) -> NDArray[Any]:
    starts = range(0, grid.height, _STRIP_ROWS)
    return np.concatenate([compute(grid.rows(s, min(s + _STRIP_ROWS, grid.height))) for s in starts])


def _put(
    store: Store,
    key: str,
    pixels_yx: NDArray[Any],
    grid: RasterGrid,
    nodata: float | None,
    overview: Overview = "AVERAGE",
    colours: dict[int, str] | None = None,
) -> None:
    data = cog_bytes(
        pixels_yx, epsg=grid.epsg, transform=grid.transform, nodata=nodata, overview=overview, colours=colours
    )
    store.put(key, data)
