"""Scheduled updates: which dates they take, and which shards they run."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core.errors import SpecError
from eo_batch.core.identity import Identity
from eo_batch.core.planet import PlanetSpec
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.run import open_run
from eo_batch.entry.update import updated
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from eo_batch.stages.simulate import simulate
from tests.servers.prefect import PrefectServer

PLANET = PlanetSpec.tiny(
    s2_dates=5, s2_spacing_days=4, collections=("sentinel-2-l2a", "landcover"), s2_bands=("B04",), cloud_share=0.0
)
"""Sensed on 3, 7, 11, 15 and 19 June 2023."""
SPEC = """
name: growing
catalog: items.json
area: {bbox: [12.0, 48.0, 12.01, 48.01]}
time: {start: 2023-06-02, end: 2023-06-07, step: P5D}
grid: {chip_px: 32, gsd_m: 10, block_chips: 4}
sensors:
  s2: {kind: s2-l2a, bands: [B04]}
  labels: {kind: classes, collections: [landcover], assets: {class: map}}
split: {cell_km: 1, test: 0.3}
"""
"""Its bins begin on 2, 7, 12 and 17 June."""


def spec_of(*overrides: str) -> RunSpec:
    return parse_spec(SPEC, overrides)


def day(number: int) -> date:
    """A day of June 2023."""
    return date(2023, 6, number)


@pytest.mark.parametrize(
    ("today", "settle_days", "end"),
    [(7, 0, 7), (11, 0, 7), (12, 0, 12), (16, 0, 12), (16, 5, 7), (17, 5, 12), (22, 5, 17), (1, 0, 7), (4, 5, 7)],
)
def test_only_whole_bins_that_have_settled_are_taken(today: int, settle_days: int, end: int) -> None:
    moved = updated(spec_of(), None, day(today), settle_days)
    assert moved == spec_of(f"time.end={day(end)}")
    assert Identity(moved).prefix("chips") == Identity(spec_of()).prefix("chips")


def test_calendar_bins_end_with_the_calendar() -> None:
    monthly = spec_of("time.step=month", "time.start=2023-01-15", "time.end=2023-03-01")
    assert updated(monthly, None, date(2023, 6, 5), 5).time.end == date(2023, 5, 1)
    assert updated(monthly, None, date(2023, 6, 6), 5).time.end == date(2023, 6, 1)


def test_an_update_that_comes_late_takes_nothing_back() -> None:
    last = spec_of("time.end=2023-06-17")
    assert updated(spec_of(), last, day(12), 0).time.end == day(17)
    cut = spec_of("time.end=2023-06-19")
    assert updated(spec_of(), cut, day(12), 0).time.end == day(12), "an end within a bin is no end to go on from"


def test_looking_again_is_another_plan_that_later_updates_keep() -> None:
    spec = spec_of("as_of=mine")
    again = updated(spec, None, day(12), 0, look_again=True)
    assert again == spec_of("as_of=mine@2023-06-12", "time.end=2023-06-12")
    assert updated(spec, again, day(13), 0) == again
    assert updated(spec_of("as_of=other"), again, day(13), 0).as_of == "other"
    assert updated(spec, again, day(17), 0, look_again=True).as_of == "mine@2023-06-17"


def test_what_can_not_grow_is_refused() -> None:
    with pytest.raises(SpecError, match=r"time\.step=all .* use month"):
        updated(spec_of("time.step=all"), None, day(20), 0)
    with pytest.raises(
        SpecError, match=r"time\.end=2023-06-06 cuts the bin 20230602P5D short.*use time\.end=2023-06-07$"
    ):
        updated(spec_of("time.end=2023-06-06"), None, day(20), 0)
    with pytest.raises(SpecError, match=r"use time\.end=2023-06-07 or time\.end=2023-06-12$"):
        updated(spec_of("time.end=2023-06-11"), None, day(20), 0)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("growing")
    simulate(PLANET, parse_store(str(folder)))
    return folder / "items.json"


def counts(prefect: PrefectServer, run: str) -> dict[str, tuple[int, int]]:
    """Shards that a flow run ran and kept, by stage."""
    rows = json.loads(prefect.artifacts(run)["growing-cost"]["data"])
    return {row["stage"]: (row["ran"], row["kept"]) for row in rows if row["stage"] != "all"}


@pytest.mark.slow
def test_an_update_runs_the_shards_of_new_bins_only(prefect: PrefectServer, catalog: Path, tmp_path: Path) -> None:
    spec = spec_of(f"catalog={catalog}", f"area.bbox={list(PLANET.area_bbox)}")
    store = parse_store(str(tmp_path))
    given: dict[str, Any] = {"spec": spec.model_dump(mode="json", exclude_unset=True), "store": str(tmp_path)}

    def update(today: int) -> dict[str, tuple[int, int]]:
        run = prefect.run("scheduled-update/process", {**given, "day": str(day(today)), "settle_days": 0})
        state = prefect.wait(run)
        assert state["type"] == "COMPLETED", state
        return counts(prefect, run)

    first = update(7)
    opened = open_run(store, "growing", Settings())
    blocks = len(opened.plan.blocks)
    assert first == {"plan": (1, 0), "chips": (2 * blocks, 0), "publish": (1, 0)}, "a bin, and labels without time"
    before = {key: store.get(key) for key in store.list(opened.identity.prefix("chips"))}
    receipts = {key for key in before if "/receipts/" in key}
    assert len(receipts) == 2 * blocks

    assert update(17) == {"plan": (1, 0), "chips": (2 * blocks, 2 * blocks), "publish": (1, 0)}, "two new bins"
    assert update(18) == {"plan": (0, 1), "chips": (0, 4 * blocks), "publish": (0, 1)}, "no bin is new"
    grown = open_run(store, "growing", Settings())
    assert grown.spec.time.end == day(17)
    assert grown.identity.prefix("chips") == opened.identity.prefix("chips")
    kept = receipts | {key for key in before if "/s2_10m/c/" in key or "/labels_10m/c/" in key}
    assert len(kept) == 2 * len(receipts), "a receipt and an object of pixels for each shard"
    assert {key: store.get(key) for key in kept} == {key: before[key] for key in kept}
