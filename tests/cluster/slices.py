"""What a pod does with its slice of a contract's job: the part of `Remote.freeze`'s promise that pods keep.

Runs in pods, so it needs nothing but eo_batch.
"""

from __future__ import annotations

import json
import pickle
import signal
import sys
from collections import deque
from dataclasses import asdict
from types import FrameType

from eo_batch.core.errors import StoreMissing
from eo_batch.io.store import Store
from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP, Failure
from eo_batch.runners.book import DIED, Fault, guarded


class Stopped(BaseException):
    """Somebody asked this process to end."""


def main(store: Store, prefix: str, number: int) -> None:
    """Run a slice, and end the process."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        complete = run_slice(store, prefix, number)
    except Stopped:
        sys.exit(POLITE_STOP)
    sys.exit(0 if complete else DO_NOT_RETRY)


def run_slice(store: Store, prefix: str, number: int) -> bool:
    """Run a slice; True if all of it is done."""
    listed = json.loads(store.get(f"{prefix}/list.json"))
    call = pickle.loads(store.get(f"{prefix}/call.pickle"))
    first = number * listed["shards_per_pod"]
    queue = deque(listed["indices"][first : first + listed["shards_per_pod"]])
    complete = True
    while queue:
        index = queue.popleft()
        try:
            complete &= json.loads(store.get(f"{prefix}/ends/{index}")) is None
            continue
        except StoreMissing:
            pass
        tries = _tries(store, prefix, index)
        if tries >= listed["attempts"]:
            complete &= _end(store, prefix, index, Fault(DIED, retryable=False), tries)
            continue
        _note(store, prefix, index, tries + 1)
        try:
            fault = guarded(call, index)
        except Stopped:
            _note(store, prefix, index, tries)
            raise
        if fault is not None and fault.retryable and tries + 1 < listed["attempts"]:
            queue.append(index)
        else:
            complete &= _end(store, prefix, index, fault, tries + 1)
    return complete


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _tries(store: Store, prefix: str, index: int) -> int:
    try:
        return int(store.get(f"{prefix}/tries/{index}"))
    except StoreMissing:
        return 0


def _note(store: Store, prefix: str, index: int, tries: int) -> None:
    store.put(f"{prefix}/tries/{index}", str(tries).encode())


def _end(store: Store, prefix: str, index: int, fault: Fault | None, tries: int) -> bool:
    failure = fault and Failure(fault.message, tries, fault.trace, fault.exit_code)
    store.put(f"{prefix}/ends/{index}", json.dumps(failure and asdict(failure)).encode())
    return fault is None
