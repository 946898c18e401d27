"""A run of ten thousand shards: submitted in seconds, as few objects, and gone on with where it was."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core import layout
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.receipts import Receipt
from eo_batch.core.shards import Shard
from eo_batch.entry.run import Run, open_run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate
from tests.cluster.chart import Installed, installed
from tests.cluster.given import S3, Images
from tests.cluster.kube import everything, get, kubectl, wait_for
from tests.cluster.runs import command, start
from tests.cluster.ways import profile_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SPEC = """
name: wide
time: {start: 2023-01-01, end: 2024-01-01, step: P14D}
grid: {chip_px: 16, gsd_m: 10, block_chips: 1}
sensors:
  s2: {kind: s2-l2a, bands: [B02]}
pretrain: {encoder: {patch_px: 8}}
"""
"""Each chip is a shard, in each of the year's fortnights."""
LEFT = 37
SUBMITTED_S = 30.0
FANNED_OUT_S = 120.0
"""Longest time until the workflow's Job exists: two pods have started by then, one after the other."""
OBJECTS = 50
WORKFLOW_BYTES = 100_000
KINDS = ("workflows.argoproj.io", "jobs", "leases", "pods")

_NOWHERE = {"node_selector": {"kubernetes.io/hostname": "nowhere"}, "cpu": "20m", "memory_mb": 400}
_SMALL = {"cpu": "20m", "memory_mb": 400}


@dataclass(frozen=True)
class Planned:
    """A run of which nothing is done but its plan."""

    spec: Path
    store: str

    def argv(self, profile: Path) -> list[str]:
        return ["run", str(self.spec), "--store", self.store, "--on", str(profile), "--until", "chips"]

    def open(self) -> Run:
        return open_run(parse_store(self.store), "wide", Settings.from_env())


