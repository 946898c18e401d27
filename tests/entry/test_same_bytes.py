"""The same spec gives the same bytes: killed anywhere, in one process or several, on any store."""

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


def start(spec: Path, store: str, workers: int = 2) -> "subprocess.Popen[bytes]":
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


def count(store: Path) -> int:
    """Files written so far, those in the making included."""
    return sum(len(files) for _, _, files in os.walk(store))


class Whole:
    """A run that nothing disturbed."""

    def __init__(self, folder: Path) -> None:
        planet = PlanetSpec.tiny()
        catalog = simulate(planet, parse_store(str(folder / "planet")))
        self.spec, self.store = folder / "spec.yaml", folder / "whole"
        self.spec.write_text(f"{SPEC}\ncatalog: {catalog}\narea: {{bbox: {list(planet.area_bbox)}}}\n")
        finish(self.spec, str(self.store))
        self.objects = objects(str(self.store))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def test_all_stages_wrote(whole: Whole) -> None:
    kinds = {key.split("/")[1].split("-")[0] for key in whole.objects if key.count("/") > 1}
    assert {"chips", "pretrain", "embed", "probe"} <= kinds


@pytest.mark.slow
def test_killed_at_ten_random_moments(whole: Whole, tmp_path: Path) -> None:
    moments = random.Random(20231122)
    almost_all = count(whole.store) - 5  # the last objects are written within the blink of an eye
    for written in sorted(moments.sample(range(1, almost_all), KILLS)):
        process = start(whole.spec, str(tmp_path))
        while process.poll() is None and count(tmp_path) < written:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.3))
        assert process.poll() is None, "the run ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finish(whole.spec, str(tmp_path))
    assert objects(str(tmp_path)) == whole.objects


def test_in_one_process(whole: Whole, tmp_path: Path) -> None:
    finish(whole.spec, str(tmp_path), workers=0)
    assert objects(str(tmp_path)) == whole.objects


@pytest.mark.parametrize("url", ["s3_url", "az_url", "gs_url"])
def test_on_object_storage(whole: Whole, url: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(url)
    finish(whole.spec, store)
    assert objects(store) == whole.objects
