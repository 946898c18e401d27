"""What disturbs a run: pods that are killed while they work, and whatever else is done in the middle of each stage."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.cluster.kube import delete_pod, get, said_in_pod

STAGE = "eo-batch.io/stage"
"""Label of a run's pods."""
_STARTED_S = 60.0
"""Longest time until a pod runs."""
_BEGUN_S = 2.0
"""What is done to a stage has begun by then."""
_REPORTED_S = 5.0
"""A node has reported a kill by then."""

Pod = dict[str, Any]
AtWork = Callable[[], Sequence[tuple[str, Pod]]]
"""The pods of a run that have not ended, each with the stage that it works on."""


def ends(pod: Pod) -> bool:
    """Whether a pod has ended, or was asked to."""
    return pod["status"].get("phase") not in ("Pending", "Running") or "deletionTimestamp" in pod["metadata"]


def signalled(space: str, pod: Pod, signal: str) -> bool:
    """Send a signal to all of a pod's processes but its first; False where there are none, or not yet."""
    script = f"kill -{signal} -1 && echo sent"
    return said_in_pod(space, pod["metadata"]["name"], _main(pod), "sh", "-c", script).strip() == "sent"


def _main(pod: Pod) -> str:
    """The container that works; Argo's pods have another beside it."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    return "main" if "main" in names else names[0]


class Killer:
    """Kills a run's pods, as many of each stage as `wanted` says: every other one at once, the rest politely.

    Some stages take two seconds, and a node takes one to say that a pod runs: a pod's processes are stopped as soon as
    it has any, and go on when it has been asked to end. Only what a node reports to have killed is counted.
    """

    def __init__(self, space: str, at_work: AtWork, wanted: Mapping[str, int], seed: int) -> None:
        self._space, self._at_work, self._wanted = space, at_work, wanted
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
            self._kill(stage, pod)
        if now - self._counted > 1.0:
            self._count()

    def _kill(self, stage: str, pod: Pod) -> None:
        name, uid, deadline_s = pod["metadata"]["name"], pod["metadata"]["uid"], time.monotonic() + _STARTED_S
        while not signalled(self._space, pod, "STOP"):
            if time.monotonic() > deadline_s or all(found["metadata"]["uid"] != uid for _, found in self._at_work()):
                return  # it has ended
        delete_pod(self._space, name, None if len(self._tried) % 2 else 0)
        self._tried[uid] = (stage, time.monotonic())
        signalled(self._space, pod, "CONT")

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
    """Does something once in each stage: one of its pods is stopped until that has begun."""

    def __init__(self, space: str, at_work: AtWork, act: Callable[[], object]) -> None:
        self._space, self._at_work, self._act = space, at_work, act
        self.by_stage: Counter[str] = Counter()
        """How often it was done."""

    def look(self) -> None:
        """Do what is due."""
        for stage, pod in self._at_work():
            if not self.by_stage[stage] and signalled(self._space, pod, "STOP"):
                self.by_stage[stage] += 1
                going_on = threading.Timer(_BEGUN_S, signalled, (self._space, pod, "CONT"))
                going_on.start()
                try:
                    self._act()
                finally:
                    going_on.join()
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
