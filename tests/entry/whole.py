"""The spec of a small whole run, and what comes out of it where nothing disturbs it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from eo_batch.core.planet import PlanetSpec
from eo_batch.io.store import parse_store
from eo_batch.stages.simulate import simulate
from tests.servers.shared import Home, Note, shared

SPEC = """
name: killed
time: {start: 2023-06-01, end: 2023-07-01}
grid: {chip_px: 32, gsd_m: 10, block_chips: 2}
sensors:
  s2: {kind: s2-l2a, bands: [B02, B08]}
  s1: {kind: s1, orbit: ascending}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
split: {cell_km: 1, test: 0.3, seed: 2}
pretrain:
  seeds: [0, 1]
  steps: 30
  batch: 16
  warmup_steps: 5
  checkpoint_every_steps: 10
  validate_every_steps: 20
  encoder: {dim: 32, depth: 2, heads: 2}
  objective: {kind: mae, decoder: {dim: 16, heads: 2}}
probe: {target: labels, classes: [10, 20, 30, 40]}
"""


def start(spec: Path, store: str, workers: int = 2) -> subprocess.Popen[bytes]:
    code = "from eo_batch.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", str(spec), "-s", store, "-w", str(workers)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(spec: Path, store: str, workers: int = 2) -> None:
    process = start(spec, store, workers)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


def objects(store: str) -> dict[str, str]:
    """Digest of every object but receipts and the report, which tell of times and machines."""
    opened = parse_store(store)
    return {
        key: hashlib.sha256(opened.get(key)).hexdigest()
        for key in opened.list()
        if "/receipts/" not in key and "/report-" not in key
    }


class Whole:
    """A run on disk that nothing disturbed, made once a session."""

    def __init__(self, home: Home) -> None:
        folder = Path(shared(home, "whole", _make).url)
        self.spec, self.store = folder / "spec.yaml", folder / "whole"
        self.objects = objects(str(self.store))


def _make(_: Home, folder: Path) -> Note:
    planet = PlanetSpec.tiny()
    catalog = simulate(planet, parse_store(str(folder / "planet")))
    spec = folder / "spec.yaml"
    spec.write_text(f"{SPEC}\ncatalog: {catalog}\narea: {{bbox: {list(planet.area_bbox)}}}\n")
    finish(spec, str(folder / "whole"))
    return Note(str(folder))
