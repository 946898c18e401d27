"""Killed anywhere, a run completes and gives the same bytes."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eo_batch.core.planet import PlanetSpec
from eo_batch.io.store import parse_store
from eo_batch.stages.simulate import simulate

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
  steps: 60
  batch: 16
  warmup_steps: 5
  checkpoint_every_steps: 10
  validate_every_steps: 20
  encoder: {dim: 32, depth: 2, heads: 2, decoder_dim: 16, decoder_heads: 2}
probe: {target: labels, classes: [10, 20, 30, 40]}
"""
KILLS = 10


def start(spec: Path, store: Path) -> "subprocess.Popen[bytes]":
    code = "from eo_batch.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", str(spec), "-s", str(store), "-w", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(spec: Path, store: Path) -> None:
    process = start(spec, store)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


def objects(store: Path) -> dict[str, str]:
    """Digest of every object but receipts, which tell of times and machines."""
    return {
        key: hashlib.sha256(parse_store(str(store)).get(key)).hexdigest()
        for key in parse_store(str(store)).list()
        if "/receipts/" not in key and "/report-" not in key
    }


def count(store: Path) -> int:
    """Files written so far, those in the making included."""
    return sum(len(files) for _, _, files in os.walk(store))


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path: Path) -> None:
    planet = PlanetSpec.tiny()
    catalog = simulate(planet, parse_store(str(tmp_path / "planet")))
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"{SPEC}\ncatalog: {catalog}\narea: {{bbox: {list(planet.area_bbox)}}}\n")
    finish(spec, tmp_path / "whole")
    whole = objects(tmp_path / "whole")
    moments = random.Random(20231122)
    for written in sorted(moments.sample(range(1, count(tmp_path / "whole")), KILLS)):
        process = start(spec, tmp_path / "killed")
        while process.poll() is None and count(tmp_path / "killed") < written:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.3))
        assert process.poll() is None, "the run ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finish(spec, tmp_path / "killed")
    kinds = {key.split("/")[1].split("-")[0] for key in whole if key.count("/") > 1}
    assert {"chips", "pretrain", "embed", "probe"} <= kinds
    assert objects(tmp_path / "killed") == whole
