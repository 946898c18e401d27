"""Slices of a frozen list, as pods run them: real processes that die, are stopped, and are started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eo_batch.core import layout
from eo_batch.core.errors import CatalogError, DataError, StoreError
from eo_batch.entry import stages
from eo_batch.entry.drive import memory_mb, state_of
from eo_batch.entry.run import Run
from eo_batch.entry.stages import prepare
from eo_batch.entry.work import ATTEMPTS, Work, run_slice, troubles
from eo_batch.io.store import Store, parse_store
from eo_batch.runners.base import SLICE
from tests.io.worlds import QUICK, go, planet, spec_of  # noqa: F401  # planet is a fixture


@pytest.fixture
def run(planet: Path, tmp_path: Path) -> Run:  # noqa: F811
    """A run that is planned; nothing else of it is done."""
    run, _ = go(spec_of(planet / "items.json"), parse_store(str(tmp_path / "store")), until="plan")
    prepare(run, "chips")
    return run


class Frozen:
    """A frozen list of the missing chips shards, and what its slices said."""

    def __init__(self, run: Run, shards_per_pod: int) -> None:
        self.run, self.work = run, Work(run, "chips", "kubernetes")
        self.missing = state_of(run, "chips").missing
        self.argv = self.work.freeze(self.missing, shards_per_pod)
        self.key = self.argv[2]
        self.said: list[str] = []
        self.slept: list[float] = []

    def slice(self, number: int) -> bool:
        return run_slice(self.run.store, self.key, number, QUICK, self.said.append, self.slept.append)

    def shard(self, position: int) -> str:
        return self.run.plan.shards[self.missing[position]].key


def test_slices_cover_the_list_and_settle_it(run: Run) -> None:
    frozen = Frozen(run, shards_per_pod=2)
    count = -(-len(frozen.missing) // 2)
    assert len(frozen.missing) >= 5
    assert frozen.argv == ("eo-batch", "slice", frozen.key, SLICE, "--store", run.store.url)
    assert frozen.work.settled() == {}
    assert frozen.slice(0)
    assert dict(frozen.work.settled()) == dict.fromkeys(frozen.missing[:2])
    assert all(frozen.slice(number) for number in range(1, count))
    assert frozen.slice(count), "a slice past the end has nothing to do"
    assert set(frozen.work.settled()) == set(frozen.missing)
    assert state_of(run, "chips").missing == ()
    receipts = run.receipts("chips")
    assert {receipt.runner for receipt in receipts.values()} == {"kubernetes"}
    frozen.work.forget()
    assert list(run.store.list(layout.works_prefix(run.identity.prefix("chips")))) == []


def test_what_has_a_receipt_is_not_run_again(run: Run) -> None:
    frozen = Frozen(run, shards_per_pod=3)
    assert frozen.slice(0)
    finished = {shard: receipt.finished for shard, receipt in run.receipts("chips").items()}
    time.sleep(1.1)  # receipts tell whole seconds
    frozen.said.clear()
    assert frozen.slice(0)
    assert frozen.said == []
    assert {shard: receipt.finished for shard, receipt in run.receipts("chips").items()} == finished


def test_a_shard_that_fails_for_good_is_noted_and_the_others_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = Frozen(run, shards_per_pod=3)
    _failing(monkeypatch, frozen.missing[1], DataError("chips of it are not usable"))
    assert not frozen.slice(0)
    settled = frozen.work.settled()
    failure = settled[frozen.missing[1]]
    assert failure is not None
    assert (failure.message, failure.exit_code, failure.attempts) == ("chips of it are not usable", 7, 1)
    assert settled[frozen.missing[0]] is settled[frozen.missing[2]] is None
    assert [t.failure for t in troubles(run, "chips", [frozen.shard(1)])] == ["chips of it are not usable"]
    frozen.said.clear()
    assert not frozen.slice(0), "a pod that is started again tells the same"
    assert frozen.said == []
    frozen.work.forget()
    assert [t.failure for t in troubles(run, "chips", [frozen.shard(1)])] == ["chips of it are not usable"]
    monkeypatch.undo()
    again = Frozen(run, shards_per_pod=1)
    assert troubles(run, "chips", [again.shard(0)]) == [], "who tries again is not told of the failure before"
    assert again.slice(0)


def test_what_may_pass_is_tried_again_after_a_pause(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = Frozen(run, shards_per_pod=2)
    _failing(monkeypatch, frozen.missing[0], StoreError("the store is down"), times=2)
    assert frozen.slice(0)
    assert frozen.slept == [2.0, 4.0]
    assert sum("trying again: the store is down" in line for line in frozen.said) == 2


def test_what_never_passes_is_given_up_after_its_tries(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = Frozen(run, shards_per_pod=1)
    _failing(monkeypatch, frozen.missing[0], CatalogError("the catalogue is down"))
    assert not frozen.slice(0)
    failure = frozen.work.settled()[frozen.missing[0]]
    assert failure is not None
    assert (failure.attempts, failure.exit_code) == (ATTEMPTS, 3)


def test_a_shard_that_kills_its_pod_is_given_up_and_its_neighbours_are_done(run: Run) -> None:
    frozen = Frozen(run, shards_per_pod=3)
    deadly = frozen.missing[1]
    for _ in range(ATTEMPTS):
        assert _pod(run.store, frozen.key, f"import os; dies({deadly}, lambda: os._exit(137))") == 137
        assert frozen.work.settled().keys() == {frozen.missing[0]}
    assert _pod(run.store, frozen.key, f"import os; dies({deadly}, lambda: os._exit(137))") == 10
    settled = frozen.work.settled()
    failure = settled[deadly]
    assert failure is not None
    assert "died every time" in failure.message
    assert failure.attempts == ATTEMPTS
    assert settled[frozen.missing[2]] is None


def test_a_pod_that_is_asked_to_end_loses_no_try(run: Run) -> None:
    frozen = Frozen(run, shards_per_pod=1)
    note = layout.work_try(run.identity.prefix("chips"), frozen.key.split("/")[-2], frozen.shard(0))
    code = f"import time; dies({frozen.missing[0]}, lambda: time.sleep(60))"
    with subprocess.Popen(_argv(run.store, frozen.key, code), env=_environment()) as pod:
        deadline = time.monotonic() + 30
        while not run.store.exists(note):
            assert time.monotonic() < deadline
            assert pod.poll() is None
            time.sleep(0.05)
        assert json.loads(run.store.get(note))["tries"] == 1
        begun = time.monotonic()
        pod.send_signal(signal.SIGTERM)
        assert pod.wait(timeout=10) == 143
        assert time.monotonic() - begun < 5
    assert json.loads(run.store.get(note))["tries"] == 0
    assert frozen.slice(0)


def test_a_spec_submitted_meanwhile_changes_nothing(run: Run, planet: Path) -> None:  # noqa: F811
    frozen = Frozen(run, shards_per_pod=1)
    Run(spec_of(planet / "items.json", (11.99, 47.994, 12.0, 48.0)), run.store, QUICK).submit()
    assert frozen.slice(0)
    assert frozen.work.settled().keys() == {frozen.missing[0]}


def test_a_list_that_is_gone_says_so(run: Run) -> None:
    frozen = Frozen(run, shards_per_pod=1)
    frozen.work.forget()
    with pytest.raises(DataError, match="whoever started this job has ended it"):
        frozen.slice(0)


def test_memory_is_that_of_the_largest_missing_shard(run: Run) -> None:
    state = state_of(run, "chips")
    assert memory_mb(run, state) == max(shard.memory_bytes for shard in run.plan.shards) // 10**6
    assert memory_mb(run, state_of(run, "publish")) == 0


def _failing(monkeypatch: pytest.MonkeyPatch, index: int, error: Exception, times: int = 10**6) -> None:
    """Let a shard fail the first `times` times that it is run in this process."""
    perform, left = stages.perform, [times]

    def failing(run: Run, stage: str, number: int, *world: object) -> object:
        if number == index and left[0]:
            left[0] -= 1
            raise error
        return perform(run, stage, number, *world)

    monkeypatch.setattr("eo_batch.entry.door.perform", failing)


_POD = """
import sys
import eo_batch.entry.door as door
def dies(index, how):
    perform = door.perform
    door.perform = lambda run, stage, number, *world: how() if number == index else perform(run, stage, number)
{code}
from eo_batch.cli import main
sys.argv = ["eo-batch", "slice", {key!r}, "0", "--store", {store!r}]
main()
"""


def _argv(store: Store, key: str, code: str) -> list[str]:
    return [sys.executable, "-c", _POD.format(code=code, key=key, store=store.url)]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _pod(store: Store, key: str, code: str) -> int:
    """Exit code of a process that runs slice 0, as a pod would."""
    return subprocess.run(_argv(store, key, code), env=_environment(), check=False, timeout=60).returncode
