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


class Killer:
    """Kills running pods of a namespace: `per_stage` of each stage, politely and not in turns."""

    def __init__(self, space: str, stages: Sequence[str], per_stage: int, seed: int) -> None:
        self._space, self._stages, self._per_stage = space, stages, per_stage
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self.killed: dict[str, str] = {}
        """Stage of each pod that was killed, by the pod's uid."""
        self.error: BaseException | None = None

    @property
    def by_stage(self) -> Counter[str]:
        return Counter(self.killed.values())

    def run(self) -> None:
        try:
            while not self._ended.wait(0.1):
                for pod in self._victims():
                    self._kill(pod)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._ended.set()

    def _victims(self) -> list[dict[str, Any]]:
        running = [
            pod
            for pod in get(self._space, "pods", "-l", _STAGE)
            if pod["status"].get("phase") == "Running"
            and "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"]["uid"] not in self.killed
        ]
        found: dict[str, dict[str, Any]] = {}
        for pod in running:
            stage = pod["metadata"]["labels"][_STAGE]
            if stage in self._stages and self.by_stage[stage] < self._per_stage:
                found.setdefault(stage, pod)
        return list(found.values())

    def _kill(self, pod: dict[str, Any]) -> None:
        name, stage = pod["metadata"]["name"], pod["metadata"]["labels"][_STAGE]
        time.sleep(self._random.uniform(0.0, 1.0))
        now = [p for p in get(self._space, "pods", "-l", _STAGE) if p["metadata"]["uid"] == pod["metadata"]["uid"]]
        if not now or now[0]["status"].get("phase") != "Running":
            return  # it ended by itself
        polite = len(self.killed) % 2 == 0
        grace = () if polite else ("--grace-period=0", "--force")
        kubectl("delete", "pod", "-n", self._space, name, "--wait=false", "--ignore-not-found", *grace)
        self.killed[pod["metadata"]["uid"]] = stage


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