@pytest.fixture(scope="module")
def release(images: Images, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed("eo-batch-test-scale", images, s3, tmp_path_factory.mktemp("release")) as found:
        yield found


@pytest.fixture(scope="module")
def plan(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """The plan, made on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.server.env.items():
            patch.setenv(name, value)
        planet = PlanetSpec.tiny(collections=("sentinel-2-l2a",), s2_bands=("B02",))
        catalog = simulate(planet, parse_store(s3.server.new_bucket()))
        spec = tmp_path_factory.mktemp("spec") / "spec.yaml"
        spec.write_text(f"{SPEC}\ncatalog: {catalog}\narea: {{bbox: {list(planet.area_bbox)}}}\n")
        planned = Planned(spec, s3.server.new_bucket())
        command(["run", str(spec), "--store", planned.store, "--workers", "0", "--until", "plan"])
        assert len(planned.open().plan.shards) >= 10_000
        return planned


@pytest.fixture
def planned(plan: Planned, s3_here: S3) -> Planned:
    """The plan in a store of its own."""
    there, url = parse_store(plan.store), s3_here.server.new_bucket()
    here = parse_store(url)
    for key in there.list():
        here.put(key, there.get(key))
    return Planned(plan.spec, url)


@contextmanager
def running(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """`eo-batch` in a process of its own, which is interrupted at the end of the block if it still runs."""
    process = start(argv)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
        print(said)


def first(space: str, kind: str, process: subprocess.Popen[str] | None = None, timeout_s: float = 180) -> Any:
    """The first object of the run that shows up, whose process has to be alive."""
    found: list[Any] = []

    def there() -> bool:
        found[:] = get(space, kind, "-l", "eo-batch.io/run=wide", "--show-managed-fields")
        if not found and process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        return bool(found)

    wait_for(there, f"the run has one of {kind}", timeout_s, every_s=0.2)
    return found[0]


def figures(**found: object) -> None:
    """Print what was measured."""
    print(json.dumps(found))


def size(thing: Any) -> int:
    """Bytes of an object as the API server sends it."""
    return len(json.dumps(thing, separators=(",", ":")))


def check_nothing_left(space: str) -> None:
    wait_for(lambda: get(space, ",".join(KINDS), "-l", "eo-batch.io/run=wide") == [], "all is gone", 120)


def test_through_jobs(release: Installed, planned: Planned) -> None:
    chips = {"pool": "nowhere", "shards_per_pod": 1, "parallelism": 20}
    profile = release.changed("kubernetes", pools={"nowhere": _NOWHERE}, stages={"chips": chips})
    before, begun = everything(release.namespace), time.monotonic()
    with running(planned.argv(profile)) as process:
        job = first(release.namespace, "jobs", process)
        took_s = time.monotonic() - begun
        made = everything(release.namespace) - before
        figures(submitted_s=round(took_s, 1))
        figures(objects=sorted(made))
        assert job["spec"]["completions"] == len(planned.open().plan.shards)
        assert took_s <= SUBMITTED_S
        assert len(made) <= OBJECTS, sorted(made)
        assert process.poll() is None
    assert process.returncode == 130
    check_nothing_left(release.namespace)


def test_through_a_workflow(release: Installed, planned: Planned) -> None:
    chips = {"pool": "nowhere", "shards_per_pod": 1, "parallelism": 20}
    space = release.namespace
    with profile_of("argo", release, pools={"nowhere": _NOWHERE}, stages={"chips": chips}) as profile:
        before, begun = everything(space), time.monotonic()
        command([*planned.argv(profile), "--detach"])
        submitted = first(space, "workflows.argoproj.io")
        took_s = time.monotonic() - begun
        job = first(space, "jobs", timeout_s=300)
        fanned_out_s = time.monotonic() - begun
        made = everything(space) - before
        (workflow,) = get(space, "workflows.argoproj.io", "-l", "eo-batch.io/run=wide", "--show-managed-fields")
        figures(submitted_s=round(took_s, 1))
        figures(fanned_out_s=round(fanned_out_s, 1))
        figures(objects=sorted(made))
        figures(workflow_bytes=[size(submitted), size(workflow)])
        kubectl("delete", "workflow", "-n", space, workflow["metadata"]["name"])
    assert job["spec"]["completions"] == len(planned.open().plan.shards)
    assert took_s <= SUBMITTED_S
    assert fanned_out_s <= FANNED_OUT_S
    assert len(made) <= OBJECTS, sorted(made)
    assert size(workflow) < WORKFLOW_BYTES
    check_nothing_left(space)


def test_what_is_missing_is_all_that_runs(release: Installed, planned: Planned) -> None:
    run = planned.open()
    with_scenes = [shard.index for shard in run.plan.shards if shard.scenes]
    missing = sorted(random.Random(1).sample(with_scenes, LEFT))
    finish(run, [shard for shard in run.plan.shards if shard.index not in missing])
    chips = {"pool": "small", "shards_per_pod": 1, "parallelism": 4}
    profile = release.changed("kubernetes", pools={"small": _SMALL}, stages={"chips": chips})
    begun = time.monotonic()
    with running(planned.argv(profile)) as process:
        job = first(release.namespace, "jobs", process)
        figures(submitted_s=round(time.monotonic() - begun, 1))
        assert job["spec"]["completions"] == LEFT
        process.wait(timeout=480)
    figures(done_s=round(time.monotonic() - begun, 1))
    assert process.returncode == 0
    begun = time.monotonic()
    receipts = run.receipts("chips")
    figures(receipts=len(receipts), read_s=round(time.monotonic() - begun, 1))
    assert {key: receipt.inputs for key, receipt in receipts.items()} == {s.key: s.inputs for s in run.plan.shards}
    assert Counter(receipt.runner for receipt in receipts.values()) == {
        "before": len(run.plan.shards) - LEFT,
        "kubernetes": LEFT,
    }
    check_nothing_left(release.namespace)


def finish(run: Run, shards: list[Shard]) -> None:
    """Write receipts of shards as if they had been made before."""
    prefix = run.identity.prefix("chips")

    def write(shard: Shard) -> None:
        receipt = Receipt(stage="chips", shard=shard.key, inputs=shard.inputs, outputs={}, runner="before")
        run.store.put(layout.receipt_key(prefix, shard.key), receipt.to_bytes())

    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(write, shards):
            pass
