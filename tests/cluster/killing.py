"""What disturbs a run: pods that are killed while they work, again and again, until somebody has had enough."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.cluster.kube import get, kubectl

_STAGE = "eo-batch.io/stage"
_REPORTED_S = 5.0
"""A node has reported a kill by then."""

Pod = dict[str, Any]


class Killer:
    """Kills running pods of a namespace, `per_stage` of each stage: every other one at once, the rest politely.

    A pod that ended by itself just before counts for nothing: only what a node reports to have killed is counted.
    """

    def __init__(self, space: str, stages: Sequence[str], per_stage: int, seed: int) -> None:
        self._space, self._stages, self._per_stage = space, stages, per_stage
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self._tried: dict[str, tuple[str, float]] = {}
        """Stage of each pod that was deleted, and when, by uid."""
        self.killed: dict[str, str] = {}
        """Stage of each pod that a node killed because it was deleted here, by uid."""
        self.error: BaseException | None = None

    @property
    def by_stage(self) -> Counter[str]:
        return Counter(self.killed.values())

    def run(self) -> None:
        try:
            while not self._ended.wait(0.1):
                self._count()
                for pod in self._victims():
                    self._kill(pod)
            time.sleep(_REPORTED_S)
            self._count()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._ended.set()

    def _count(self) -> None:
        if self._tried.keys() - self.killed.keys():
            seen = kills_seen(self._space)
            self.killed |= {uid: stage for uid, (stage, _) in self._tried.items() if uid in seen}

    def _victims(self) -> list[Pod]:
        """One running pod of each stage that has had too few kills, those on their way counted in."""
        now = time.monotonic()
        due = {uid for uid, (_, at) in self._tried.items() if now - at < _REPORTED_S}
        had = Counter(self._tried[uid][0] for uid in due | self.killed.keys())
        found: dict[str, Pod] = {}
        for pod in get(self._space, "pods", "-l", _STAGE):
            stage = pod["metadata"]["labels"][_STAGE]
            if stage in self._stages and had[stage] < self._per_stage and _runs(pod):
                found.setdefault(stage, pod)
        return [pod for pod in found.values() if pod["metadata"]["uid"] not in self._tried]

    def _kill(self, pod: Pod) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if pod["metadata"]["labels"][_STAGE] in self.by_stage:  # the first comes at once: some stages are short
            time.sleep(self._random.uniform(0.0, 1.0))
        grace = () if len(self._tried) % 2 else ("--grace-period=0", "--force")
        kubectl("delete", "pod", "-n", self._space, name, "--wait=false", "--ignore-not-found", *grace)
        self._tried[uid] = (pod["metadata"]["labels"][_STAGE], time.monotonic())


def _runs(pod: Pod) -> bool:
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


@contextmanager
def killing(space: str, stages: Sequence[str], per_stage: int, seed: int) -> Iterator[Killer]:
    """Kill while the block runs. Raises what went wrong with it."""
    killer = Killer(space, stages, per_stage, seed)
    thread = threading.Thread(target=killer.run, daemon=True)
    thread.start()
    try:
        yield killer
    finally:
        killer.stop()
        thread.join(timeout=60)
    if killer.error is not None:
        raise killer.error


def kills_seen(space: str) -> set[str]:
    """Uids of the pods that the nodes report to have killed."""
    return {
        event["involvedObject"]["uid"]
        for event in get(space, "events", "--field-selector", "reason=Killing,involvedObject.kind=Pod")
    }
