"""Work with one Dask scheduler: hand indices to idle workers, one each, and settle what becomes of them."""

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from eo_batch.core.errors import EoBatchError
from eo_batch.runners.book import DIED, Book, Fault
from eo_batch.runners.dask_link import Came, Ended, Gone, Link, Vanished
from eo_batch.runners.dask_places import Place

_LOOK_S = 5.0
"""Seconds between looks at the whole cluster, for what no event told: one answer of about 1 kB for each worker."""
_INTERRUPTIONS = 30
"""An index that is interrupted more often than this, each time by chance, has something to do with it."""
_TAKEN = "its Dask worker was taken away"


@dataclass(frozen=True)
class Patience:
    """How long is waited for what, seconds."""

    scheduler_s: float = 300.0
    """A job is given up if no scheduler answers for this time, at first or after one was lost."""
    worker_s: float = 3600.0
    """A job is given up if there is no worker for this time."""
    tell_s: float = 60.0
    """A person is told what is waited for after this time."""
    retry_s: float = 10.0
    """Before an index whose failure may pass is tried again, and twice as long each further time: a store that restarts
    must not cost all its tries."""


class Queue:
    """Indices that have no worker, across the schedulers of a job."""

    def __init__(self, indices: Iterable[int], retry_s: float) -> None:
        self._ready, self._retry_s = deque(indices), retry_s
        self._paused: dict[int, float] = {}
        """When an index is ready again, by the monotonic clock."""
        self._failures: Counter[int] = Counter()
        self._interruptions: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._ready) + len(self._paused)

    def take(self) -> int | None:
        """The next index that is ready."""
        now = time.monotonic()
        for index in [index for index, ready_at in self._paused.items() if ready_at <= now]:
            del self._paused[index]
            self._ready.append(index)
        return self._ready.popleft() if self._ready else None

    def add_interrupted(self, index: int) -> None:
        """An index is to run again, before those that have not run: they would only end later for it."""
        self._ready.appendleft(index)

    def add_deadly(self, index: int) -> None:
        """An index that has killed its worker is to run again, after the others that are ready."""
        self._ready.append(index)

    def add_failed(self, index: int) -> None:
        """An index has failed and is to run again, after a pause."""
        self._paused[index] = time.monotonic() + self._retry_s * 2 ** self._failures[index]
        self._failures[index] += 1

    def interrupted_by_chance(self, index: int) -> bool:
        """Note one more interruption; False if there were too many."""
        self._interruptions[index] += 1
        return self._interruptions[index] <= _INTERRUPTIONS


class Shift:
    """Works until everything is settled, or the scheduler is lost."""

    def __init__(self, link: Link, place: Place, book: Book, queue: Queue, patience: Patience) -> None:
        self.flying: dict[str, tuple[str, int]] = {}
        """Worker and index of each try, by key."""
        self.settled = False
        """Whether the end of any try was noted."""
        self._link, self._place, self._book, self._queue, self._patience = link, place, book, queue, patience
        self._workers: set[str] = set()
        self._look_at = 0.0
        self._deserted_since: float | None = None
        self._ask_at = 0.0
        self._told = ""

    def work(self) -> None:
        """Raises SchedulerLost; EoBatchError if no worker comes."""
        while self._queue or self.flying:
            if time.monotonic() >= self._look_at:
                self._look()
            self._hand_out()
            self._mind_the_desert()
            match self._link.next(within_s=0.5):
                case Ended(key, fault):
                    self._land(key, fault)
                case Vanished(key, died):
                    self._look()  # has the scheduler vanished with it?
                    self._lose(key, died)
                case Came(worker):
                    self._workers.add(worker)
                case Gone(worker, died):
                    self._workers.discard(worker)
                    for key in [key for key, (where, _) in self.flying.items() if where == worker]:
                        self._lose(key, died and not self._taken(worker))
                case None:
                    pass

    def give_back(self, why: str) -> None:
        """What is in flight is to run again; it has cost no try."""
        for _, index in self.flying.values():
            self._book.again(index, why)
            self._queue.add_interrupted(index)
        self.flying.clear()

    def _look(self) -> None:
        """See what events may not have told, and tell the place how many workers could be busy."""
        seen = self._link.workers()
        self._look_at = time.monotonic() + _LOOK_S
        if seen is not None:
            self._workers = {worker for worker, takes_work in seen.items() if takes_work}
            for key, (worker, _) in list(self.flying.items()):
                if worker not in seen:
                    self._lose(key, died=not self._taken(worker))
        self._place.want(len(self._queue) + len(self.flying))

    def _hand_out(self) -> None:
        if not self._queue:
            return
        busy = {worker for worker, _ in self.flying.values()}
        for worker in sorted(self._workers - busy):
            index = self._queue.take()
            if index is None:
                return
            self.flying[self._link.submit(worker, index)] = worker, index

    def _land(self, key: str, fault: Fault | None, deadly: bool = False) -> None:
        """Note the end of a try, unless it was given up before."""
        self._link.forget(key)
        flight = self.flying.pop(key, None)
        if flight is None:
            return
        self.settled = True
        _, index = flight
        if self._book.settle(index, fault):
            if deadly:
                self._queue.add_deadly(index)
            else:
                self._queue.add_failed(index)

    def _lose(self, key: str, died: bool) -> None:
        """A try ends without an end of its own, unless it was given up before."""
        if key not in self.flying:
            return
        _, index = self.flying[key]
        if died or not self._queue.interrupted_by_chance(index):
            self._land(key, Fault(DIED, retryable=True), deadly=True)
            return
        self._link.forget(key)
        del self.flying[key]
        self._book.again(index, _TAKEN)
        self._queue.add_interrupted(index)

    def _taken(self, worker: str) -> bool:
        """Whether a worker is gone for reasons that have nothing to do with what it ran."""
        return self._link.told_to_go(worker) or self._place.disrupted(worker)

    def _mind_the_desert(self) -> None:
        """A job without any worker asks why, tells so after a while, and ends at last."""
        if self._workers or self.flying:
            self._deserted_since = None
            return
        now, patience = time.monotonic(), self._patience
        if self._deserted_since is None:
            self._deserted_since, self._told, self._ask_at = now, "", now + patience.tell_s
        waited_s = now - self._deserted_since
        if now < self._ask_at and waited_s < patience.worker_s:
            return
        self._ask_at = now + patience.tell_s
        why = self._place.waiting()
        if waited_s >= patience.worker_s:
            raise EoBatchError(
                f"no Dask worker has come for {waited_s:.0f} s: {why}; what is done stays done: run again when there "
                "are workers"
            )
        if why != self._told:
            self._told = why
            self._book.wait(f"no Dask worker has come for {waited_s:.0f} s: {why}")
