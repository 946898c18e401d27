"""A month of Sentinel-2 to one median image, by three libraries: `python -m benchmarks.chips WHO FOLDER`.

One process does it once: read the items, read pixels, mask clouds by SCL, correct offsets, mosaic each day, take the
median, write Zarr. Prints wall and CPU seconds (imports excluded) and the process's memory as one JSON line, and leaves
the image as reflectance in FOLDER/WHO.npy. Legend: t scenes, d days, b bands, y rows, x columns.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

BANDS = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}
"""Band and asset key."""
MASKED = (0, 1, 3, 8, 9, 10)
"""Classes of SCL that do not count: the default of `scl_invalid`."""
EPSG = 32633
SPEC = f"""
name: bench
area: {{bbox: [12.005, 47.955, 12.095, 48.045]}}
time: {{start: 2023-06-01, end: 2023-07-01}}
grid: {{chip_px: 256, gsd_m: 10, block_chips: 4}}
sensors: {{s2: {{kind: s2-l2a, bands: [{", ".join(BANDS)}]}}}}
"""


class Clock:
    """Wall and CPU seconds of this process between two moments, and its peak memory by then."""

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.peak_mb = memory_mb("VmHWM")


def eo_batch(folder: Path, clock: Clock) -> Any:
    """The stages plan and chips, shard after shard in this process."""
    from eo_batch.entry.door import Door
    from eo_batch.entry.stages import prepare, shards_of
    from eo_batch.io.cube import CubeReader
    from eo_batch.stages import chips, plan  # noqa: F401  # imports are not what is measured

    run = open_bench(folder)
    clock.start()
    for stage in ("plan", "chips"):
        prepare(run, stage)
        for index in range(len(shards_of(run, stage))):
            Door(run, stage, "benchmark")(index)
    clock.stop()
    left, bottom, right, top = bounds()
    image = np.full((len(BANDS), (top - bottom) // 10, (right - left) // 10), np.nan, np.float32)
    reader = CubeReader(run.store, run.identity.prefix("chips"))
    for block in run.plan.blocks:
        cells = [planned.cell for planned in run.plan.cells if planned.cell in set(block.cells())]
        slots = [run.axes.first_slot(block) + block.place(cell) for cell in cells]
        for cell, pixels, valid in zip(cells, *reader.read("s2_10m", slots, 0), strict=True):
            row, col, px = (top - cell.bounds[3]) // 10, (cell.bounds[0] - left) // 10, run.spec.grid.chip_px
            image[:, row : row + px, col : col + px] = np.where(valid, pixels, np.nan)
    return image


def shard_memory(folder: Path) -> dict[str, float]:
    """Memory of a worker that makes the largest shard once more and nothing else, against the plan's projection, MB."""
    from eo_batch.core.layout import receipt_key
    from eo_batch.entry.door import Door
    from eo_batch.stages import chips  # noqa: F401

    run = open_bench(folder)
    shard = max(run.plan.shards, key=lambda shard: shard.memory_bytes)
    run.store.delete(receipt_key(run.identity.prefix("chips"), shard.key))
    assert run.axes.blocks  # loaded before it counts
    base_mb = memory_mb("VmRSS")
    Door(run, "chips", "benchmark")(shard.index)
    return {"base_mb": base_mb, "projected_mb": shard.memory_bytes / 1e6, "peak_mb": memory_mb("VmHWM")}


def stackstac(folder: Path, clock: Clock) -> Any:
    """stackstac: one array of all scenes, float64 as it makes it."""
    import stackstac as library

    items = json.loads((folder / "items.json").read_text())["features"]
    clock.start()
    stack = library.stack(
        items, [*BANDS.values(), "scl"], epsg=EPSG, bounds=bounds(), resolution=10, rescale=False, fill_value=np.nan
    )
    stack = stack.rename(time="scene").assign_coords(scene=range(len(items)))
    order = {item["id"]: item for item in items}
    image = _median(stack.sel(band=list(BANDS.values())), stack.sel(band="scl"), [order[i] for i in stack.id.values])
    _write(image, folder)
    clock.stop()
    return image


