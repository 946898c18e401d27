"""Work that is shared through the store: freeze a list of shards, run one slice of it, see what became of it."""

import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from eo_batch import __version__
from eo_batch.core import layout
from eo_batch.core.errors import DataError, ShardFailed, StoreMissing, UsageError
from eo_batch.core.specfile import dump_spec, parse_spec
from eo_batch.core.work import GivenUp, Try, WorkList
from eo_batch.entry.door import Door, done, lead
from eo_batch.entry.quarantine import failure_of, given_up, note_failures, notes, quarantined, set_aside
from eo_batch.entry.run import Run
from eo_batch.entry.stages import counts, inputs_of, joined, shard_of, shards_of
from eo_batch.io.store import Store
from eo_batch.runners.base import SLICE, Failure
from eo_batch.runners.book import Fault, guarded
from eo_batch.settings import Settings

if TYPE_CHECKING:
    from eo_batch.models.world import World

ATTEMPTS = 6
"""Tries for each shard in pods, where a try is also lost with a pod that is killed or a store that restarts."""
_LONGEST_PAUSE_S = 60.0
_DIED = Fault("the pod that ran it died every time (out of memory, or killed)", retryable=False)


@dataclass
class Work:
    """The `Remote` of one stage of a run."""

    run: Run
    stage: str
    runner: str
    """Name of the runner, for receipts."""
    name: str = ""
    """Name of the list, for those who freeze the same list however often they try; empty makes a new one each time."""
    _id: str = ""
    _pending: dict[int, str] = field(default_factory=dict)
    """Shards that are not known to be settled, by index."""
    _settled: dict[int, Failure | None] = field(default_factory=dict)
    _inputs: Callable[[int], str] | None = None
    """What receipts have to carry: asked for once, since what is upstream is done, and may be thousands of receipts."""

    @property
    def _prefix(self) -> str:
        return self.run.identity.prefix(self.stage)

    def freeze(self, indices: Sequence[int], shards_per_pod: int) -> tuple[str, ...]:
        """See `Remote.freeze`. A named list that is there already stays as it is: pods may be at work on it."""
        shards = shards_of(self.run, self.stage)
        aside = set_aside(self.run, self.stage, {index: shards[index] for index in indices}, self.name)
        wanted = WorkList(
            stage=self.stage,
            indices=tuple(indices),
            shards_per_pod=shards_per_pod,
            attempts=ATTEMPTS,
            runner=self.runner,
            refresh=self.run.refresh,
            spec=dump_spec(self.run.spec),
            aside={index: failure_of(tally).message for index, tally in aside.items()},
        )
        store, work = self.run.store, self.name or uuid.uuid4().hex[:12]
        key = layout.work_list(self._prefix, work)
        if not self.name:
            store.put(key, wanted.to_bytes(), expires=True)
        elif not store.put_if_absent(key, wanted.to_bytes(), expires=True):
            wanted = WorkList.from_bytes(store.get(key), store.href(key))
        self._take(work, wanted.indices)
        return ("eo-batch", "slice", key, SLICE, "--store", store.url)

    def frozen(self) -> WorkList:
        """The list called `name`. Raises StoreMissing if nobody has frozen it."""
        key = layout.work_list(self._prefix, self.name)
        return WorkList.from_bytes(self.run.store.get(key), self.run.store.href(key))

    def expect(self, indices: Sequence[int]) -> None:
        """Let `settled` tell of these indices of the list called `name`, which another process freezes."""
        self._take(self.name, indices)

    def _take(self, work: str, indices: Sequence[int]) -> None:
        shards = shards_of(self.run, self.stage)
        self._id, self._pending = work, {index: shards[index] for index in indices}

    def settled(self) -> Mapping[int, Failure | None]:
        """See `Remote.settled`."""
        store = self.run.store
        there = set(store.list(layout.receipts_prefix(self._prefix)))
        failed = set(store.list(layout.work_failures_prefix(self._prefix, self._id)))
        if self._inputs is None:
            self._inputs = inputs_of(self.run, self.stage)
        told = [shard for shard in self._pending.values() if layout.receipt_key(self._prefix, shard) in there]
        receipts = self.run.receipts(self.stage, told)
        for index, shard in list(self._pending.items()):
            failure = layout.work_failure(self._prefix, self._id, shard)
            if counts(self.run, receipts.get(shard), self._inputs(index)):
                self._settled[index] = None
            elif failure in failed:
                note = GivenUp.from_bytes(store.get(failure), store.href(failure))
                self._settled[index] = Failure(note.message, note.tries, note.trace, note.exit_code)
            else:
                continue
            del self._pending[index]
        return self._settled

    def note(self, failed: Mapping[int, Failure]) -> None:
        """Leave notes on shards that were given up, for runs to come and for `eo-batch status`."""
        shards = shards_of(self.run, self.stage)
        work = self._id or self.name or uuid.uuid4().hex[:12]
        note_failures(self.run, self.stage, work, {index: (shards[index], why) for index, why in failed.items()})

    def forget(self) -> None:
        """See `Remote.forget`. Notes on shards that were given up stay, for `eo-batch status`."""
        work = self._id or self.name
        if not work:
            return  # nothing was frozen
        kept = layout.work_failures_prefix(self._prefix, work)
        for key in self.run.store.list(layout.work_prefix(self._prefix, work)):
            if not key.startswith(kept):
                self.run.store.delete(key)


