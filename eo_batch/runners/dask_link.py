"""A connection with one Dask scheduler, for as long as that scheduler lives."""

from __future__ import annotations

import concurrent.futures
import logging
import pickle
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from eo_batch.runners.base import Job
from eo_batch.runners.book import Fault, guarded, one_line

if TYPE_CHECKING:
    from distributed import Client, Future

_RESULT_S = 10
"""A result is a line of text; a worker that has not handed it over by then is gone."""
_PATIENCE = 4
"""Times of its own time-out after which a client that is being made counts as lost: it waits several times."""
_SILENCE_S = 30
"""A scheduler that lives answers within this time, however busy it is."""


class SchedulerLost(Exception):
    """The scheduler is gone, with all that it knew; or another one answers in its place."""


@dataclass(frozen=True)
class Ended:
    """A try has come to its end."""

    key: str
    fault: Fault | None


@dataclass(frozen=True)
class Vanished:
    """The result of a try can't be had any more."""

    key: str
    died: bool
    """Whether Dask says that the try killed its worker; else somebody cancelled it, or the result went with its worker.
    """


@dataclass(frozen=True)
class Came:
    """A worker has come."""

    worker: str


@dataclass(frozen=True)
class Gone:
    """A worker is gone."""

    worker: str
    died: bool
    """False if it was told to go: retired, or stopped by a signal that it could obey."""


Message = Ended | Vanished | Came | Gone


class Link:
    """Sends indices to workers that it names, and hears of their ends and of workers that come and go.

    An index is pinned to its worker, so that whose death it was is known, and Dask starts nothing again on its own.
    """

    def __init__(self, address: str, job: Job, connect_s: float) -> None:
        """Connect. Raises OSError (which time-outs are) if no scheduler answers in time."""
        from distributed.versions import VersionMismatchWarning

        self._payload = pickle.dumps(job.call)
        self._name = job.name
        self._token = uuid.uuid4().hex[:8]
        self._count = 0
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._futures: dict[str, Future[Any]] = {}
        with warnings.catch_warnings():
            # Even of Python's patch releases; what is sent is but a number, and bytes that any Python 3 reads.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            self._client = connected(address, connect_s, set_as_default=False, name="eo-batch")
        try:
            self._scheduler = str(self._identity()["id"])
            self._client.subscribe_topic("all", self._hear)
        except BaseException:
            self.close()
            raise
        self._heard = time.monotonic()

    def submit(self, worker: str, index: int) -> str:
        """Start an index on a worker; returns the key under which its end will be told."""
        self._count += 1
        key = f"{self._name}-{self._token}-{index}-{self._count}"
        future = self._client.submit(
            run_index, self._payload, index, key=key, workers=[worker], allow_other_workers=False, pure=False
        )
        self._futures[key] = future
        future.add_done_callback(self._end)
        return key

    def forget(self, key: str) -> None:
        """Let the scheduler forget a try, whatever has become of it."""
        future = self._futures.pop(key, None)
        if future is not None:
            future.release()

    def next(self, within_s: float) -> Message | None:
        """What happened next; None if nothing did within this time."""
        try:
            return self._inbox.get(timeout=within_s)
        except Empty:
            return None

    def workers(self) -> dict[str, bool] | None:
        """Addresses of all workers, and whether each takes work; None if the scheduler is busy.

        Raises SchedulerLost.
        """
        self.check()
        try:
            identity = self._identity()
        except OSError as error:
            if time.monotonic() - self._heard > _SILENCE_S:
                raise SchedulerLost("it does not answer") from error
            return None
        if identity["id"] != self._scheduler:
            raise SchedulerLost("another one answers in its place")
        self._heard = time.monotonic()
        return {address: worker["status"] == "running" for address, worker in identity["workers"].items()}

    def check(self) -> None:
        """Raises SchedulerLost if the connection is broken."""
        if self._client.status != "running":
            raise SchedulerLost("the connection is broken")

    def told_to_go(self, worker: str) -> bool:
        """Whether a worker that is gone said so before: it obeyed a signal, as when its node is drained."""
        try:
            scheduler = self._client.scheduler
            if scheduler is None:
                return False
            events = self._client.sync(scheduler.events, topic=worker, callback_timeout=_RESULT_S)
        except OSError:
            return False
        return any(event.get("action") == "closing-worker" for _, event in events)

    def close(self) -> None:
        """Give up what is still asked for, and the connection. Calls that run go on in their workers."""
        for key in list(self._futures):
            self.forget(key)
        self._client.close(timeout=_RESULT_S)

    def _identity(self) -> dict[str, Any]:
        scheduler = self._client.scheduler
        if scheduler is None:
            raise OSError("the client is closed")
        answer: dict[str, Any] = self._client.sync(scheduler.identity, n_workers=-1, callback_timeout=_RESULT_S)
        return answer

    def _hear(self, event: tuple[float, Any]) -> None:
        """Called in Dask's thread for what the scheduler tells everybody."""
        match event[1]:
            case {"action": "add-worker", "worker": str(worker)}:
                self._inbox.put(Came(worker))
            case {"action": "remove-worker", "worker": str(worker), "expected": expected}:
                self._inbox.put(Gone(worker, died=not expected))

    def _end(self, future: Future[Any]) -> None:
        """Called in another thread of Dask's when a try has ended, in whatever way."""
        self._inbox.put(_read(future))


def connected(address: str, within_s: float, **how: Any) -> Client:
    """A client of the scheduler at an address; `how` is as for `distributed.Client`. Raises OSError if there is none.

    A node that is lost leaves connections on which nobody ever says anything again. Distributed's own time-out does not
    hold for all that it does on one, so that its client may never come to an end.
    """
    from distributed import Client

    made: concurrent.futures.Future[Client] = concurrent.futures.Future()

    def make() -> None:
        try:
            made.set_result(Client(address, timeout=within_s, **how))
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=make, name=f"client of {address}", daemon=True).start()
    try:
        return made.result(_PATIENCE * within_s)
    except TimeoutError:
        if made.done():
            raise
        made.add_done_callback(_close_late)
        raise TimeoutError(f"{address} takes connections, and does not answer") from None


def _close_late(made: concurrent.futures.Future[Client]) -> None:
    if made.exception() is None:
        made.result().close(timeout=_RESULT_S)


def _read(future: Future[Any]) -> Message:
    from distributed import KilledWorker

    key = str(future.key)
    try:
        return Ended(key, future.result(timeout=_RESULT_S))
    except KilledWorker:
        return Vanished(key, died=True)
    except (CancelledError, TimeoutError):
        return Vanished(key, died=False)
    except Exception as error:
        # `guarded` lets nothing out: this is Dask's own, as when the worker has no eo_batch.
        message = one_line(f"a Dask worker could not run it: {type(error).__name__}: {error}")
        return Ended(key, Fault(message, retryable=False, trace=traceback.format_exc()))


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing from Dask's loggers: what is lost, and what comes of it, is told by events and errors."""
    import distributed  # sets levels of its own when it is imported first

    loggers = [logging.getLogger(name) for name in (distributed.__name__, distributed.client.__name__)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run_index(payload: bytes, index: int) -> Fault | None:
    """What a worker runs."""
    return guarded(pickle.loads(payload), index)
