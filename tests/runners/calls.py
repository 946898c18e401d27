"""What runners run in the tests: calls that end well, fail, die, or never end.

They live at module level, since runners with processes send them by name, and need nothing but eo_batch: pods get this
file, and have no pytest. They keep their notes in a folder or a store: workers share no memory with the test.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from eo_batch.core.errors import DataError, ShardFailed, StoreError
from eo_batch.io.store import Store, parse_store

BIG = 50_000_000
"""Characters of a message that nobody wants to read."""


@dataclass(frozen=True)
class Shelf:
    """A folder of a store, for those who share no disk."""

    url: str
    """As each process reaches it by its own environment."""
    prefix: str

    @property
    def store(self) -> Store:
        return parse_store(self.url)

    def write(self, name: str, text: str) -> None:
        self.store.put(f"{self.prefix}/{name}", text.encode())

    def read(self, name: str) -> str:
        return self.store.get(f"{self.prefix}/{name}").decode()

    def names(self) -> list[str]:
        return [key.removeprefix(f"{self.prefix}/") for key in self.store.list(f"{self.prefix}/")]


@dataclass(frozen=True)
class Noting:
    """Base of the calls: counts how often each index was begun."""

    folder: Path | Shelf

    def begin(self, index: int) -> int:
        """Note one more beginning; returns how many there were before."""
        before = self.begun(index)
        name = f"{index}.{before}"
        if isinstance(self.folder, Path):
            (self.folder / name).write_text(str(os.getpid()))
        else:
            self.folder.write(name, str(os.getpid()))
        return before

    def begun(self, index: int) -> int:
        return sum(name.startswith(f"{index}.") for name in self._names())

    def pids(self) -> set[int]:
        """Processes of this machine that began something."""
        assert isinstance(self.folder, Path)
        return {int(path.read_text()) for path in self.folder.iterdir()}

    def _names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if isinstance(self.folder, Path) else self.folder.names()


class Fine(Noting):
    def __call__(self, index: int) -> object:
        self.begin(index)
        return lambda: index  # what a call returns need not pickle


class Held(Noting):
    """Goes on when somebody lets it go."""

    GO = "go"

    def __call__(self, index: int) -> None:
        self.begin(index)
        while self.GO not in self._names():
            time.sleep(0.2)


class Failing(Noting):
    """Index 1 fails for good, 2 for ever though it may pass, 3 passes at the third try, 5 by a fault of our own."""

    def __call__(self, index: int) -> None:
        before = self.begin(index)
        match index:
            case 1:
                raise DataError("chips of 1 are not usable")
            case 2:
                raise StoreError("the store of 2 is down")
            case 3 if before < 2:
                failure = ShardFailed("a file of 3 did not answer")
                failure.retryable = True
                raise failure
            case 5:
                raise ZeroDivisionError("5 / 0")


class Unpicklable(Exception):
    """Neither pickles nor unpickles."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = (lambda: second)()
        self.hook = lambda: None


class UnpicklableStore(StoreError):
    """As above, in the tree of errors."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.hook = lambda: second


class Odd(Noting):
    """Exceptions that are hard to carry."""

    def __call__(self, index: int) -> None:
        self.begin(index)
        match index:
            case 0:
                raise Unpicklable("odd", "one")
            case 1:
                raise UnpicklableStore("odd store", "two")
            case 2:
                raise ValueError("x" * BIG)
            case 3:
                raise DataError("line one\nline two\n" + "y" * BIG)
            case 4:
                raise SystemExit(3)
            case 5:
                raise MemoryError


class Dying(Noting):
    """Index 2 kills its worker at its first try, 4 whenever it runs."""

    how = "kill"

    def __call__(self, index: int) -> None:
        before = self.begin(index)
        if (index == 2 and before == 0) or index == 4:
            time.sleep(0.2)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(7)
        time.sleep(0.05)


class Exiting(Dying):
    how = "exit"


class Endless(Noting):
    """Index 0 interrupts the test's process; the others would run for ever."""

    def __call__(self, index: int) -> None:
        self.begin(index)
        if index == 0:
            deadline_s = time.monotonic() + 20
            while self.begun(1) == 0 and multiprocessing.parent_process() and time.monotonic() < deadline_s:
                time.sleep(0.02)
            parent = multiprocessing.parent_process()
            os.kill(parent.pid if parent is not None and parent.pid else os.getpid(), signal.SIGINT)
        time.sleep(600)


class Sleeping(Noting):
    """Runs for ever."""

    def __call__(self, index: int) -> None:
        self.begin(index)
        time.sleep(600)


class Slow(Noting):
    """Takes a while."""

    def __call__(self, index: int) -> None:
        self.begin(index)
        time.sleep(8)


class Greedy(Noting):
    """Index 0 takes all memory that there is."""

    def __call__(self, index: int) -> None:
        self.begin(index)
        taken = []
        while index == 0:
            taken.append(b"x" * 10_000_000)