@dataclass(frozen=True)
class Trouble:
    """What pods have noted about a shard that is not done."""

    shard: str
    tries: int
    failure: str | None
    """Why it was given up; None while it runs, or waits to run again."""
    since: str = ""
    """When it was last begun, UTC."""
    host: str = ""
    quarantined: bool = False
    """Whether the next run leaves it out."""


def troubles(run: Run, stage: str, missing: Iterable[str]) -> list[Trouble]:
    """Notes of pods on the shards that have no receipt, sorted; of a shard that was given up, only why."""
    store, prefix = run.store, run.identity.prefix(stage)
    wanted = set(missing)
    found: dict[str, Trouble] = {}
    for key, kind, shard in sorted(notes(store, prefix), key=lambda note: note[1], reverse=True):
        if shard not in wanted:
            continue
        try:
            data, where = store.get(key), store.href(key)
        except StoreMissing:
            continue  # done meanwhile
        if kind == "tries":
            begun = Try.from_bytes(data, where)
            found[shard] = Trouble(shard, begun.tries, None, begun.begun, begun.host)
        else:
            failure = GivenUp.from_bytes(data, where)
            found[shard] = Trouble(shard, failure.tries, failure.message)
    shards = {shard: index for index, shard in enumerate(shards_of(run, stage)) if shard in wanted}
    for shard, tally in quarantined(run, stage, {index: shard for shard, index in shards.items()}).items():
        if shard not in found or found[shard].failure is not None:
            found[shard] = Trouble(shard, tally.tries, tally.message, quarantined=True)
    return sorted(found.values(), key=lambda trouble: trouble.shard)


