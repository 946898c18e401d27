"""What runners share: one guarded call, and the book that keeps attempts and outcomes of a job's indices."""

import traceback
from dataclasses import dataclass

from eo_batch.core.errors import EoBatchError
from eo_batch.runners.base import Call, Event, Failure, Job, OnEvent, Outcome

DIED = "the worker process died (out of memory, or killed)"
_MESSAGE_CHARS = 2000
_TRACE_CHARS = 20_000


@dataclass(frozen=True)
class Fault:
    """Why a try failed, in a form that always pickles."""

    message: str
    """One line for a person."""
    retryable: bool
    """Whether another try may pass."""
    trace: str = ""
    """Traceback of a fault of our own; empty for errors that are meant for people."""
    exit_code: int = 1
    """What a process that runs only this index would end with (`core.errors`)."""


class Book:
    """Keeps attempts and outcomes of a job's indices, and tells of what happens to them."""

    def __init__(self, job: Job, on_event: OnEvent) -> None:
        self._job, self._on_event = job, on_event
        self._attempts = dict.fromkeys(job.indices, 0)
        self._done: set[int] = set()
        self._failed: dict[int, Failure] = {}

    def settle(self, index: int, fault: Fault | None) -> bool:
        """Note the end of one try (None: it went well); True if the index is to be tried again."""
        if fault is None:
            self.end(index, None)
            return False
        self._attempts[index] += 1
        if fault.retryable and self._attempts[index] < self._job.attempts:
            self.again(index, fault.message)
            return True
        self.end(index, Failure(fault.message, self._attempts[index], fault.trace, fault.exit_code))
        return False

    def end(self, index: int, failure: Failure | None) -> None:
        """Note the end of an index (None: it is done), whoever counted its tries."""
        if failure is None:
            self._done.add(index)
            self._on_event(Event(index, "done"))
        else:
            self._failed[index] = failure
            self._on_event(Event(index, "failed", failure.message))

    def open(self) -> list[int]:
        """Indices that have not ended, in the job's order."""
        return [index for index in self._job.indices if index not in self._done and index not in self._failed]

    def again(self, index: int, why: str) -> None:
        """Tell that an index will run again; its tries stay as they are."""
        self._on_event(Event(index, "retry", why))

    def wait(self, for_what: str) -> None:
        """Tell what the whole job waits for."""
        self._on_event(Event(None, "wait", for_what))

    def outcome(self) -> Outcome:
        """What became of the job so far."""
        return Outcome(frozenset(self._done), dict(self._failed))


def guarded(call: Call, index: int) -> Fault | None:
    """Call for one index; what it returns is dropped, what it raises becomes a value. KeyboardInterrupt passes."""
    try:
        call(index)
    except EoBatchError as error:
        return Fault(one_line(str(error)), error.retryable, exit_code=error.exit_code)
    except (Exception, SystemExit) as error:
        return Fault(one_line(f"{type(error).__name__}: {error}"), False, traceback.format_exc()[-_TRACE_CHARS:])
    return None


def one_line(text: str) -> str:
    """One line of bounded length: messages travel through pipes and end before a person's eyes."""
    line = " ".join(text[: 4 * _MESSAGE_CHARS].split())
    return line if len(line) <= _MESSAGE_CHARS else line[: _MESSAGE_CHARS - 1] + "…"
