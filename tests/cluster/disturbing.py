"""What disturbs a run: pods that are killed while they work, and whatever else is done in the middle of each stage."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.cluster.kube import delete_pod, get

STAGE = "eo-batch.io/stage"
"""Label of a run's pods."""
_STARTED_S, _ENDS_S = 10.0, 1.0
"""Longest time until a pod runs, and what it takes to end one."""
_REPORTED_S = 5.0
"""A node has reported a kill by then."""

Pod = dict[str, Any]
AtWork = Callable[[], Sequence[tuple[str, Pod]]]
"""The pods of a run that have not ended, each with the stage that it works on."""
Held = Callable[[], AbstractContextManager[None]]
"""Holds back what pods need to finish."""


def runs(pod: Pod) -> bool:
    """Whether a pod runs."""
    return bool(pod["status"].get("phase") == "Running")


def ends(pod: Pod) -> bool:
    """Whether a pod has ended, or was asked to."""
    return pod["status"].get("phase") not in ("Pending", "Running") or "deletionTimestamp" in pod["metadata"]


class Killer:
    """Kills a run's pods, as many of each stage as `wanted` says: every other one at once, the rest politely.

    Some stages take two seconds, and a node takes one to say that a pod runs: until then the pod is held back. One that
    ended by itself nevertheless counts for nothing: only what a node reports to have killed is counted.
    """

    def __init__(self, space: str, at_work: AtWork, wanted: Mapping[str, int], held: Held, seed: int) -> None:
        self._space, self._at_work, self._wanted, self._held = space, at_work, wanted, held
        self._random = random.Random(seed)
        self._tried: dict[str, tuple[str, float]] = {}
        """Stage of each pod that was deleted, and when, by uid."""
        self._counted = 0.0
        self._killed: set[str] = set()
        """Uids of the pods that nodes killed because they were deleted here."""

    @property
    def by_stage(self) -> Counter[str]:
        """Kills that were seen."""
        return Counter(self._tried[uid][0] for uid in self._killed)

    def look(self) -> None:
        """Kill what is due."""
        now = time.monotonic()
        due = {uid for uid, (_, at) in self._tried.items() if now - at < _REPORTED_S}
        had = Counter(self._tried[uid][0] for uid in due | self._killed)
        victims: dict[str, Pod] = {}
        for stage, pod in self._at_work():
            if had[stage] < self._wanted.get(stage, 0) and pod["metadata"]["uid"] not in self._tried:
                victims.setdefault(stage, pod)
        for stage, pod in victims.items():
            if had[stage]:
                time.sleep(self._random.uniform(0.0, 1.0))
            with self._held():
                self._kill(stage, pod)
        if now - self._counted > 1.0:
            self._count()

    def _kill(self, stage: str, pod: Pod) -> None:
        uid, deadline_s = pod["metadata"]["uid"], time.monotonic() + _STARTED_S
        while time.monotonic() < deadline_s:
            now = [found for _, found in self._at_work() if found["metadata"]["uid"] == uid]
            if not now:
                return  # it has ended
            if runs(now[0]):
                delete_pod(self._space, pod["metadata"]["name"], None if len(self._tried) % 2 else 0)
                self._tried[uid] = (stage, time.monotonic())
                time.sleep(_ENDS_S)
                return
            time.sleep(0.05)

    def end(self) -> None:
        """Count what nodes report late."""
        time.sleep(_REPORTED_S)
        self._count()

    def _count(self) -> None:
        self._counted = time.monotonic()
        if self._tried.keys() - self._killed:
            events = get(self._space, "events", "--field-selector", "reason=Killing,involvedObject.kind=Pod")
            self._killed |= self._tried.keys() & {event["involvedObject"]["uid"] for event in events}


class InEachStage:
    """Does something once in each stage, when one of its pods runs."""

    def __init__(self, at_work: AtWork, act: Callable[[], object]) -> None:
        self._at_work, self._act = at_work, act
        self.by_stage: Counter[str] = Counter()
        """How often it was done."""

    def look(self) -> None:
        """Do what is due."""
        for stage, pod in self._at_work():
            if runs(pod) and not self.by_stage[stage]:
                self.by_stage[stage] += 1
                self._act()
                return

    def end(self) -> None:
        """Nothing comes late."""


@contextmanager
def disturbing(disturber: Killer | InEachStage) -> Iterator[None]:
    """Let it look again and again while the block runs. Raises what went wrong with it."""
    ended, errors = threading.Event(), list[BaseException]()

    def watch() -> None:
        try:
            while not ended.wait(0.05):
                disturber.look()
            disturber.end()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=120)
    if errors:
        raise errors[0]