def odc_stac(folder: Path, clock: Clock) -> Any:
    """odc-stac: scenes one by one (`groupby="id"`), since offsets differ between the tiles of one day."""
    import odc.stac as library
    import pystac
    from odc.geo.geobox import GeoBox

    items = json.loads((folder / "items.json").read_text())["features"]
    items.sort(key=lambda item: (item["properties"]["datetime"], item["id"]))
    clock.start()
    grid = GeoBox.from_bbox(bounds(), f"EPSG:{EPSG}", resolution=10)
    parsed = [pystac.Item.from_dict(item) for item in items]
    data = library.load(parsed, [*BANDS.values(), "scl"], geobox=grid, groupby="id", chunks={"x": 1024, "y": 1024})
    stack = data[list(BANDS.values())].to_array("band").transpose("time", "band", "y", "x")
    stack = stack.where(stack > 0).rename(time="scene").assign_coords(scene=range(len(items)))
    image = _median(stack, data.scl.rename(time="scene").assign_coords(scene=range(len(items))), items)
    _write(image, folder)
    clock.stop()
    return image


def _median(stack_tbyx: Any, scl_tyx: Any, items: list[dict[str, Any]]) -> Any:
    """What a user of xarray writes: mask, correct, first scene of a day, median of days."""
    import xarray as xr

    offsets = []
    for item in items:
        before = item["properties"]["s2:processing_baseline"] < "04.00"
        offsets.append(0.0 if before or item["properties"]["earthsearch:boa_offset_applied"] else -1000.0)
    clear = stack_tbyx.where(~scl_tyx.isin(MASKED) & scl_tyx.notnull())
    reflectance = (clear + xr.DataArray(np.array(offsets, np.float32), dims="scene")) / 10_000
    days = [item["properties"]["datetime"][:10] for item in items]
    mosaics = []
    for day in sorted(set(days)):
        of_day = [t for t, other in enumerate(days) if other == day]
        mosaic = reflectance[of_day[0]]
        for t in of_day[1:]:
            mosaic = mosaic.fillna(reflectance[t])
        mosaics.append(mosaic)
    stack_d = xr.concat(mosaics, "day", coords="minimal", compat="override").chunk(day=-1)
    return stack_d.median("day", skipna=True).astype("float32").compute().values


def _write(image_byx: Any, folder: Path) -> None:
    import zarr

    array = zarr.create_array(folder / "image.zarr", shape=image_byx.shape, chunks=(4, 256, 256), dtype="f4")
    array[...] = image_byx


def bounds() -> tuple[int, int, int, int]:
    """Left, bottom, right, top of all chips, metres."""
    from eo_batch.core.grid import cells_of_area
    from eo_batch.core.specfile import parse_spec

    spec = parse_spec(SPEC)
    boxes = np.array([p.cell.bounds for p in cells_of_area(spec.area.polygon(), spec.grid.chip_m)])
    left, bottom, right, top = (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))
    return int(left), int(bottom), int(right), int(top)


def open_bench(folder: Path) -> Any:
    """The benchmark's run."""
    from eo_batch.core.specfile import parse_spec
    from eo_batch.entry.run import Run
    from eo_batch.io.store import parse_store
    from eo_batch.settings import Settings

    spec = parse_spec(SPEC, [f"catalog={folder / 'items.json'}"])
    return Run(spec, parse_store(str(folder / "runs")), Settings())


def memory_mb(field: str) -> float:
    """Resident memory of this process: VmRSS now, VmHWM at its peak. NaN where the system does not tell (not Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field)), float("nan"))


def main() -> None:
    who, folder, clock = sys.argv[1], Path(sys.argv[2]), Clock()
    if who == "shard_memory":
        print(json.dumps(shard_memory(folder)))
        return
    image = {"eo_batch": eo_batch, "stackstac": stackstac, "odc_stac": odc_stac}[who](folder, clock)
    np.save(folder / f"{who}.npy", image)
    print(json.dumps({"wall_s": clock.wall_s, "cpu_s": clock.cpu_s, "peak_mb": clock.peak_mb}))


if __name__ == "__main__":
    main()