def run_slice(
    store: Store,
    key: str,
    number: int,
    settings: Settings,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Run slice `number` of the list at `key`, shard by shard; True if all of it is done.

    A shard that fails for good is noted in the store, and the others go on. Raises what stops all of it, such as
    StoreError, and UsageError where this is another version than the one that made the list; passes on whatever asks
    the process to end, after taking back the try that this costs.
    """
    prefix, _, work = key.removesuffix("/list.json").rpartition("/work/")
    try:
        listed = WorkList.from_bytes(store.get(key), store.href(key))
    except StoreMissing as error:
        raise DataError(
            f"{store.href(key)} is not there: whoever started this job has ended it, or reaches another store than its "
            "pods do (cluster.env)"
        ) from error
    run = Run(parse_spec(listed.spec, where=store.href(key)), store, settings, listed.refresh)
    if run.identity.prefix(listed.stage) != prefix:
        raise other_version(run)
    book = _Notes(store, prefix, work)
    with joined(run, listed.stage) as world:
        return _Slice(run, listed, book, world, say, sleep).run(listed.slice_of(number))


@dataclass(frozen=True)
class _Slice:
    """Shards that one pod runs, or that the pods of a gang run together: then the first of their processes alone
    decides what is to be done and keeps notes, and the others follow."""

    run_: Run
    listed: WorkList
    book: "_Notes"
    world: "World | None"
    say: Callable[[str], None]
    sleep: Callable[[float], None]

    def run(self, indices: Sequence[int]) -> bool:
        stage = self.listed.stage
        door = Door(self.run_, stage, self.listed.runner)
        queue = deque(indices)
        tried: set[int] = set()
        complete = True
        while queue:
            index = queue.popleft()
            shard = shard_of(self.run_, stage, index)
            tries = lead(self.world, partial(self._begin, index, shard, index in tried))
            if not isinstance(tries, int):
                complete = complete and tries is _Settled.DONE
                continue
            tried.add(index)
            try:
                fault = guarded(partial(door.within, self.world), index)
            except BaseException:
                self._note(self.book.begin, shard, tries)
                raise
            if fault is None:
                self._note(self.book.done, shard)
                self.say(f"{stage} {shard}: done")
            elif fault.retryable and self.world is not None:
                # The others may be gone: all of the gang start again together, from the last checkpoint. Losing one
                # says nothing about the shard, so it costs no try.
                self._note(self.book.begin, shard, tries)
                failure = ShardFailed(f"{stage} {shard}: the gang starts again: {fault.message}")
                failure.retryable = True
                raise failure
            elif fault.retryable and tries + 1 < self.listed.attempts:
                queue.append(index)
                self.say(f"{stage} {shard}: trying again: {fault.message}")
            else:
                complete = False
                self._note(self.book.give_up, shard, self._given_up(index, fault, tries + 1))
                self.say(f"{stage} {shard}: failed: {fault.message}")
        return complete

    def _begin(self, index: int, shard: str, again: bool) -> "int | _Settled":
        """Note that a shard is begun; how often it was before. Or what there is to know of a shard that is settled."""
        if done(self.run_, self.listed.stage, index):
            self.book.done(shard)
            return _Settled.DONE
        if self.book.given_up(shard):
            return _Settled.GIVEN_UP
        if index in self.listed.aside:
            why = self.listed.aside[index]
            self.book.give_up(shard, self._given_up(index, Fault(why, retryable=False), 0))
            self.say(f"{self.listed.stage} {shard}: {why}")
            return _Settled.GIVEN_UP
        tries = self.book.tries(shard)
        if tries >= self.listed.attempts:
            self.book.give_up(shard, self._given_up(index, _DIED, tries))
            self.say(f"{self.listed.stage} {shard}: failed: {_DIED.message}")
            return _Settled.GIVEN_UP
        if again:
            self.sleep(min(2.0**tries, _LONGEST_PAUSE_S))
        self.book.begin(shard, tries + 1)
        return tries

    def _given_up(self, index: int, fault: Fault, tries: int) -> GivenUp:
        failure = Failure(fault.message, tries, fault.trace, fault.exit_code)
        return given_up(self.run_, self.listed.stage, index, failure)

    def _note(self, note: Callable[..., None], *what: object) -> None:
        if self.world is None or self.world.rank == 0:
            note(*what)


class _Settled(Enum):
    DONE = "done"
    GIVEN_UP = "given up"


def other_version(run: Run) -> UsageError:
    """The error of a pod whose eo-batch would make another run than the one that was started."""
    return UsageError(
        f"eo-batch {__version__}, which is in this pod's image, makes other stages of {run.spec.name} than the version "
        "that started it: use an image of that version (cluster.image, cluster.gpu_image)"
    )


@dataclass(frozen=True)
class _Notes:
    """Notes of one job in the store."""

    store: Store
    prefix: str
    work: str

    def tries(self, shard: str) -> int:
        key = layout.work_try(self.prefix, self.work, shard)
        try:
            return Try.from_bytes(self.store.get(key), self.store.href(key)).tries
        except StoreMissing:
            return 0

    def begin(self, shard: str, tries: int) -> None:
        note = Try(tries=tries, begun=datetime.now(UTC).isoformat(timespec="seconds"), host=socket.gethostname())
        self.store.put(layout.work_try(self.prefix, self.work, shard), note.to_bytes(), expires=True)

    def given_up(self, shard: str) -> bool:
        return self.store.exists(layout.work_failure(self.prefix, self.work, shard))

    def give_up(self, shard: str, note: GivenUp) -> None:
        self.store.put(layout.work_failure(self.prefix, self.work, shard), note.to_bytes(), expires=True)
        self.done(shard)

    def done(self, shard: str) -> None:
        self.store.delete(layout.work_try(self.prefix, self.work, shard))
