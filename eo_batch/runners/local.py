"""Runs jobs on this machine: one after the other in this process, or in a pool of worker processes."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from multiprocessing.resource_tracker import ensure_running

from eo_batch.core.errors import EoBatchError
from eo_batch.runners.base import Call, Event, Failure, Job, OnEvent, Outcome

_DIED = "the worker process died (out of memory, or killed)"
_MESSAGE_CHARS = 2000
_TRACE_CHARS = 20_000


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
    trace: str = ""
    exit_code: int = 1


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
            self.again(index, error.message)
            return True
        self.failed[index] = Failure(error.message, self._attempts[index], error.trace, error.exit_code)
        self._on_event(Event(index, "failed", error.message))
        return False

    def again(self, index: int, why: str) -> None:
        """Tell that an index will run again."""
        self._on_event(Event(index, "retry", why))


def _serial(job: Job, book: _Book) -> None:
    queue = deque(job.indices)
    while queue:
        index = queue.popleft()
        if book.settle(index, _guarded(job.call, index)):
            queue.append(index)


def _pooled(job: Job, book: _Book, workers: int) -> None:
    """Run everything in pools.

    A worker that dies breaks its whole pool, and nobody can tell which of the indices in flight killed it. They run
    again one by one, each alone in a pool, so that only the one that kills its worker once more pays for it.
    """
    _start_tracker()
    queue = deque(job.indices)
    while queue:
        interrupted = _one_pool(job, book, workers, queue)
        if len(interrupted) == 1:
            queue.extend(_charged(book, interrupted))
            continue
        for index in interrupted:
            book.again(index, _DIED)
        for index in interrupted:
            alone = deque([index])
            while alone:
                alone.extend(_charged(book, _one_pool(job, book, 1, alone)))


def _charged(book: _Book, died: list[int]) -> list[int]:
    return [index for index in died if book.settle(index, _Error(_DIED, retryable=True))]


def _one_pool(job: Job, book: _Book, workers: int, queue: deque[int]) -> list[int]:
    """Run a queue in one pool until it is empty or a worker dies; returns what was in flight then."""
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker, initargs=(os.getpid(),)
    )
    flying: dict[Future[_Error | None], int] = {}
    lost: list[int] = []
    broken = False
    try:
        while (queue and not broken) or flying:
            while queue and not broken and len(flying) < workers:
                # No index waits inside the pool, so a dying worker costs only what really runs.
                index = queue.popleft()
                try:
                    flying[_submit(pool, job.call, index)] = index
                except BrokenProcessPool:
                    queue.appendleft(index)
                    broken = True
            ended, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in ended:
                index = flying.pop(future)
                try:
                    error = future.result()
                except BrokenProcessPool:
                    lost.append(index)
                    broken = True
                    continue
                if book.settle(index, error):
                    queue.append(index)
    except BaseException:
        _kill(pool)
        raise
    pool.shutdown(wait=True, cancel_futures=True)
    return sorted(lost)


def _start_tracker() -> None:
    """Start multiprocessing's tracker of resources now, since its start would lift the mask that `_submit` sets.

    It deletes what killed workers leave behind (locks of libraries), and need not tell: its warning would be the last
    that a person sees after Ctrl-C.
    """
    quiet = "ignore:resource_tracker:UserWarning"
    if quiet not in sys.warnoptions:
        sys.warnoptions.append(quiet)
    ensure_running()


def _submit(pool: ProcessPoolExecutor, call: Call, index: int) -> "Future[_Error | None]":
    """Submit an index; a worker that this starts never sees Ctrl-C, which reaches the whole process group."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_guarded, call, index)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _guarded(call: Call, index: int) -> _Error | None:
    try:
        call(index)
    except EoBatchError as error:
        return _Error(_line(str(error)), error.retryable, exit_code=error.exit_code)
    except (Exception, SystemExit) as error:
        return _Error(_line(f"{type(error).__name__}: {error}"), False, traceback.format_exc()[-_TRACE_CHARS:])
    return None


def _line(text: str) -> str:
    """One line of bounded length: messages travel through pipes and end before a person's eyes."""
    line = " ".join(text[: 4 * _MESSAGE_CHARS].split())
    return line if len(line) <= _MESSAGE_CHARS else line[: _MESSAGE_CHARS - 1] + "…"


def _begin_worker(parent: int) -> None:
    """No worker outlives its parent."""
    process = multiprocessing.parent_process()
    assert process is not None  # the pool's initializer runs in its workers only
    assert process.pid == parent
    threading.Thread(target=_end_with, args=(process.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
