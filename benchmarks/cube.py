"""`python -m benchmarks.cube`: a month of Sentinel-2 from an object store to a median cube in it, by three libraries.

The same job for each, in a process of its own, in turn: 4 bands of 2 overlapping tiles on 3 dates (`scenes.py`) from a
SeaweedFS server of this machine, clouds masked by the scene classification, median, 4096 x 4096 pixels of 10 m in chips
of 256 pixels, written as Zarr to the same server. Of each peer the best of its settings counts. `floor` fetches and
decodes each source tile that is needed once with our reader, and does nothing else; `async-geotiff` does so with its
own. CPU seconds are those of the process and its children, without imports and without the server. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import scenes

SIDE_PX = 4096
LEFT, TOP = 532480, 5406720
"""Corner of the cube: one of the grid of blocks."""
BOUNDS = (LEFT, TOP - SIDE_PX * 10, LEFT + SIDE_PX * 10, TOP)
CHIP_PX = 256
MASKED = (0, 1, 3, 8, 9, 10)
"""Classes of SCL that do not count: the default of `scl_invalid`."""
SETTINGS: dict[str, tuple[dict[str, int], ...]] = {
    "eo-batch": ({},),
    "odc-stac": (
        {"chunk": 1024, "threads": 2},
        {"chunk": 2048, "threads": 2},
        {"chunk": 2048, "threads": 4},
    ),
    "stackstac": (
        {"chunk": 1024, "threads": 2},
        {"chunk": 2048, "threads": 2},
        {"chunk": 2048, "threads": 4},
    ),
    "floor": ({},),
    "async-geotiff": ({},),
}
"""What is measured, each with its settings. 1024 is the files' tile and stackstac's default."""
Figures = dict[str, float]


class Clock:
    """What a process and its children spend between two moments."""

    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.perf_counter(), _cpu_s()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self._wall, _cpu_s() - self._cpu


def _cpu_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def peak_gb() -> float:
    """Peak of this process: what rusage tells begins with what the parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))


def eo_batch(items: list[dict[str, Any]], source: str, target: str, clock: Clock) -> None:
    """The stages plan and chips, on the runner that `eo-batch run` takes."""
    make_chips(_spec(f"{source}/items.json"), target, clock)


def make_chips(spec: Any, target: str, clock: Clock) -> None:
    """Make a spec's chips in this process."""
    import pandas  # noqa: F401  # pyarrow does when it is first used; imports are not what is measured

    from eo_batch.entry.drive import StageState, drive
    from eo_batch.entry.run import Run
    from eo_batch.io.store import parse_store
    from eo_batch.runners.base import Event
    from eo_batch.runners.local import LocalRunner
    from eo_batch.settings import Settings
    from eo_batch.stages import chips, plan  # noqa: F401

    class Quiet:
        def begin(self, state: StageState) -> None: ...
        def event(self, state: StageState, event: Event) -> None:
            assert event.kind == "done", event.message

        def end(self, state: StageState) -> None: ...

    with clock:
        drive(Run(spec, parse_store(target), Settings.from_env()), LocalRunner(0), Quiet(), "chips")


def _spec(catalog: str) -> Any:
    return spec_of(catalog, {"s2": {"kind": "s2-l2a", "bands": list(scenes.BANDS)}})


