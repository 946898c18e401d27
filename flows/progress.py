"""What people see of a run in Prefect: a bar for each stage, tables of coverage and cost, a link to Argo's workflow."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from eo_batch.core.errors import EoBatchError
from eo_batch.core.receipts import ChipState
from eo_batch.entry.account import costs_of, coverage_of
from eo_batch.entry.drive import StageState
from eo_batch.entry.run import Run
from eo_batch.runners.base import Event
from flows.telling import Teller

_EVERY_S = 2.0
"""Between two steps of a bar."""
_PATIENCE_S = 60.0
"""How long the end of a run waits for an API that is away; Prefect's own report of the end is as patient."""
_HASTE_S = 2.0
"""The same, where the process was told to end and will be killed soon."""
_STATES: tuple[ChipState, ...] = ("ok", "clouded_out", "no_data", "no_scene", "read_failed")


@dataclass
class Tally:
    """Shards of one stage in this flow run."""

    kept: int
    """Had a receipt that counts before."""
    ran: int = 0
    """Have one since."""


@dataclass
class _Bar:
    """A progress artifact, made when it is first sent."""

    key: str
    artifact: UUID | None = None

    def send(self, percent: float, words: str) -> None:
        if self.artifact is None:
            self.artifact = create_progress_artifact(percent, self.key, words)
        else:
            update_progress_artifact(self.artifact, percent, words)


@dataclass
class Progress:
    """A `Watcher` that draws a bar for each stage, and counts."""

    run: Run
    teller: Teller
    log: Any
    tallies: dict[str, Tally] = field(default_factory=dict)
    """By stage, in the order in which they began."""
    _bars: dict[str, _Bar] = field(default_factory=dict)
    _sent_s: float = 0.0

    def begin(self, state: StageState) -> None:
        """See `Watcher.begin`."""
        self.tallies[state.stage] = Tally(state.done)
        self._bars[state.stage] = _Bar(key_of(self.run, state.stage))
        self.log.info("%s: %d of %d shards to do", state.stage, len(state.missing), len(state.shards))
        self._draw(state)

    def event(self, state: StageState, event: Event) -> None:
        """See `Watcher.event`."""
        if event.kind == "done":
            self.tallies[state.stage].ran += 1
            if time.monotonic() - self._sent_s >= _EVERY_S:
                self._draw(state)
        elif event.index is None:
            self.log.warning("%s: waiting: %s", state.stage, event.message)
        else:
            word = "trying again" if event.kind == "retry" else "failed"
            self.log.warning("%s %s: %s: %s", state.stage, state.shards[event.index], word, event.message)

    def end(self, state: StageState) -> None:
        """See `Watcher.end`."""
        self._draw(state)

    def submitted(self, url: str) -> None:
        """Argo has taken a workflow, which is shown at `url`."""
        key = key_of(self.run, "workflow")
        words = f"Argo's workflow of {self.run.spec.name}"
        self.teller.tell(key, partial(create_link_artifact, url, words, key, words))

    def _draw(self, state: StageState) -> None:
        self._sent_s = time.monotonic()
        tally = self.tallies[state.stage]
        done = tally.kept + tally.ran
        words = f"{self.run.spec.name}, {state.stage}: {done} of {len(state.shards)} shards, {tally.kept} from before"
        percent = 100.0 * done / max(len(state.shards), 1)
        bar = self._bars[state.stage]
        self.teller.tell(bar.key, partial(bar.send, percent, words))


@contextmanager
def shown(run: Run, price: float | None) -> Iterator[Progress]:
    """Show a run while it goes on, and at its end, be it a failure, what it covered and cost.

    price: of a CPU hour; None leaves the cost out.
    """
    log = get_run_logger()
    progress = Progress(run, Teller(log), log)
    patience_s = _HASTE_S
    try:
        try:
            yield progress
        except Exception:
            patience_s = _PATIENCE_S
            _tables(progress, price)
            raise
        patience_s = _PATIENCE_S
        _tables(progress, price)
    finally:
        progress.teller.close(patience_s)


def key_of(run: Run, what: str) -> str:
    """Key of an artifact: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{run.spec.name}-{what}").strip("-")


def _tables(progress: Progress, price: float | None) -> None:
    run = progress.run
    try:
        covered, took = _coverage(run), _costs(progress, price)
    except EoBatchError as error:
        progress.log.warning("no tables of coverage and cost: %s", error)
        return
    about = f"{run.spec.name}: chips by outcome, over all time bins"
    paid = "; the cost is left out, for no price of a CPU hour is given (cpu_hour_price)"
    if price is not None:
        paid = f"; cost is CPU hours times {price:g}, without idle cores, memory, storage and requests"
    costs = f"{run.spec.name}: what its shards took when they were made, those that were kept included{paid}"
    for what, rows, words in (("coverage", covered, about), ("cost", took, costs)):
        key = key_of(run, what)
        progress.teller.tell(key, partial(create_table_artifact, rows, key, words))


def _coverage(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "sensor": row.sensor,
            "shards": row.shards,
            "done": row.done,
            **{state.replace("_", " "): row.chips.get(state, 0) for state in _STATES},
        }
        for row in coverage_of(run)
    ]


def _costs(progress: Progress, price: float | None) -> list[dict[str, Any]]:
    rows = []
    for cost in costs_of(progress.run):
        tally = progress.tallies.get(cost.stage, Tally(cost.shards))
        row = {
            "stage": cost.stage,
            "shards": cost.shards,
            "ran": tally.ran,
            "kept": tally.kept,
            "CPU s": round(cost.cpu_seconds, 1),
            "wall s": round(cost.seconds, 1),
            "bytes read": cost.bytes_in,
            "bytes written": cost.bytes_out,
            "requests": cost.requests,
        }
        rows.append(row if price is None else {**row, "cost": round(cost.price(price), 4)})
    sums = {key: round(sum(row[key] for row in rows), 4) for key in rows[0] if key != "stage"} if rows else {}
    return [*rows, {"stage": "all", **sums}]
