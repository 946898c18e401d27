"""A small simulated planet, specs over it, and runs of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from eo_batch.core.planet import PlanetSpec
from eo_batch.core.receipts import Receipt
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.drive import StageState, drive
from eo_batch.entry.run import Run
from eo_batch.io.store import Store, parse_store
from eo_batch.runners.base import Event, Runner
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings, StoreOptions
from eo_batch.stages.simulate import simulate
from tests.servers.objects import ObjectServer

PLANET = PlanetSpec.tiny(
    width_km=2.0, height_km=2.0, collections=("sentinel-2-l2a", "landcover"), s2_bands=("B04", "B11")
)
WHOLE = (11.99, 47.994, 12.01, 48.006)
"""Both zones, all tiles."""
WEST = (11.9905, 48.0005, 11.9995, 48.005)
"""Only the western zone, with the tile whose first sensing is listed twice."""
SPEC = """
name: t
time: {start: 2023-06-01, end: 2023-07-01, step: month}
grid: {chip_px: 32, gsd_m: 10, block_chips: 4}
pretrain: {encoder: {patch_px: 8}}
sensors:
  s2: {kind: s2-l2a, bands: [B04, B11]}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
"""
QUICK = Settings(
    store=StoreOptions(retries=1),
    assets=StoreOptions(anonymous=True, retries=0, connect_timeout_s=1, read_timeout_s=2),
    assets_patience_s=0.5,
)
"""Few retries: what the store's client does between them is not this project's to test."""


@pytest.fixture(scope="session")
def planet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the planet's catalogue."""
    folder = tmp_path_factory.mktemp("world") / "planet"
    simulate(PLANET, parse_store(str(folder)), workers=2)
    return folder


def spec_of(catalog: object, area: Sequence[float] = WHOLE, *overrides: str) -> RunSpec:
    """A run over the planet; `overrides` as on the command line."""
    return parse_spec(SPEC, [f"catalog={catalog}", f"area.bbox={list(area)}", *overrides])


class Watching:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.states: list[StageState] = []
        self.events: list[tuple[str, Event]] = []

    def begin(self, state: StageState) -> None:
        self.states.append(state)

    def event(self, state: StageState, event: Event) -> None:
        self.events.append((state.stage, event))

    def end(self, state: StageState) -> None:
        pass

    def ran(self, stage: str) -> int:
        """Shards of a stage that were run."""
        return sum(name == stage and event.kind == "done" for name, event in self.events)


def go(
    spec: RunSpec,
    store: Store,
    until: str = "publish",
    runner: Runner | None = None,
    settings: Settings = QUICK,
) -> tuple[Run, Watching]:
    """Drive a run; the run and what its watcher saw."""
    run, watching = Run(spec, store, settings), Watching()
    drive(run, runner or LocalRunner(0), watching, until)
    return run, watching


def chips_receipts(run: Run) -> list[Receipt]:
    """Receipts of all chips shards, in the plan's order."""
    found = run.receipts("chips")
    return [found[shard.key] for shard in run.plan.shards]


def cube_objects(run: Run) -> dict[str, str]:
    """SHA-256 of every object of the run's cube, by key."""
    prefix = f"{run.identity.prefix('chips')}/cube.zarr"
    return {key: hashlib.sha256(run.store.get(key)).hexdigest() for key in run.store.list(prefix)}


def upload(planet: Path, server: ObjectServer) -> str:
    """URL of a fresh bucket or container with the planet, which only who signs may read."""
    url = server.new_bucket()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in server.env.items():
            patched.setenv(name, value)
        there = parse_store(url)
        for path in planet.rglob("*"):
            if path.is_file():
                there.put(path.relative_to(planet).as_posix(), path.read_bytes())
    return url
