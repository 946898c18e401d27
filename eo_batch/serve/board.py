"""What there is to say of the runs of a store.

Counting what is done reads every receipt of a run, which takes seconds for a large one: it is done anew only when that
was a while ago, by one reader at a time.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from eo_batch.core import layout
from eo_batch.core.errors import EoBatchError, StoreError, UsageError
from eo_batch.entry.run import Run, open_run, run_names
from eo_batch.entry.status import StageStatus, status_of
from eo_batch.io.store import Store
from eo_batch.settings import Settings

_FRESH_S = 5.0
"""What was read is not read again for this time."""
_SHARE = 10.0
"""Nor for this many times what reading it took."""
_RUNS_AT_ONCE = 8


@dataclass(frozen=True)
class RunTold:
    """What there is to say of one run."""

    name: str
    stages: tuple[StageStatus, ...] = ()
    has_report: bool = False
    """Whether the report of the spec as it was last submitted is there."""
    problem: str = ""
    """Why there is nothing to say: this version can't read what is there."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When it was read."""

    @property
    def state(self) -> str:
        """In a word or two: unreadable, given up, done, or the first stage that is not."""
        if self.problem:
            return "unreadable"
        if any(note.failure is not None for stage in self.stages for note in stage.notes):
            return "given up"
        left = [stage for stage in self.stages if stage.done < stage.shards]
        return f"{left[0].stage} {left[0].done} of {left[0].shards}" if left else "done"


@dataclass
class Board:
    """The runs of a store. Every method raises StoreError where the store does not answer."""

    store: Store
    settings: Settings
    clock: Callable[[], float] = time.monotonic
    _told: dict[str, tuple[RunTold, float]] = field(default_factory=dict)
    """What was last read, and until when it is good enough."""
    _locks: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def runs(self) -> list[RunTold]:
        """All runs, by name."""
        names = run_names(self.store)
        with ThreadPoolExecutor(_RUNS_AT_ONCE) as pool:
            return list(pool.map(self.run, names))

    def run(self, name: str) -> RunTold:
        """One run. Raises UsageError if there is none of that name."""
        told, until = self._told.get(name, (None, 0.0))
        lock = self._locks[name]
        if told is not None and (self.clock() < until or lock.locked()):
            return told
        with lock:
            told, until = self._told.get(name, (None, 0.0))
            if told is None or self.clock() >= until:
                begun = self.clock()
                told = self._read(name)
                took_s = self.clock() - begun
                self._told[name] = told, self.clock() + max(_FRESH_S, _SHARE * took_s)
        return told

    def report(self, name: str) -> bytes | None:
        """The page of a run's report; None where there is none yet. Raises UsageError if there is no such run."""
        run = open_run(self.store, name, self.settings)
        key = _report_key(run)
        return self.store.get(key) if self.store.exists(key) else None

    def _read(self, name: str) -> RunTold:
        if not self.store.exists(f"{name}/{layout.RUN_SPEC}"):
            raise UsageError(f"{self.store.url} has no run called {name}")
        try:
            run = open_run(self.store, name, self.settings)
            return RunTold(name, tuple(status_of(run)), self.store.exists(_report_key(run)))
        except StoreError:
            raise
        except EoBatchError as error:
            return RunTold(name, problem=str(error))


def _report_key(run: Run) -> str:
    return f"{run.identity.prefix('report')}/{layout.REPORT_PAGE}"
