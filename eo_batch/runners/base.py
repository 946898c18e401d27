"""What every runner does: run some indices of one job, survive what can be survived, say what happened.

A runner knows nothing about pixels or receipts. It gets a callable (or, on clusters, an argv), calls it once
for each index, tries again what may pass, and leaves out nothing: every index ends as done or failed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Call = Callable[[int], object]
"""Runs one index; returns anything; raises what went wrong. Must pickle for runners with processes."""


@dataclass(frozen=True)
class Job:
    """Indices of one piece of work."""

    name: str
    """For people: the stage's name."""
    indices: tuple[int, ...]
    call: Call
    attempts: int = 3
    """Tries for each index; only failures that may pass are tried again. A worker that dies costs the index that it
    runs one try, and others that its death interrupts none."""


@dataclass(frozen=True)
class Failure:
    """Why an index was given up."""

    message: str
    """One line for a person."""
    attempts: int
    trace: str = ""
    """Traceback of a fault of our own; empty for errors that are meant for people."""
    exit_code: int = 1
    """What a process that runs only this index would end with (`core.errors`)."""


@dataclass(frozen=True)
class Event:
    """Something happened to an index."""

    index: int
    kind: Literal["done", "retry", "failed"]
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a job. Every index is in exactly one of the two."""

    done: frozenset[int]
    failed: Mapping[int, Failure]


OnEvent = Callable[[Event], None]


class Runner(Protocol):
    """Runs jobs somewhere."""

    @property
    def name(self) -> str:
        """For receipts: `local`, `dask`, …"""
        ...

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """Run every index of the job; on_event is called in this thread.

        KeyboardInterrupt stops what runs before it is passed on.
        """
        ...
