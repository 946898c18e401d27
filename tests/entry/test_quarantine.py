"""A shard that fails in run after run is set aside, told of, and tried again when somebody asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eo_batch.cli.show import show_status
from eo_batch.core import layout
from eo_batch.core.errors import DataError, ShardFailed, StoreError
from eo_batch.core.work import GivenUp
from eo_batch.entry import drive as driving
from eo_batch.entry import quarantine
from eo_batch.entry.drive import state_of
from eo_batch.entry.quarantine import AFTER, release, set_aside
from eo_batch.entry.run import Run
from eo_batch.entry.stages import perform as really_perform
from eo_batch.entry.status import status_json, status_of
from eo_batch.entry.work import Work, run_slice, troubles
from eo_batch.io.store import Store, parse_store
from eo_batch.runners.local import LocalRunner
from tests.io.web import Web, serving, status
from tests.io.worlds import (
    QUICK,
    WEST,
    Watching,
    go,
    planet,  # noqa: F401  # a fixture
    spec_of,
)

BAND = "S2B_32UAZ_20230608_0_L2A/B04.tif"
"""A file without a spare, which all four shards of one sensor need."""


@pytest.fixture
def web(planet: Path) -> Iterator[Web]:  # noqa: F811
    with serving(planet) as web:
        yield web


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return parse_store(str(tmp_path))


def fails(web: Web, store: Store, *overrides: str) -> tuple[str, Watching]:
    """A run that fails: what it says and what its watcher saw."""
    run, watching = Run(spec_of(f"{web.url}/items.json", WEST, *overrides), store, QUICK), Watching()
    with pytest.raises(ShardFailed) as told:
        driving.drive(run, LocalRunner(0), watching, "publish")
    return str(told.value), watching


def test_a_shard_that_every_run_gives_up_is_set_aside(
    web: Web, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    web.fault(BAND, status(404))
    spec = spec_of(f"{web.url}/items.json", WEST)
    run = Run(spec, store, QUICK)
    for times in range(AFTER):
        said, _ = fails(web, store)
        assert "missing" in said
        assert "quarantined" not in said
        noted = troubles(run, "chips", [run.plan.shards[i].key for i in state_of(run, "chips").missing])
        assert [note.tries for note in noted] == ([1] * 4 if times + 1 < AFTER else [AFTER] * 4)
        assert {note.quarantined for note in noted} == {times + 1 == AFTER}
    web.asked.clear()
    said, watching = fails(web, store)
    assert "quarantined, since 3 runs gave it up" in said
    assert "B04.tif: missing" in said
    assert "--retry-quarantined" in said
    assert not web.asked, "nothing is tried"
    assert [event.kind for stage, event in watching.events if stage == "chips"] == ["failed"] * 4
    show_status(Run(spec, store, QUICK), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if ": quarantined after 3 tries: " in line]
    assert len(told) == 4
    assert all(line.startswith("chips s2/") and "B04.tif: missing" in line for line in told)
    assert any("--retry-quarantined" in line for line in lines)
    told_json = status_json("t", status_of(Run(spec, store, QUICK)))
    assert [note["quarantined"] for note in told_json["notes"]] == [True] * 4
    web.mend()
    said, _ = fails(web, store)
    assert "quarantined" in said, "nobody has asked"
    release(Run(spec, store, QUICK))
    go(spec, store)
    assert status_of(Run(spec, store, QUICK))[1].notes == ()


def test_the_others_of_the_stage_are_done(
    planet: Path,  # noqa: F811
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = spec_of(planet / "items.json", WEST)
    run, _ = go(spec, store, "plan")
    poison, down = state_of(run, "chips").missing[2], [True]

    def failing(run: Run, stage: str, index: int, *world: object) -> object:
        if index == poison:
            raise DataError("poison")
        if down[0]:
            raise StoreError("the store is down")
        return really_perform(run, stage, index, *world)

    monkeypatch.setattr("eo_batch.entry.door.perform", failing)
    for _ in range(AFTER):
        with pytest.raises(ShardFailed, match="of 8 shards"):
            go(spec, store, "chips")
    down[0] = False
    watching = Watching()
    with pytest.raises(ShardFailed, match="quarantined, since 3 runs gave it up: poison"):
        driving.drive(run, LocalRunner(0), watching, "chips")
    assert watching.ran("chips") == 7
    assert state_of(run, "chips").missing == (poison,)


def test_what_is_allowed_to_be_lost_changes_the_shard(web: Web, store: Store) -> None:
    web.fault(BAND, status(404))
    for _ in range(AFTER + 1):
        fails(web, store)
    run, _ = go(spec_of(f"{web.url}/items.json", WEST, "limits.max_missing=0.5"), store)
    assert state_of(run, "chips").missing == ()


def test_a_store_that_is_away_is_no_fault_of_a_shard(
    planet: Path,  # noqa: F811
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = spec_of(planet / "items.json", WEST)
    go(spec, store, "plan")

    def perform(*_: object) -> None:
        raise StoreError("the store is down")

    monkeypatch.setattr("eo_batch.entry.door.perform", perform)
    for _ in range(AFTER + 1):
        with pytest.raises(ShardFailed, match="the store is down"):
            go(spec, store, "chips")
    run = Run(spec, store, QUICK)
    state = state_of(run, "chips")
    assert set_aside(run, "chips", {index: state.shards[index] for index in state.missing}) == {}


def test_pods_leave_out_what_earlier_workflows_gave_up(
    planet: Path,  # noqa: F811
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = go(spec_of(planet / "items.json", WEST), store, "plan")
    poison = state_of(run, "chips").missing[0]
    shard = run.plan.shards[poison].key
    begun: list[int] = []

    def perform(run: Run, stage: str, index: int, *_: object) -> None:
        begun.append(index)
        raise DataError("poison")

    monkeypatch.setattr("eo_batch.entry.door.perform", perform)
    driving.prepare(run, "chips")
    for name in [f"workflow-{number}" for number in range(AFTER)]:
        key = Work(run, "chips", "argo", name).freeze([poison], 1)[2]
        assert not run_slice(store, key, 0, QUICK, lambda _: None)
        assert key == Work(run, "chips", "argo", name).freeze([poison], 1)[2]
        assert layout.work_failure(run.identity.prefix("chips"), name, shard) in set(store.list()), "its own note stays"
    assert begun == [poison] * AFTER
    work, said = Work(run, "chips", "argo", "another"), list[str]()
    key = work.freeze([poison], 1)[2]
    assert not run_slice(store, key, 0, QUICK, said.append)
    assert begun == [poison] * AFTER, "not tried"
    assert len(said) == 1
    assert "quarantined" in said[0]
    (failure,) = work.settled().values()
    assert failure is not None
    assert "quarantined, since 3 runs gave it up: poison" in failure.message
    (trouble,) = troubles(run, "chips", [shard])
    assert (trouble.quarantined, trouble.tries) == (True, AFTER)
    (tally,) = store.list(layout.tallies_prefix(run.identity.prefix("chips")))
    assert json.loads(store.get(tally))["times"] == AFTER
    release(run)
    assert Work(run, "chips", "argo", "asked").freeze([poison], 1)
    assert run_slice(store, key, 0, QUICK, said.append) is False


def test_a_tally_tells_the_latest_failure_whatever_the_order_of_notes() -> None:
    old = GivenUp(message="old", tries=1, exit_code=8, inputs="i", allowed=0, at="2026-01-01T00:00:00+00:00")
    new = GivenUp(message="new", tries=2, exit_code=5, inputs="i", allowed=0, at="2026-01-02T00:00:00+00:00")
    for notes in ((old, new), (new, old)):
        tally = None
        for note in notes:
            tally = quarantine._added(tally, note)
        assert tally is not None
        assert (tally.message, tally.exit_code, tally.tries, tally.times) == ("new", 5, 3, 2)
