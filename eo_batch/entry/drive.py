"""Drive a run: stage after stage, only what has no receipt yet, on any runner."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from eo_batch.core.errors import ShardFailed, StoreError
from eo_batch.core.work import Tally
from eo_batch.entry.door import Door
from eo_batch.entry.patience import patiently
from eo_batch.entry.quarantine import failure_of, set_aside
from eo_batch.entry.run import Run
from eo_batch.entry.stages import counts, inputs_of, prepare, shards_of, stages_of
from eo_batch.entry.work import Work
from eo_batch.runners.base import Event, Failure, Job, Runner

_ATTEMPTS = 3
"""Tries for each shard."""


@dataclass(frozen=True)
class StageState:
    """How far a stage is."""

    stage: str
    shards: tuple[str, ...]
    missing: tuple[int, ...]
    """Indices without a receipt of the present inputs."""

    @property
    def done(self) -> int:
        """Shards with a receipt."""
        return len(self.shards) - len(self.missing)


class Watcher(Protocol):
    """Shows a person how it goes."""

    def begin(self, state: StageState) -> None:
        """A stage begins."""
        ...

    def event(self, state: StageState, event: Event) -> None:
        """Something happened to a shard, or a stage waits, perhaps before it has begun."""
        ...

    def end(self, state: StageState) -> None:
        """A stage is complete."""
        ...


def state_of(run: Run, stage: str) -> StageState:
    """How far a stage is, by its receipts alone. Raises DataError if it can't be known before the plan is done."""
    with ThreadPoolExecutor(1) as pool:  # the store may be far away
        reading = pool.submit(run.receipts, stage)
        shards, inputs = tuple(shards_of(run, stage)), inputs_of(run, stage)
        receipts = reading.result()
    missing = tuple(i for i, shard in enumerate(shards) if not counts(run, receipts.get(shard), inputs(i)))
    return StageState(stage, shards, missing)


def known_state(run: Run, stage: str, watcher: Watcher) -> StageState:
    """`state_of`, while the store may be away for a time; the watcher is told."""
    return patiently(run.store, partial(state_of, run, stage), _waiting(StageState(stage, (), ()), watcher))


def drive(run: Run, runner: Runner, watcher: Watcher, until: str | None = None) -> None:
    """Run all stages up to `until` (all of them if None). Raises as `drive_stage`."""
    for stage in stages_of(run):
        drive_stage(run, stage, runner, watcher)
        if stage == until:
            return


def drive_stage(run: Run, stage: str, runner: Runner, watcher: Watcher) -> None:
    """Run what is missing of one stage, whose upstream stages are done.

    Raises ShardFailed naming what could not be done; everything else of the stage is done by then. Shards that earlier
    runs gave up again and again are not tried.
    """
    state = known_state(run, stage, watcher)
    watcher.begin(state)
    if state.missing:
        missing = {index: state.shards[index] for index in state.missing}
        tallies = patiently(run.store, partial(_ready, run, stage, missing), _waiting(state, watcher))
        # A search has retries of its own, and whoever waits for a plan wants to know soon that there is none.
        attempts = 1 if stage == "plan" else _ATTEMPTS
        remote = Work(run, stage, runner.name)
        aside = {index: failure_of(tally) for index, tally in tallies.items()}
        for index, why in aside.items():
            watcher.event(state, Event(index, "failed", why.message))
        wanted = tuple(index for index in state.missing if index not in aside)
        failed: dict[int, Failure] = {}
        if wanted:
            job = Job(stage, wanted, Door(run, stage, runner.name), attempts, remote, memory_mb(run, state))
            failed |= runner.run(job, partial(watcher.event, state)).failed
        if failed or aside:
            error = shard_failed(state, failed | aside)
            try:
                remote.note(failed)
            except StoreError as left:
                error.add_note(str(left))  # why the run ended matters more
            raise error
    watcher.end(state)


def _ready(run: Run, stage: str, missing: Mapping[int, str]) -> dict[int, Tally]:
    """Make ready what a stage needs; of its missing shards those that are not to be tried."""
    with ThreadPoolExecutor(1) as pool:  # the store may be far away
        counting = pool.submit(set_aside, run, stage, missing)
        prepare(run, stage)
        return counting.result()


def _waiting(state: StageState, watcher: Watcher) -> Callable[[str], None]:
    return lambda why: watcher.event(state, Event(None, "wait", why))


def memory_mb(run: Run, state: StageState) -> int:
    """Memory that the largest missing shard is projected to need, MB; 0 where no plan says so."""
    if state.stage != "chips":
        return 0
    return int(run.plan.shards.memory_bytes[list(state.missing)].max(initial=0)) // 10**6


def shard_failed(state: StageState, failed: Mapping[int, Failure]) -> ShardFailed:
    """The error that tells of the shards of a stage that were given up, of which there is one at least."""
    first = failed[min(failed)]
    text = f"{state.stage}: {first.message}"
    if len(failed) > 1:
        text += f" (and {len(failed) - 1} more of {len(state.shards)} shards)"
    error = ShardFailed(f"{text}\n{first.trace}" if first.trace else text)
    codes = {failure.exit_code for failure in failed.values()}
    if len(codes) == 1:  # what scripts look at tells the cause where there is one
        error.exit_code = codes.pop()
    return error
