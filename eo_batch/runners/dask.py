"""Runs jobs on a Dask cluster, wherever it is: one task for each index.

Each worker gets one index at a time, pinned to it, and the next when that one has ended. So there is no queue in the
scheduler that could be lost with it, whatever the size of a job; memory and processor time that a call measures are its
own; and when a worker dies, there is one index that it ran. A cluster of other people's workers with several threads is
used with one of them.

| lost | what happens |
|---|---|
| a worker dies | its index has used up a try, and runs again on another |
| a worker is taken away: scaled down, drained, its pod deleted | its index runs again, and has used up none |
| the scheduler | waits for it to come back, then runs again what was in flight |
| this process | clusters that it started end with it; calls on others' clusters end by themselves |
"""

import time
from collections import Counter, deque
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from eo_batch.core.errors import EoBatchError
from eo_batch.runners.base import Job, OnEvent, Outcome
from eo_batch.runners.book import DIED, Book, Fault
from eo_batch.runners.dask_link import Came, Ended, Gone, Link, SchedulerLost, Vanished, quiet
from eo_batch.runners.dask_places import Place

if TYPE_CHECKING:
    from distributed import Client

_LOOK_S = 5.0
"""Seconds between looks at the whole cluster, for what no event told: one answer of about 1 kB for each worker."""
_CONNECT_S = 5.0
"""Seconds that one attempt to reach a scheduler may take."""
_INTERRUPTIONS = 30
"""An index that is interrupted more often than this, each time by chance, has something to do with it."""
_LOSSES = 5
"""Schedulers that may be lost in a row without one index done."""
_TAKEN = "its Dask worker was taken away"
_LOST = "the Dask scheduler was lost"


@dataclass(frozen=True)
class DaskRunner:
    """The runner `dask`. Used as a context it ends the cluster, if it started it."""

    place: Place
    name: str = "dask"
    scheduler_wait_s: float = 300.0
    """How long a scheduler may take to answer, at first and after it was lost, until the job is given up, seconds."""
    tell_s: float = 60.0
    """A person is told what the job waits for after this time without any worker or scheduler, seconds."""
    worker_wait_s: float = 3600.0
    """A job is given up after this time without any worker, seconds."""

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """See `Runner.run`. Raises EoBatchError if no scheduler or no worker comes in time.

        Ctrl-C ends a cluster that was started here. On another it ends what has not begun; calls that run go on until
        they end by themselves, which the last event says.
        """
        book = Book(job, on_event)
        with quiet():
            self._run(job, book, deque(job.indices))
        return book.outcome()

    def _run(self, job: Job, book: Book, todo: deque[int]) -> None:
        interruptions: Counter[int] = Counter()
        lost_in_a_row = 0
        while todo:
            shift = _Shift(self, book, todo, interruptions, self._connect(job, book))
            try:
                shift.work()
            except SchedulerLost as error:
                lost_in_a_row = 1 if shift.settled else lost_in_a_row + 1
                if lost_in_a_row > _LOSSES:
                    raise EoBatchError(
                        f"the Dask scheduler was lost {lost_in_a_row} times in a row without one index done ({error}); "
                        "see its log"
                    ) from error
                shift.give_back(_LOST)
            except BaseException:
                self._stop(shift, book)
                raise
            finally:
                shift.link.close()

    def client(self) -> "Client":
        """A Dask client of the cluster, the default one until it is closed: what is lazy, such as the Dataset that
        `eo_batch.open_cube` gives, computes on the workers. Raises EoBatchError, OSError if no scheduler answers.
        """
        from distributed import Client

        return Client(self.place.address(None))

    def close(self) -> None:
        """End the cluster, if it was started here. A further job would start another."""
        self.place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, job: Job, book: Book) -> Link:
        began, told = time.monotonic(), False
        while True:
            address = self.place.address(job)
            try:
                return Link(address, job, connect_s=min(_CONNECT_S, self.tell_s, self.scheduler_wait_s))
            except OSError as error:
                waited_s = time.monotonic() - began
                if waited_s > self.scheduler_wait_s:
                    raise EoBatchError(
                        f"no Dask scheduler has answered at {address} for {waited_s:.0f} s ({error}); "
                        "what is done stays done: run again when it is up"
                    ) from error
                if waited_s > self.tell_s and not told:
                    told = True
                    book.wait(f"no Dask scheduler answers at {address}; waiting up to {self.scheduler_wait_s:.0f} s")
                time.sleep(min(1.0, self.scheduler_wait_s))

    def _stop(self, shift: "_Shift", book: Book) -> None:
        running = len(shift.flying)
        shift.link.close()
        if not self.place.close() and running:
            what = "1 call still runs" if running == 1 else f"{running} calls still run"
            book.wait(
                f"stopped; {what} on the cluster's workers, and can't be stopped there before the end of an index"
            )


