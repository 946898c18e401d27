"""`python -m benchmarks [URL] [--repeats N]`: measure on this machine; prints a table and, last, one JSON line.

URL is a store whose throughput is measured; a temporary folder if left out. Each figure of chips is the median of N
runs, every one in a process of its own, the libraries in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from statistics import median
from typing import Any

LIBRARIES = {"eo_batch": "eo_batch", "stackstac": "stackstac", "odc_stac": "odc.stac"}
"""What is compared, and the module that it needs."""
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("url", nargs="?", help="store to measure; a temporary folder if left out")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    asked = parser.parse_args()
    figures: Figures = {"machine": _machine(), "load_before": os.getloadavg()[0], "repeats": asked.repeats}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["help"] = _help(asked.repeats)
        _planet(folder)
        figures["chips"] = _chips(folder, asked.repeats)
        figures["agreement"] = _agreement(folder)
        figures["shard_memory"] = _child("shard_memory", folder)
        figures["store"] = _store(asked.url or str(folder / "store"))
    figures["load_after"] = os.getloadavg()[0]
    _show(figures)
    print(json.dumps(figures))


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _help(repeats: int) -> Figures:
    """`eo-batch --help` in a fresh process."""
    argv = [sys.executable, "-c", "from eo_batch.cli import main; main()", "--help"]
    wall, cpu = [], []
    for _ in range(repeats + 1):  # the first one also fills the file cache and does not count
        before, began = _children_cpu_s(), time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - began)
        cpu.append(_children_cpu_s() - before)
    return {"wall_s": median(wall[1:]), "cpu_s": median(cpu[1:])}


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _planet(folder: Path) -> None:
    """The default planet's Sentinel-2, of which one UTM zone's tiles are listed for everybody."""
    argv = [sys.executable, "-c", "from eo_batch.cli import main; main()", "simulate", str(folder / "planet")]
    subprocess.run([*argv, "collections=[sentinel-2-l2a]"], check=True, stdout=subprocess.DEVNULL)
    listed = json.loads((folder / "planet" / "items.json").read_text())
    items = [item for item in listed["features"] if item["properties"]["mgrs:utm_zone"] == 33]
    for item in items:
        item["properties"].pop("proj:code", None)  # stackstac reads the older field only
        item["properties"]["proj:epsg"] = 32633
        for asset in item["assets"].values():
            asset["href"] = str(folder / "planet" / asset["href"])
    (folder / "items.json").write_text(json.dumps({**listed, "features": items}))


def _chips(folder: Path, repeats: int) -> Figures:
    runs: dict[str, list[Figures]] = {}
    found: Figures = {}
    for who, module in LIBRARIES.items():
        if importlib.util.find_spec(module.split(".")[0]) is None:
            found[who] = {"skipped": f"{module} is not installed"}
    for _ in range(repeats):
        for who in LIBRARIES.keys() - found.keys():
            rmtree(folder / "runs", ignore_errors=True) if who == "eo_batch" else None
            rmtree(folder / "image.zarr", ignore_errors=True)
            runs.setdefault(who, []).append(_child(who, folder))
    for who, rows in runs.items():
        found[who] = {key: median(row[key] for row in rows) for key in rows[0]}
        found[who]["cpu_s_all"] = [round(row["cpu_s"], 2) for row in rows]
        found[who]["wall_s_all"] = [round(row["wall_s"], 2) for row in rows]
    return {who: found[who] for who in LIBRARIES}


def _child(who: str, folder: Path) -> Figures:
    argv = [sys.executable, "-W", "ignore", "-m", "benchmarks.chips", who, str(folder)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    answer: Figures = json.loads(done.stdout.splitlines()[-1])
    return answer


def _agreement(folder: Path) -> Figures:
    """How far the other images are from eo-batch's: reflectance, and pixels that one has and the other has not."""
    import numpy as np

    ours = np.load(folder / "eo_batch.npy")
    found: Figures = {"pixels": int(np.isfinite(ours).sum())}
    bands, rows, cols = ours.shape
    px = 256  # chips outside the area are not made: nothing is expected there
    chips_made = np.isfinite(ours).reshape(bands, rows // px, px, cols // px, px).any((0, 2, 4))
    made = chips_made.repeat(px, 0).repeat(px, 1)
    for who in LIBRARIES:
        if who != "eo_batch" and (folder / f"{who}.npy").exists():
            theirs = np.load(folder / f"{who}.npy")
            both = np.isfinite(ours) & np.isfinite(theirs)
            apart = np.abs(ours - theirs)[both]
            found[who] = {
                "largest_difference": float(apart.max()),
                "share_over_1e-4": float((apart > 1.001e-4).mean()),
                "only_ours": int((np.isfinite(ours) & ~np.isfinite(theirs)).sum()),
                "only_theirs_in_made_chips": int((~np.isfinite(ours) & np.isfinite(theirs) & made).sum()),
            }
    return found


def _store(url: str) -> list[Figures]:
    from benchmarks.store import measure
    from eo_batch.io.store import parse_store

    return [asdict(figure) for figure in measure(parse_store(url).at("eo-batch-benchmark"))]


def _show(figures: Figures) -> None:
    print(f"{figures['machine']}; load {figures['load_before']:.1f} before, {figures['load_after']:.1f} after")
    print(f"\neo-batch --help: {figures['help']['wall_s']:.2f} s wall, {figures['help']['cpu_s']:.2f} s CPU")
    print(f"\n{'chips':12} {'wall s':>8} {'CPU s':>8} {'peak MB':>8} {'CPU ratio':>10}")
    for who, row in figures["chips"].items():
        if "skipped" in row:
            print(f"{who:12} skipped: {row['skipped']}")
            continue
        ratio = row["cpu_s"] / figures["chips"]["eo_batch"]["cpu_s"]
        print(f"{who:12} {row['wall_s']:8.2f} {row['cpu_s']:8.2f} {row['peak_mb']:8.0f} {ratio:10.2f}")
    for who, row in figures["agreement"].items():
        if isinstance(row, dict):
            print(f"  {who}: differs by at most {row['largest_difference']:.6f}; " + ", ".join(
                f"{key} {value:g}" for key, value in row.items() if key != "largest_difference"))  # fmt: skip
    memory = figures["shard_memory"]
    print(f"\none shard: {memory['base_mb']:.0f} MB before it reads, {memory['peak_mb']:.0f} MB at its peak, "
          f"{memory['projected_mb']:.0f} MB projected")  # fmt: skip
    print(f"\n{'store object':>12} {'threads':>8} {'put/s':>9} {'get/s':>9}")
    for row in figures["store"]:
        size = f"{row['object_bytes'] / 2**10:.0f} KiB"
        print(f"{size:>12} {row['threads']:>8} {row['puts_per_s']:>9.1f} {row['gets_per_s']:>9.1f}")


if __name__ == "__main__":
    main()
