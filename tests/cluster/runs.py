"""One small run, as every runner has to make it: the same objects as on this machine, byte for byte."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from eo_batch.core import layout
from eo_batch.core.errors import StoreError
from eo_batch.core.layout import STAGES
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.receipts import Receipt
from eo_batch.entry.run import Run, open_run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate
from tests.servers.objects import ObjectServer

SPEC = """
name: same
time: {start: 2023-06-01, end: 2023-07-01, step: month}
grid: {chip_px: 32, gsd_m: 10, block_chips: 4}
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
  encoder: {dim: 32, depth: 2, heads: 2}
  objective: {kind: mae, decoder: {dim: 16, heads: 2}}
probe: {target: labels, classes: [10, 20, 30, 40]}
"""
ASSETS_SIGNED = {"EO_BATCH_ASSETS_ANONYMOUS": "0"}
"""The planet's files lie in a bucket that wants signatures."""


@dataclass(frozen=True)
class Reference:
    """The run as this machine made it."""

    spec: Path
    store: str
    objects: Mapping[str, str]
    """Digest of every object, by key."""
    shards: Mapping[str, frozenset[str]]
    """Shards by stage."""


def make_spec(server: ObjectServer, folder: Path) -> Path:
    """Simulate a planet in a bucket; the file with the spec that runs over it."""
    planet = PlanetSpec.tiny()
    catalog = simulate(planet, parse_store(server.new_bucket()))
    spec = folder / "spec.yaml"
    spec.write_text(f"{SPEC}\ncatalog: {catalog}\narea: {{bbox: {list(planet.area_bbox)}}}\n")
    return spec


def make_reference(server: ObjectServer, folder: Path) -> Reference:
    """Run the spec of `make_spec` here, into another bucket."""
    spec = make_spec(server, folder)
    store = server.new_bucket()
    command(["run", str(spec), "--store", store, "--workers", "2"])
    run = open_run(parse_store(store), "same", Settings.from_env())
    return Reference(spec, store, objects(store), done(run))


def nearly_done(
    reference: Reference, server: ObjectServer, missing: Mapping[str, int]
) -> tuple[str, dict[str, set[str]]]:
    """A store with the reference's run but for the receipts of some shards of each stage; its URL, and those shards."""
    url, there = server.new_bucket(), parse_store(reference.store)
    here = parse_store(url)
    for key in there.list():
        here.put(key, there.get(key))
    run = open_run(here, "same", Settings.from_env())
    shards = {stage: set(sorted(reference.shards[stage])[-count:]) for stage, count in missing.items()}
    for stage, names in shards.items():
        for shard in names:
            here.delete(layout.receipt_key(run.identity.prefix(stage), shard))
    return url, shards


def made_by(run: Run, runner: str) -> dict[str, set[str]]:
    """Shards whose receipts are a runner's, by stage; stages without any are left out."""
    made = {stage: {r.shard for r in run.receipts(stage).values() if r.runner == runner} for stage in STAGES}
    return {stage: shards for stage, shards in made.items() if shards}


def command(argv: list[str], timeout_s: float = 900) -> str:
    """What `eo-batch` said. Raises AssertionError if it ended otherwise than well."""
    ended = start(argv)
    said, _ = ended.communicate(timeout=timeout_s)
    assert ended.returncode == 0, said
    return said


def start(argv: list[str]) -> subprocess.Popen[str]:
    """`eo-batch` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from eo_batch.cli import main; main()", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | ASSETS_SIGNED,
    )


def objects(store: str) -> dict[str, str]:
    """Digest of every object but those that tell of times and machines: receipts, the report, the spec as submitted,
    and the notes that pods leave while they work.
    """
    opened = parse_store(store)
    told = ("/receipts/", "/report-", "/work/")
    return {
        key: hashlib.sha256(opened.get(key)).hexdigest()
        for key in opened.list()
        if not any(part in key for part in told)
    }


def done(run: Run) -> dict[str, frozenset[str]]:
    """Shards with a receipt whose objects are what the receipt says, by stage."""
    found = {}
    for stage in STAGES:
        receipts = run.receipts(stage)
        for receipt in receipts.values():
            for key, digest in receipt.digests.items():
                data = run.store.get(f"{run.identity.prefix(stage)}/{key}")
                assert hashlib.sha256(data).hexdigest() == digest, f"{stage} {receipt.shard}: {key}"
        found[stage] = frozenset(receipts)
    return found


def runners(run: Run) -> dict[str, set[str]]:
    """Who made the receipts of each stage."""
    return {stage: {receipt.runner for receipt in run.receipts(stage).values()} for stage in done(run)}


@contextmanager
def nothing_done_twice(url: str) -> Iterator[None]:
    """Look at a store's receipts while the block runs. Raises AssertionError if one was written anew by work that began
    when it was there already.

    A worker that ends may still write its receipt when another has already begun what it was doing.
    """
    seen: dict[str, bytes] = {}
    ended = threading.Event()

    def look() -> None:
        store = parse_store(url)
        while not ended.wait(0.5):
            with suppress(StoreError):  # servers are restarted on purpose
                for key in store.list():
                    if "/receipts/" in key and key not in seen:
                        seen[key] = store.get(key)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=60)
    store = parse_store(url)
    assert seen, "nobody saw a receipt"
    again = {key: (Receipt.from_bytes(seen[key], key), Receipt.from_bytes(store.get(key), key)) for key in seen}
    assert [key for key, (first, last) in again.items() if first != last and begun(last) > finished(first)] == []


def finished(receipt: Receipt) -> datetime:
    """When a shard was done."""
    return datetime.fromisoformat(receipt.finished)


def begun(receipt: Receipt) -> datetime:
    """When work on it began."""
    return finished(receipt) - timedelta(seconds=receipt.seconds)


def check_same(store: str, reference: Reference, runner: str) -> None:
    """The run in a store is that of the reference, and was made by one runner."""
    assert objects(store) == reference.objects
    run = open_run(parse_store(store), "same", Settings.from_env())
    assert done(run) == reference.shards
    assert runners(run) == {stage: {runner} for stage in STAGES}
