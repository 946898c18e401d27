"""What every runner owes: one suite for all of them.

A further runner is one more entry in `RUNNERS`, and one line in a test module of its own:

    class TestDask(WorkerContract):
        runner_name = "dask"

What they run is in `tests/runners/calls.py`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from eo_batch.core.errors import DataError, StoreError
from eo_batch.runners.base import Call, Event, Job, Outcome, Runner
from eo_batch.runners.dask import DaskRunner
from eo_batch.runners.dask_places import LocalProcesses
from eo_batch.runners.dask_shift import Patience
from eo_batch.runners.local import LocalRunner
from tests.runners.calls import Dying, Endless, Exiting, Failing, Fine, Noting, Odd, Shelf

__all__ = ["RUNNERS", "Fine", "Noting", "RunnerContract", "WorkerContract", "agree", "run"]

RUNNERS: Mapping[str, Callable[[], Runner]] = {
    "serial": lambda: LocalRunner(0),
    "processes": lambda: LocalRunner(2),
    "dask": lambda: DaskRunner(LocalProcesses(2), Patience(retry_s=0.1)),
}


def run(runner: Runner, call: Call, indices: tuple[int, ...], attempts: int = 3) -> tuple[Outcome, list[Event]]:
    """Run a job; its outcome and events, which have to agree."""
    events: list[Event] = []
    outcome = runner.run(Job("test", indices, call, attempts), events.append)
    agree(outcome, events, indices)
    return outcome, events


def agree(outcome: Outcome, events: list[Event], indices: tuple[int, ...]) -> None:
    """Every index ends once, as done or failed, and the events say the same; nothing follows an end."""
    assert outcome.done | set(outcome.failed) == set(indices)
    assert not outcome.done & set(outcome.failed)
    ended: dict[int, str] = {}
    for event in events:
        if event.kind == "wait":
            continue
        assert event.index not in ended, f"{event} after the index had ended"
        if event.kind != "retry":
            ended[event.index] = event.kind
    assert {index for index, kind in ended.items() if kind == "done"} == outcome.done
    assert {index for index, kind in ended.items() if kind == "failed"} == set(outcome.failed)
    for failure in outcome.failed.values():
        assert 0 < len(failure.message) < 10_000
        assert "\n" not in failure.message
        assert len(failure.trace) < 100_000


class RunnerContract:
    """The suite for every runner."""

    runner_name: ClassVar[str]
    tells_retries: ClassVar[bool] = True
    """Whether events tell of each try that failed; of tries in processes elsewhere, only those know."""

    @pytest.fixture
    def runner(self) -> Runner:
        return RUNNERS[self.runner_name]()

    @pytest.fixture
    def notes(self, tmp_path: Path) -> Path | Shelf:
        """Where calls keep their notes."""
        return tmp_path

    def test_every_index_is_done_once_in_any_order(self, runner: Runner, notes: Path | Shelf) -> None:
        indices = (7, 3, 11, 0, 5)
        outcome, events = run(runner, Fine(notes), indices)
        assert outcome.done == set(indices)
        # A cluster that is full lets pods wait.
        assert Counter(event.kind for event in events if event.kind != "wait") == {"done": 5}, events
        assert all(Fine(notes).begun(index) == 1 for index in indices)

    def test_an_empty_job_has_an_empty_outcome(self, runner: Runner, notes: Path | Shelf) -> None:
        outcome, events = run(runner, Fine(notes), ())
        assert (outcome.done, outcome.failed, events) == (frozenset(), {}, [])

    def test_failures_stop_nobody_and_only_those_that_may_pass_are_tried_again(
        self, runner: Runner, notes: Path | Shelf
    ) -> None:
        call = Failing(notes)
        outcome, events = run(runner, call, (0, 1, 2, 3, 4, 5, 6))
        assert outcome.done == {0, 3, 4, 6}
        assert {index: failure.attempts for index, failure in outcome.failed.items()} == {1: 1, 2: 3, 5: 1}
        assert [call.begun(index) for index in range(7)] == [1, 1, 3, 3, 1, 1, 1]
        assert outcome.failed[1].message == "chips of 1 are not usable"
        assert outcome.failed[1].trace == "", "an error that is meant for people needs no traceback"
        assert (outcome.failed[1].exit_code, outcome.failed[2].exit_code) == (DataError.exit_code, StoreError.exit_code)
        assert "ZeroDivisionError" in outcome.failed[5].message
        assert "raise ZeroDivisionError" in outcome.failed[5].trace
        retries = Counter(event.index for event in events if event.kind == "retry")
        assert retries == ({2: 2, 3: 2} if self.tells_retries else {})

    def test_one_attempt_is_one_try(self, runner: Runner, notes: Path | Shelf) -> None:
        outcome, _ = run(runner, Failing(notes), (2, 3), attempts=1)
        assert {index: failure.attempts for index, failure in outcome.failed.items()} == {2: 1, 3: 1}

    def test_errors_that_are_hard_to_carry(self, runner: Runner, notes: Path | Shelf) -> None:
        outcome, _ = run(runner, Odd(notes), tuple(range(7)), attempts=2)
        assert outcome.done == {6}
        assert "odd" in outcome.failed[0].message
        assert outcome.failed[1].attempts == 2, "a store error may pass"
        assert "xxx" in outcome.failed[2].message
        assert "line one line two" in outcome.failed[3].message
        assert "SystemExit" in outcome.failed[4].message
        assert "MemoryError" in outcome.failed[5].message

    def test_an_interrupt_stops_the_workers(self, runner: Runner, notes: Path | Shelf) -> None:
        call, events = Endless(notes), list[Event]()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            runner.run(Job("test", (0, 1, 2), call), events.append)
        assert time.monotonic() - begun < 30
        assert events == []
        for pid in call.pids() - {os.getpid()}:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


class WorkerContract(RunnerContract):
    """The suite for runners whose calls run in other processes, which can die."""

    @pytest.mark.parametrize("call_type", [Dying, Exiting])
    def test_a_worker_that_dies_costs_only_what_it_ran(
        self, runner: Runner, notes: Path | Shelf, call_type: type[Dying]
    ) -> None:
        call = call_type(notes)
        outcome, _ = run(runner, call, tuple(range(9)))
        assert outcome.done == {0, 1, 2, 3, 5, 6, 7, 8}, "whoever ran beside it is not to blame"
        assert outcome.failed[4].attempts == 3
        assert "worker process died" in outcome.failed[4].message
        extra = sum(call.begun(index) - 1 for index in range(9) if index not in (2, 4))
        assert extra <= 3, "each death interrupts at most the one index beside it"