def spec_of(catalog: str, sensors: dict[str, Any]) -> Any:
    """A run over the cube's block."""
    from eo_batch.core.specfile import parse_spec
    from eo_batch.core.utm import project

    # A little smaller than the cube, so that its chips are exactly those that the area touches.
    left, bottom, right, top = BOUNDS
    along = np.linspace(0.0, 1.0, 9)[:-1]
    x = np.concatenate([left + 100 + along * (right - left - 200), np.full(8, right - 100.0)])
    x = np.concatenate([x, left + right - x])
    y = np.concatenate([np.full(8, bottom + 100.0), bottom + 100 + along * (top - bottom - 200)])
    y = np.concatenate([y, bottom + top - y])
    lon, lat = project(scenes.EPSG, 4326, x, y)
    ring = [[float(a), float(b)] for a, b in zip([*lon, lon[0]], [*lat, lat[0]], strict=True)]
    return parse_spec(
        json.dumps(
            {
                "name": "bench",
                "catalog": catalog,
                "area": {"geojson": {"type": "Polygon", "coordinates": [ring]}},
                "time": {"start": "2023-06-01", "end": "2023-07-01"},
                "grid": {"chip_px": CHIP_PX, "gsd_m": 10, "block_chips": SIDE_PX // CHIP_PX},
                "sensors": sensors,
            }
        )
    )


def odc_stac(items: list[dict[str, Any]], source: str, target: str, clock: Clock, chunk: int, threads: int) -> None:
    """odc-stac: the tiles of a day joined as it loads them."""
    import dask
    import odc.stac
    import pystac
    from odc.geo.geobox import GeoBox

    odc.stac.configure_rio(cloud_defaults=True, **gdal_options())
    with clock, dask.config.set(scheduler="threads", num_workers=threads):
        data = odc.stac.load(
            [pystac.Item.from_dict(item) for item in items],
            [*scenes.BANDS.values(), "scl"],
            geobox=GeoBox.from_bbox(BOUNDS, f"EPSG:{scenes.EPSG}", resolution=10),
            groupby="solar_day",
            chunks={"x": chunk, "y": chunk},
        )
        stack = data[list(scenes.BANDS.values())].to_array("band").transpose("band", "time", "y", "x")
        _finish(stack, data.scl, target)


def stackstac(items: list[dict[str, Any]], source: str, target: str, clock: Clock, chunk: int, threads: int) -> None:
    """stackstac: every scene a layer. Where tiles overlap, ground counts twice, which leaves its median as it is."""
    import dask
    import pandas as pd
    import stackstac as library
    from stackstac.rio_env import LayeredEnv
    from stackstac.rio_reader import DEFAULT_GDAL_ENV

    # It passes an option that pandas 3 no longer has, and that only chose how fast dates are read.
    to_datetime = pd.to_datetime
    pd.to_datetime = lambda *args, infer_datetime_format=True, **kw: to_datetime(*args, **kw)
    env = DEFAULT_GDAL_ENV.updated(always=gdal_options())
    assert isinstance(env, LayeredEnv)
    with clock, dask.config.set(scheduler="threads", num_workers=threads):
        data = library.stack(
            items,
            [*scenes.BANDS.values(), "scl"],
            epsg=scenes.EPSG,
            bounds=BOUNDS,
            resolution=10,
            dtype=np.dtype("uint16"),
            fill_value=np.uint16(0),
            rescale=False,
            chunksize=chunk,
            gdal_env=env,
            xy_coords=False,
        )
        stack = data.sel(band=list(scenes.BANDS.values())).transpose("band", "time", "y", "x")
        _finish(stack, data.sel(band="scl"), target)


def gdal_options() -> dict[str, str]:
    """How GDAL reaches the server."""
    return {
        "AWS_S3_ENDPOINT": os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }


def _finish(stack_btyx: Any, scl_tyx: Any, target: str) -> None:
    """Mask, median over time in whole digital numbers, halves up, and Zarr in chips: as a user of xarray writes it."""
    import xarray as xr

    from eo_batch.io.store import parse_store

    clear = ~scl_tyx.isin(MASKED) & (stack_btyx > 0)
    stack = stack_btyx.where(clear).astype("float32").chunk(time=-1)
    image = np.floor(stack.median("time", skipna=True) + 0.5).fillna(0).astype("uint16")
    names = [name for name in image.coords if name not in ("band",)]
    image = image.drop_vars(names).chunk(band=-1)
    image.attrs.clear()  # stackstac's have no JSON
    encoding = {"s2": {"chunks": (len(scenes.BANDS), CHIP_PX, CHIP_PX)}}
    xr.Dataset({"s2": image.drop_vars("band")}).to_zarr(
        parse_store(target).zarr("cube.zarr"), encoding=encoding, zarr_format=3, consolidated=False
    )


def _asset(band: str, href: str) -> Any:
    """A file of which only the address is used."""
    from eo_batch.core.scenes import Asset

    return Asset(band, href, None, None, None, None, 1.0, 0.0, "", False)


def floor(items: list[dict[str, Any]], source: str, target: str, clock: Clock) -> None:
    """Each tile of each file that the cube needs, fetched and decoded once."""
    from eo_batch.io.rasters import AssetReader
    from eo_batch.settings import Settings

    async def read() -> None:
        reader = AssetReader(Settings.from_env())
        for item in items:
            await asyncio.gather(
                *(reader.read(_asset(key, asset["href"]), lambda _: BOUNDS, 0) for key, asset in item["assets"].items())
            )

    with clock:
        asyncio.run(read())


def async_geotiff(items: list[dict[str, Any]], source: str, target: str, clock: Clock) -> None:
    """As `floor`, with the decoders of async-geotiff: what reading cost before eo-batch had its own."""
    from async_geotiff import GeoTIFF, Window

    from eo_batch.io.assets import open_asset
    from eo_batch.io.windows import window_of
    from eo_batch.settings import Settings

    settings = Settings.from_env()

    async def one(href: str) -> None:
        client, key = open_asset(href, settings)
        tiff = await GeoTIFF.open(key, store=client)
        t = tiff.transform
        window = window_of((t.a, t.b, t.c, t.d, t.e, t.f), tiff.height, tiff.width, BOUNDS, 0)
        assert window is not None
        row, col, rows, cols = window
        await tiff.read(window=Window(col_off=col, row_off=row, width=cols, height=rows))

    async def read() -> None:
        for item in items:
            await asyncio.gather(*(one(asset["href"]) for asset in item["assets"].values()))

    with clock:
        asyncio.run(read())


def cube_of(who: str, source: str, target: str) -> Any:
    """What was made: digital numbers (b, y, x), 0 where there are none."""
    import zarr

    from eo_batch.io.store import parse_store

    if who == "eo-batch":
        return image_of(_spec(f"{source}/items.json"), target, "s2_10m")
    group = zarr.open_group(parse_store(target).zarr("cube.zarr", read_only=True), mode="r")
    return np.asarray(group["s2"][:])


def image_of(spec: Any, target: str, array: str) -> Any:
    """An array of the chips of a spec, put together to one image (b, y, x)."""
    from eo_batch.entry.run import Run
    from eo_batch.io.cube import CubeReader
    from eo_batch.io.store import parse_store
    from eo_batch.settings import Settings

    store = parse_store(target)
    run = Run(spec, store, Settings.from_env())
    reader = CubeReader(store, run.identity.prefix("chips"))
    image: Any = None
    for block in run.plan.blocks:
        first = run.axes.first_slot(block)
        for cell in block.cells():
            row, col = (TOP - round(cell.bounds[3])) // 10, (round(cell.bounds[0]) - LEFT) // 10
            pixels = reader.stored(array, [first + block.place(cell)], 0)[0]
            if image is None:
                image = np.zeros((len(pixels), SIDE_PX, SIDE_PX), pixels.dtype)
            image[:, row : row + CHIP_PX, col : col + CHIP_PX] = pixels
    return image


def once(who: str, setting: Mapping[str, int], source: str, target: str) -> None:
    """One run in this process; prints its figures."""
    from eo_batch.io.store import parse_store

    items = json.loads(parse_store(source).get("items.json"))["features"]
    jobs = {"eo-batch": eo_batch, "odc-stac": odc_stac, "stackstac": stackstac, "floor": floor}
    job = {**jobs, "async-geotiff": async_geotiff}[who]
    clock = Clock()
    job(items, source, target, clock, **setting)
    print(json.dumps({"wall_s": clock.wall_s, "cpu_s": clock.cpu_s, "peak_gb": peak_gb()}))


def measured(
    who: str, setting: Mapping[str, int], source: str, target: str, module: str = "benchmarks.cube"
) -> Figures:
    """One run in a process of its own."""
    argv = [sys.executable, "-W", "ignore", "-m", module, "--once", who, json.dumps(setting), source, target]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


@contextmanager
def server() -> Iterator[Any]:
    """An S3 server whose environment is this process's while it runs."""
    from tests.servers import seaweed
    from tests.servers.objects import ObjectServer
    from tests.servers.shared import Home

    folder = Path(tempfile.mkdtemp(prefix="eo-batch-bench-"))
    home = Home(folder, os.getpid())
    data = folder / "seaweed"
    data.mkdir()
    try:
        found = ObjectServer.of("s3", seaweed.start(home, data))
        os.environ |= {**found.env, "EO_BATCH_ASSETS_ANONYMOUS": "0"}
        yield found
    finally:
        home.stop()
        shutil.rmtree(folder, ignore_errors=True)


def asked(name: str, about: str | None, settings: Mapping[str, Sequence[dict[str, int]]]) -> argparse.Namespace:
    """What the command line asks for: the same words for all benchmarks of cubes."""
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=about)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each setting")
    parser.add_argument("--only", nargs="*", default=list(settings), choices=list(settings), help="who is measured")
    parser.add_argument("--once", nargs=4, metavar=("WHO", "SETTING", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    return parser.parse_args()


def rounds(
    name: str,
    given: argparse.Namespace,
    settings: Mapping[str, Sequence[dict[str, int]]],
    s3: Any,
    source: str,
    look: Callable[[str, str], None],
) -> dict[tuple[str, str], list[Figures]]:
    """Run each setting in turn, as often as asked; `look` sees who made what, before it is deleted."""
    rows: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(given.repeats):
        for who in given.only:
            for setting in settings[who]:
                target = s3.new_bucket()
                figures = measured(who, setting, source, target, f"benchmarks.{name}")
                rows.setdefault((who, json.dumps(setting)), []).append(figures)
                print(who, setting, {key: round(value, 2) for key, value in figures.items()}, file=sys.stderr)
                look(who, target)
                s3.empty(target)
    return rows


def main() -> None:
    given = asked("cube", __doc__, SETTINGS)
    if given.once:
        who, setting, source, target = given.once
        once(who, json.loads(setting), source, target)
        return
    from eo_batch.io.store import parse_store

    with server() as s3:
        source = s3.new_bucket()
        store = parse_store(source)
        store.put("items.json", scenes.catalog(scenes.write(store, source)))
        reference: Any = None

        def look(who: str, target: str) -> None:
            nonlocal reference
            if who not in ("floor", "async-geotiff"):
                cube = cube_of(who, source, target)
                reference = cube if reference is None else reference
                assert np.array_equal(cube, reference), f"{who} made another cube"

        rows = rounds("cube", given, SETTINGS, s3, source, look)
    print(json.dumps(compared(rows)))


def compared(rows: Mapping[tuple[str, str], list[Figures]]) -> dict[str, Any]:
    """Medians, and what the others need in times of ours; of each peer the setting that is best in each."""
    middle = {key: {name: median(row[name] for row in runs) for name in runs[0]} for key, runs in rows.items()}
    best = {
        who: {
            name: min(row[name] for (other, _), row in middle.items() if other == who)
            for name in ("wall_s", "cpu_s", "peak_gb")
        }
        for who in {who for who, _ in middle}
    }
    found: dict[str, Any] = {}
    for who, row in sorted(best.items()):
        print(f"{who:10} {row['wall_s']:7.2f} s wall {row['cpu_s']:7.2f} s CPU {row['peak_gb']:6.2f} GB")
    ours = best.get("eo-batch")
    for peer in ("odc-stac", "stackstac"):
        if ours and peer in best:
            name = peer.replace("-", "_")
            found[f"cpu_vs_{name}"] = round(best[peer]["cpu_s"] / ours["cpu_s"], 2)
            found[f"wall_vs_{name}"] = round(best[peer]["wall_s"] / ours["wall_s"], 2)
    if ours:
        for name, reader in (("cpu_over_floor", "floor"), ("cpu_over_async_geotiff", "async-geotiff")):
            if reader in best:
                found[name] = round(ours["cpu_s"] / best[reader]["cpu_s"], 2)
        found["peak_gb"] = round(ours["peak_gb"], 2)
    return found


if __name__ == "__main__":
    main()
