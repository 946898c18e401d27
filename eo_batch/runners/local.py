"""Runs jobs on this machine: one after the other in this process, or in a pool of worker processes."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from multiprocessing.resource_tracker import ensure_running

from eo_batch.runners.base import Call, Job, OnEvent, Outcome
from eo_batch.runners.book import DIED, Book, Fault, guarded


@dataclass(frozen=True)
class LocalRunner:
    """The runner `local`."""

    workers: int = 0
    """Worker processes; 0 runs everything in this process, as does a job of one index."""
    name: str = "local"

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """See `Runner.run`."""
        book = Book(job, on_event)
        if self.workers == 0 or len(job.indices) == 1:
            _serial(job, book)
        else:
            _pooled(job, book, min(self.workers, max(len(job.indices), 1)))
        return book.outcome()


def _serial(job: Job, book: Book) -> None:
    queue = deque(job.indices)
    while queue:
        index = queue.popleft()
        if book.settle(index, guarded(job.call, index)):
            queue.append(index)


def _pooled(job: Job, book: Book, workers: int) -> None:
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
            book.again(index, DIED)
        for index in interrupted:
            alone = deque([index])
            while alone:
                alone.extend(_charged(book, _one_pool(job, book, 1, alone)))


def _charged(book: Book, died: list[int]) -> list[int]:
    return [index for index in died if book.settle(index, Fault(DIED, retryable=True))]


def _one_pool(job: Job, book: Book, workers: int, queue: deque[int]) -> list[int]:
    """Run a queue in one pool until it is empty or a worker dies; returns what was in flight then."""
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker, initargs=(os.getpid(),)
    )
    flying: dict[Future[Fault | None], int] = {}
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
                    fault = future.result()
                except BrokenProcessPool:
                    lost.append(index)
                    broken = True
                    continue
                if book.settle(index, fault):
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


def _submit(pool: ProcessPoolExecutor, call: Call, index: int) -> "Future[Fault | None]":
    """Submit an index; a worker that this starts never sees Ctrl-C, which reaches the whole process group."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(guarded, call, index)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
