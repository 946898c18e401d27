"""Progress for people: bars on a terminal, one plain line per step elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from eo_batch.entry.drive import StageState, Watcher
from eo_batch.entry.run import Run
from eo_batch.runners.base import Event

_LINE_EVERY_S = 10.0
"""Seconds between plain progress lines of one stage."""


@contextmanager
def watcher(run: Run) -> Iterator[Watcher]:
    """The watcher that fits where standard error goes."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description:10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield _Bars(progress)
    else:
        yield _Lines()


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def begin(self, state: StageState) -> None:
        note = "already done" if not state.missing else ""
        task = self._progress.add_task(state.stage, total=len(state.shards), completed=state.done, note=note)
        self._tasks[state.stage] = task

    def event(self, state: StageState, event: Event) -> None:
        if event.kind == "done":
            self._progress.advance(self._tasks[state.stage])
        else:
            self._progress.console.print(_line(state, event), style="red" if event.kind == "failed" else "yellow")

    def end(self, state: StageState) -> None:
        self._progress.update(self._tasks[state.stage], completed=len(state.shards))


class _Lines:
    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._done = 0

    def begin(self, state: StageState) -> None:
        self._begun = self._last = time.monotonic()
        self._done = state.done
        left = f"{len(state.missing)} of {len(state.shards)} to do" if state.missing else "already done"
        _say(f"{state.stage}: {left}")

    def event(self, state: StageState, event: Event) -> None:
        if event.kind != "done":
            _say(_line(state, event))
            return
        self._done += 1
        if time.monotonic() - self._last >= _LINE_EVERY_S and self._done < len(state.shards):
            self._last = time.monotonic()
            _say(f"{state.stage}: {self._done} of {len(state.shards)}")

    def end(self, state: StageState) -> None:
        if state.missing:
            _say(f"{state.stage}: done in {time.monotonic() - self._begun:.1f} s")


def _line(state: StageState, event: Event) -> str:
    if event.index is None:
        return f"{state.stage}: waiting: {event.message}"
    word = "trying again" if event.kind == "retry" else "failed"
    return f"{state.stage} {state.shards[event.index]}: {word}: {event.message}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