class _Shift:
    """Works with one scheduler until everything is settled, or the scheduler is lost."""

    def __init__(
        self, runner: DaskRunner, book: Book, todo: deque[int], interruptions: Counter[int], link: Link
    ) -> None:
        self.link = link
        self.flying: dict[str, tuple[str, int]] = {}
        """Worker and index of each try, by key."""
        self.settled = False
        """Whether the end of any try was noted."""
        self._runner, self._book, self._todo, self._interruptions = runner, book, todo, interruptions
        self._workers: set[str] = set()
        self._wanted = -1
        self._look_at = 0.0
        self._deserted_since: float | None = None
        self._told = False

    def work(self) -> None:
        """Raises SchedulerLost; EoBatchError if no worker comes."""
        while self._todo or self.flying:
            if time.monotonic() >= self._look_at:
                self._look()
            self._hand_out()
            self._mind_the_desert()
            match self.link.next(within_s=1.0):
                case Ended(key, fault):
                    self._land(key, fault)
                case Vanished(key, died):
                    self._look()  # has the scheduler vanished with it?
                    self._lose(key, died)
                case Came(worker):
                    self._workers.add(worker)
                case Gone(worker, died):
                    self._workers.discard(worker)
                    for key in self._keys_on(worker):
                        self._lose(key, died and not self._taken(worker))
                case None:
                    pass

    def give_back(self, why: str) -> None:
        """Put what is in flight back to what is to be done; it has cost no try."""
        for key in list(self.flying):
            _, index = self.flying.pop(key)
            self._book.again(index, why)
            self._todo.appendleft(index)

    def _look(self) -> None:
        """See what events may not have told, and tell the place how many workers could be busy."""
        seen = self.link.workers()
        self._look_at = time.monotonic() + _LOOK_S
        if seen is not None:
            self._workers = {worker for worker, takes_work in seen.items() if takes_work}
            for key, (worker, _) in list(self.flying.items()):
                if worker not in seen:
                    self._lose(key, died=not self._taken(worker))
        wanted = len(self._todo) + len(self.flying)
        if wanted != self._wanted:
            self._wanted = wanted
            self._runner.place.want(wanted)

    def _hand_out(self) -> None:
        if not self._todo:
            return
        busy = {worker for worker, _ in self.flying.values()}
        for worker in sorted(self._workers - busy)[: len(self._todo)]:
            index = self._todo.popleft()
            self.flying[self.link.submit(worker, index)] = worker, index

    def _land(self, key: str, fault: Fault | None) -> None:
        """Note the end of a try, unless it was given up before."""
        self.link.forget(key)
        _, index = self.flying.pop(key, (None, None))
        if index is None:
            return
        self.settled = True
        if self._book.settle(index, fault):
            self._todo.append(index)

    def _lose(self, key: str, died: bool) -> None:
        """A try ends without an end of its own."""
        if key not in self.flying:
            return
        _, index = self.flying[key]
        self._interruptions[index] += 1
        if died or self._interruptions[index] > _INTERRUPTIONS:
            self._land(key, Fault(DIED, retryable=True))
            return
        self.link.forget(key)
        del self.flying[key]
        self._book.again(index, _TAKEN)
        self._todo.append(index)

    def _keys_on(self, worker: str) -> list[str]:
        return [key for key, (where, _) in self.flying.items() if where == worker]

    def _taken(self, worker: str) -> bool:
        """Whether a worker is gone for reasons that have nothing to do with what it ran."""
        return self.link.told_to_go(worker) or self._runner.place.disrupted(worker)

    def _mind_the_desert(self) -> None:
        """A job without any worker tells so after a while, and ends at last."""
        if self._workers or self.flying:
            self._deserted_since, self._told = None, False
            return
        now = time.monotonic()
        self._deserted_since = self._deserted_since or now
        waited_s = now - self._deserted_since
        why = f"no Dask worker has come for {waited_s:.0f} s; {self._runner.place.waiting()}".rstrip("; ")
        if waited_s > self._runner.worker_wait_s:
            raise EoBatchError(f"{why}; what is done stays done: run again when there are workers")
        if waited_s > self._runner.tell_s and not self._told:
            self._told = True
            self._book.wait(why)
