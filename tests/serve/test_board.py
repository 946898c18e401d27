"""Large runs are not read again for every visitor."""

from __future__ import annotations

import threading

import pytest

from eo_batch.entry.run import Run
from eo_batch.entry.status import StageStatus
from eo_batch.io.store import Store
from eo_batch.serve import board
from eo_batch.serve.board import Board
from eo_batch.settings import Settings


class Reading:
    """Stands for reading the receipts of a run, which takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.takes_s, self.times = 1000.0, 0.0, 0
        self.may_end = threading.Event()
        self.may_end.set()
        self.begun = threading.Event()
        monkeypatch.setattr(board, "status_of", self)

    def __call__(self, run: Run) -> list[StageStatus]:
        self.times += 1
        self.begun.set()
        assert self.may_end.wait(30)
        self.now += self.takes_s
        return []

    def clock(self) -> float:
        return self.now


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(monkeypatch)


@pytest.fixture
def shown(store: Store, reading: Reading) -> Board:
    return Board(store, Settings.from_env(), reading.clock)


@pytest.mark.parametrize(("takes_s", "good_for_s"), [(0.0, 5.0), (30.0, 300.0)], ids=["quickly", "slowly"])
def test_what_is_read_is_good_for_a_while_and_longer_where_reading_takes_long(
    shown: Board, reading: Reading, takes_s: float, good_for_s: float
) -> None:
    reading.takes_s = takes_s
    shown.run("tiny")
    reading.now += good_for_s - 1
    shown.run("tiny")
    assert reading.times == 1
    reading.now += 2
    shown.run("tiny")
    assert reading.times == 2


def test_while_one_reads_the_others_see_what_was_read_before(shown: Board, reading: Reading) -> None:
    before = shown.run("tiny")
    reading.now += 100
    reading.may_end.clear()
    reading.begun.clear()
    thread = threading.Thread(target=shown.run, args=("tiny",))
    thread.start()
    assert reading.begun.wait(30)
    assert shown.run("tiny") is before
    reading.may_end.set()
    thread.join()
    assert shown.run("tiny") is not before
    assert reading.times == 2
