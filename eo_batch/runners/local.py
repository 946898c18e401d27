"""Runs jobs on this machine: one after the other in this process, or in a pool of worker processes."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for

from eo_batch.core.errors import EoBatchError
from eo_batch.runners.base import Call, Event, Failure, Job, OnEvent, Outcome


@dataclass(frozen=True)
class LocalRunner:
    """The runner `local`."""

    workers: int = 0
    """Worker processes; 0 runs everything in this process, as does a job of one index."""
    name: str = "local"

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """See `Runner.run`."""
        book = _Book(job, on_event)
        if self.workers == 0 or len(job.indices) == 1:
            _serial(job, book)
        else:
            _pooled(job, book, min(self.workers, max(len(job.indices), 1)))
        return Outcome(frozenset(book.done), book.failed)


@dataclass(frozen=True)
class _Error:
    """What a call raised, in a form that always pickles."""

    message: str
    retryable: bool
    trace: str


class _Book:
    """Keeps attempts and outcomes of a job's indices."""

    def __init__(self, job: Job, on_event: OnEvent) -> None:
        self._job, self._on_event = job, on_event
        self._attempts = dict.fromkeys(job.indices, 0)
        self.done: set[int] = set()
        self.failed: dict[int, Failure] = {}

    def settle(self, index: int, error: _Error | None) -> bool:
        """Note the end of one try; True if the index is to be tried again."""
        if error is None:
            self.done.add(index)
            self._on_event(Event(index, "done"))
            return False
        self._attempts[index] += 1
        if error.retryable and self._attempts[index] < self._job.attempts:
            self._on_event(Event(index, "retry", error.message))
            return True
        self.failed[index] = Failure(error.message, self._attempts[index], error.trace)
        self._on_event(Event(index, "failed", error.message))
        return False


def _serial(job: Job, book: _Book) -> None:
    queue = deque(job.indices)
    while queue:
        index = queue.popleft()
        if book.settle(index, _guarded(job.call, index)):
            queue.append(index)


def _pooled(job: Job, book: _Book, workers: int) -> None:
    queue = deque(job.indices)
    while queue:
        queue = deque(_one_pool(job, book, workers, queue))
        # A worker that dies breaks its whole pool, and nobody can tell which index it ran. Each of those in flight
        # costs one attempt; after a break they run in a pool of their own size, one worker each.


def _one_pool(job: Job, book: _Book, workers: int, queue: deque[int]) -> list[int]:
    """Run a queue in one pool; returns what is left after a worker died."""
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker, initargs=(os.getpid(),)
    )
    flying: dict[Future[_Error | None], int] = {}
    lost: list[int] = []
    try:
        while (queue and not lost) or flying:
            while queue and not lost and len(flying) < workers:
                # No index waits inside the pool, so a dying worker costs only what really runs.
                index = queue.popleft()
                try:
                    flying[pool.submit(_guarded, job.call, index)] = index
                except BrokenProcessPool:
                    lost.append(index)
            ended, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in ended:
                index = flying.pop(future)
                try:
                    error = future.result()
                except BrokenProcessPool:
                    lost.append(index)
                    continue
                if book.settle(index, error):
                    queue.append(index)
    except BaseException:
        _kill(pool)
        raise
    pool.shutdown(wait=True, cancel_futures=True)
    died = _Error("the worker process died (out of memory, or killed)", True, "")
    return [*queue, *(index for index in lost if book.settle(index, died))]


def _guarded(call: Call, index: int) -> _Error | None:
    try:
        call(index)
    except EoBatchError as error:
        return _Error(str(error), error.retryable, "")
    except Exception as error:
        return _Error(f"{type(error).__name__}: {error}", False, traceback.format_exc())
    return None


def _begin_worker(parent: int) -> None:
    """Ctrl-C reaches the whole process group: the parent decides; and no worker outlives its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = multiprocessing.parent_process()
    assert process is not None and process.pid == parent  # the pool's initializer runs in its workers only
    threading.Thread(target=_end_with, args=(process.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
