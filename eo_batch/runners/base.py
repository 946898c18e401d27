"""What every runner does: run some indices of one job, survive what can be survived, say what happened.

A runner knows nothing about pixels or receipts. It gets a callable, calls it once for each index, tries again what
may pass, and leaves out nothing: every index ends as done or failed. Runners whose work happens in pods get a `Remote`
beside it: an argv that runs one slice of the indices anywhere, and a way to see what has become of each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Call = Callable[[int], object]
"""Runs one index; returns anything; raises what went wrong. Must pickle for runners with processes."""


SLICE = "$(EO_BATCH_SLICE)"
"""Stands for the number of a pod's slice in the argv of `Remote.freeze`. Kubernetes puts in the variable's value."""

DO_NOT_RETRY = 10
"""Exit code of a slice of which some index failed for good, and is noted as such: running it again helps nobody."""

POLITE_STOP = 143
"""Exit code of a slice that was asked to end (SIGTERM): it is nobody's fault, and costs no try."""

STORE_S = 600.0
"""How long whoever drives a job bears a store that does not answer, seconds."""


class Remote(Protocol):
    """How processes elsewhere take part in a job: they share a store with whoever started it, and nothing else."""

    def freeze(self, indices: Sequence[int], shards_per_pod: int) -> tuple[str, ...]:
        """Write down the list of indices; returns the argv that runs slice number `SLICE` of it: the indices at
        `SLICE * shards_per_pod` and after. The process ends with 0, `DO_NOT_RETRY` or `POLITE_STOP`; whatever else
        it ends with is a death, after which it may be started again.
        """
        ...

    def settled(self) -> "Mapping[int, Failure | None]":
        """What the store knows of the frozen indices: None for those that are done. Indices that are still to run are
        not in it. Raises StoreError."""
        ...

    def forget(self) -> None:
        """Delete the frozen list and its notes, when no process needs them any more."""
        ...


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
    remote: Remote | None = None
    """For runners whose work happens in other processes that can't be sent a callable."""
    memory_mb: int = 0
    """Memory that one index is projected to need, MB; 0 if nobody knows."""


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
    """Something happened to an index; or, with index None, the whole job waits for something that people can mend."""

    index: int | None
    kind: Literal["done", "retry", "failed", "wait"]
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
