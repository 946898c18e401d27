"""Shards that fail in run after run are set aside until somebody asks for them, so that they cost no more.

Whoever gives a shard up leaves a note on why. The next run adds the notes of earlier ones to a tally, one for each
shard, beside the receipts; a receipt that counts makes both void.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from eo_batch.core import layout
from eo_batch.core.errors import ClusterError, StoreError, StoreMissing
from eo_batch.core.work import GivenUp, Tally
from eo_batch.entry.run import Run
from eo_batch.entry.stages import inputs_of, stages_of
from eo_batch.io.store import Store
from eo_batch.runners.base import Failure

STAGES = ("chips", "pretrain", "embed")
"""Stages whose shards do not wait for one another."""
AFTER = 3
"""Runs that give a shard up before it is set aside."""
_NOT_THE_SHARDS = (StoreError.exit_code, ClusterError.exit_code)
"""Exit codes of failures that say nothing about a shard."""
_Note = TypeVar("_Note")
REMEDY = "`eo-batch run --retry-quarantined` tries it again"


def set_aside(run: Run, stage: str, missing: Mapping[int, str], at_work: str = "") -> dict[int, Tally]:
    """Count and delete what earlier runs noted of the shards that are missing, by index; those that are not to be tried
    again.

    at_work: a job whose notes stay, since its pods go by them.
    """
    store, prefix = run.store, run.identity.prefix(stage)
    tallies, keys = _counted(run, stage, missing, at_work)
    for index, key in keys:
        if index in tallies:
            store.put(layout.tally(prefix, missing[index]), tallies[index].to_bytes())
        store.delete(key)
    return {index: tally for index, tally in tallies.items() if tally.times >= AFTER}


def note_failures(run: Run, stage: str, work: str, failed: Mapping[int, tuple[str, Failure]]) -> None:
    """Note, by index, shards that were given up and why, unless the pod that gave one up has."""
    prefix = run.identity.prefix(stage)
    if stage not in STAGES:
        return
    for index, (shard, failure) in failed.items():
        note = given_up(run, stage, index, failure)
        run.store.put_if_absent(layout.work_failure(prefix, work, shard), note.to_bytes())


def given_up(run: Run, stage: str, index: int, failure: Failure) -> GivenUp:
    """The note on a shard that is given up."""
    inputs, allowed = _why_anew(run, stage, index) if stage in STAGES else ("", 0.0)
    return GivenUp(
        message=failure.message,
        tries=failure.attempts,
        trace=failure.trace,
        exit_code=failure.exit_code,
        inputs=inputs,
        allowed=allowed,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def failure_of(tally: Tally) -> Failure:
    """What a run says of a shard that it does not try."""
    message = f"quarantined, since {tally.times} runs gave it up: {tally.message}; {REMEDY}"
    return Failure(message, tally.tries, exit_code=tally.exit_code)


def quarantined(run: Run, stage: str, missing: Mapping[int, str]) -> dict[str, Tally]:
    """Tallies of the missing shards that the next run would set aside, by shard. Changes nothing."""
    tallies, _ = _counted(run, stage, missing)
    return {missing[index]: tally for index, tally in tallies.items() if tally.times >= AFTER}


def release(run: Run) -> None:
    """Forget all that was noted of shards that failed: the next run tries them as if they never had."""
    for stage in stages_of(run):
        prefix = run.identity.prefix(stage)
        for key in [key for key, kind, _ in notes(run.store, prefix) if kind == "failures"]:
            run.store.delete(key)
        for key in run.store.list(layout.tallies_prefix(prefix)):
            run.store.delete(key)


def notes(store: Store, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Key, kind (`tries`, `failures`) and shard of every note of a stage."""
    works = layout.works_prefix(prefix)
    for key in store.list(works):
        _, kind, *shard = key.removeprefix(works).split("/", 2)
        if shard:
            yield key, kind, shard[0].removesuffix(".json")


def _counted(
    run: Run, stage: str, missing: Mapping[int, str], at_work: str = ""
) -> tuple[dict[int, Tally], list[tuple[int, str]]]:
    """Tallies of the missing shards with all notes added, by index; indices and keys of those notes."""
    if not missing:
        return {}, []
    tallies = _tallies(run, stage, missing) if stage in STAGES else {}
    by_shard, keys, prefix = {shard: index for index, shard in missing.items()}, [], run.identity.prefix(stage)
    for key, kind, shard in notes(run.store, prefix):
        own = at_work and key.startswith(layout.work_prefix(prefix, at_work))
        if kind != "failures" or shard not in by_shard or own:
            continue
        index = by_shard[shard]
        keys.append((index, key))
        note = _read(run.store, key, GivenUp.from_bytes) if stage in STAGES else None
        if note is not None and _counts(note, _why_anew(run, stage, index)):
            tallies[index] = _added(tallies.get(index), note)
    return tallies, keys


def _tallies(run: Run, stage: str, missing: Mapping[int, str]) -> dict[int, Tally]:
    """Tallies of missing shards as they are now, by index: of other scenes, or of other losses allowed, none counts."""
    place = layout.tallies_prefix(run.identity.prefix(stage))
    there = {key.removeprefix(place).removesuffix(".json"): key for key in run.store.list(place)}
    found = {}
    for index, shard in missing.items():
        if shard in there:
            tally = _read(run.store, there[shard], Tally.from_bytes)
            if tally is not None and (tally.inputs, tally.allowed) == _why_anew(run, stage, index):
                found[index] = tally
    return found


def _counts(note: GivenUp, now: tuple[str, float]) -> bool:
    """Whether a note says something about the shard as it is now."""
    return bool(note.tries) and note.exit_code not in _NOT_THE_SHARDS and (note.inputs, note.allowed) == now


def _added(tally: Tally | None, note: GivenUp) -> Tally:
    """A tally with one note more; what it says of the failure is the latest note's."""
    latest = note if tally is None or note.at >= tally.at else tally
    return Tally(
        inputs=note.inputs,
        allowed=note.allowed,
        times=1 + (tally.times if tally else 0),
        tries=note.tries + (tally.tries if tally else 0),
        message=latest.message,
        exit_code=latest.exit_code,
        at=latest.at,
    )


def _why_anew(run: Run, stage: str, index: int) -> tuple[str, float]:
    """What makes a shard another one, which deserves tries of its own."""
    return inputs_of(run, stage)(index), run.spec.limits.max_missing


def _read(store: Store, key: str, parse: Callable[[bytes, str], _Note]) -> _Note | None:
    try:
        return parse(store.get(key), store.href(key))
    except StoreMissing:
        return None  # another run has counted it
