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
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from eo_batch.core.errors import EoBatchError
from eo_batch.runners.base import Job, OnEvent, Outcome
from eo_batch.runners.book import Book, one_line
from eo_batch.runners.dask_link import Link, SchedulerLost, connected, quiet
from eo_batch.runners.dask_places import Place
from eo_batch.runners.dask_shift import Patience, Queue, Shift

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

_CONNECT_S = 5.0
"""Seconds that one attempt to reach a scheduler may take."""
_LOSSES = 5
"""Schedulers that may be lost in a row without one index done."""
_LOST = "the Dask scheduler was lost"


@dataclass(frozen=True)
class DaskRunner:
    """The runner `dask`. Used as a context it ends the cluster, if it started it."""

    place: Place
    patience: Patience = field(default_factory=Patience)
    name: str = "dask"

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """See `Runner.run`. Raises EoBatchError if no scheduler or no worker comes in time.

        Ctrl-C ends a cluster that was started here. On another it ends what has not begun; calls that run go on until
        they end by themselves, which the last event says.
        """
        book, queue = Book(job, on_event), Queue(job.indices, self.patience.retry_s)
        lost_in_a_row = 0
        with quiet():
            while queue:
                link = self._reach(job, lambda address: Link(address, job, self._connect_s), book.wait)
                shift = Shift(link, self.place, book, queue, self.patience)
                try:
                    shift.work()
                except SchedulerLost as error:
                    lost_in_a_row = 1 if shift.settled else lost_in_a_row + 1
                    if lost_in_a_row > _LOSSES:
                        raise EoBatchError(
                            f"the Dask scheduler was lost {lost_in_a_row} times in a row without one index done "
                            f"({error}); see its log"
                        ) from error
                    shift.give_back(_LOST)
                except BaseException as error:
                    link.close()
                    self._stop(len(shift.flying), book, error)
                    raise
                finally:
                    link.close()
        return book.outcome()

    def client(self) -> "Client":
        """A Dask client of the cluster, the default one until it is closed: what is lazy, such as the Dataset that
        `eo_batch.open_cube` gives, computes on the workers. Starts the cluster if it does not run. Raises EoBatchError.
        """
        return self._reach(None, lambda address: connected(address, self._connect_s), lambda waiting: None)

    def close(self) -> None:
        """End the cluster, if it was started here. A further job would start another."""
        self.place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _connect_s(self) -> float:
        return min(_CONNECT_S, self.patience.tell_s, self.patience.scheduler_s)

    def _reach(self, job: Job | None, connect: Callable[[str], T], tell: Callable[[str], None]) -> T:
        """Connect with the scheduler for a job, however often that takes. Raises EoBatchError if it takes too long."""
        began, told, patience = time.monotonic(), False, self.patience
        while True:
            try:
                return connect(self.place.address(job))
            except OSError as error:
                waited_s = time.monotonic() - began
                if waited_s > patience.scheduler_s:
                    raise EoBatchError(
                        f"no Dask scheduler has answered for {waited_s:.0f} s: {one_line(str(error))}; "
                        "what is done stays done: run again when it is up"
                    ) from error
                if waited_s > patience.tell_s and not told:
                    told = True
                    tell(f"no Dask scheduler answers yet: {one_line(str(error))}")
            time.sleep(min(1.0, patience.scheduler_s))

    def _stop(self, running: int, book: Book, error: BaseException) -> None:
        try:
            stopped = self.place.close()
        except EoBatchError as left:
            error.add_note(str(left))  # why the job ended matters more
            return
        if not stopped and running:
            what = "1 call still runs" if running == 1 else f"{running} calls still run"
            book.wait(
                f"stopped; {what} on the cluster's workers, and can't be stopped there before the end of an index"
            )
