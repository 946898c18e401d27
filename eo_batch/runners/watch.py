"""Watches one piece of work, such as a Job or JobSet, until every index of it has ended.

The pods' state decides nothing: what the store knows of each index does. Kubernetes is asked only whether the Job goes
on, what keeps its pods from running, and why those that died did.

| what happens | what follows |
|---|---|
| a pod dies or is disrupted | it is told; Kubernetes starts it again |
| the API server or the store does not answer | it is told; waits as long as the Lease holds, or for `STORE_S` |
| an image, Secret or permission is missing | it is told; an error if no pod has run for `BROKEN_S` |
| all pods end with errors | they are told; an error if nothing has worked for `FAILING_S` |
| no node, no quota is free | it is told; waits, once a pod could run for the Job's deadline at most |
| somebody deletes the Job or the Lease | an error |
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from eo_batch.core.errors import ClusterDown, ClusterError, ClusterRefused, ShardFailed, StoreError
from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP, STORE_S, Failure, Remote
from eo_batch.runners.book import Book, one_line
from eo_batch.runners.kube import POD, Kind, Kube
from eo_batch.runners.lease import Lease
from eo_batch.runners.manifests import SAME_FOR_ALL, WORK_LABEL, Manifest
from eo_batch.runners.states import GONE, KILLED, End, death, end_of, slice_number
from eo_batch.runners.waits import Wait, waits_of

BROKEN_S = 120.0
"""How long something that only people can mend is waited for while no pod runs, seconds."""
FAILING_S = 600.0
"""How long pods may end with errors while nothing is done and none of them lives for a minute, seconds."""
_FAILURES = 3
"""Pods that have to fail until it looks as if all did."""
_LIVES_S = 60.0
_TELL_AGAIN_S = 60.0
"""After this time something else that the job waits for is told again."""
_LOOK_S = (1.0, 30.0)
"""Least and most seconds between two looks."""
_LOOK_SHARE = 5.0
"""Pause between two looks, in times of what one takes: listing the receipts of a large job takes seconds."""
_PODS_EVERY_S = 4.0
"""Least time between two looks at the pods, which cost more than the one at the Job."""
_LATE_S = 10.0
"""How long receipts may be missing after all pods have ended well: listings of some stores lag behind."""
_MOST_PODS = 2000
"""Failed pods that are looked through, of thousands."""


class Target(Protocol):
    """What is watched."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def labels(self) -> str:
        """Selector of its pods, and of Jobs and JobSets."""
        ...

    def end(self) -> End | None:
        """How it ended; None while it goes on. Raises ClusterError."""
        ...

    def waits(self) -> list[Wait]:
        """What keeps its pods from running, each thing once. Raises ClusterError."""
        ...


@dataclass(frozen=True)
class WatchedJob:
    """A Job or JobSet."""

    kube: Kube
    kind: Kind
    name: str

    @property
    def labels(self) -> str:
        """See `Target.labels`."""
        return f"{WORK_LABEL}={self.name}"

    def end(self) -> End | None:
        """See `Target.end`."""
        work = self.kube.get(self.kind, self.name)
        if work is None or "deletionTimestamp" in work["metadata"]:
            return False, GONE, f"somebody deleted {self.kind.plural}/{self.name} in namespace {self.kube.namespace}"
        return end_of(work)

    def waits(self) -> list[Wait]:
        """See `Target.waits`."""
        return waits_of(self.kube, self.labels)


@dataclass
class Watch:
    """One piece of work."""

    lease: Lease
    remote: Remote
    book: Book
    target: Target
    slice_of: Mapping[int, int | None]
    """Number of the slice of each index; None where pods have no number."""
    _seen: set[str] = field(default_factory=set)
    """Uids of the failed pods that were told."""
    _whys: dict[int | None, str] = field(default_factory=dict)
    """Why the last pod of a slice failed, by the slice's number."""
    _deaths: list[str] = field(default_factory=list)
    """Why pods failed by themselves since something last worked."""
    _worked: float = field(default_factory=time.monotonic)
    """When something last worked, as far as this matters after deaths."""
    _broken: float | None = None
    """Since when only people could help."""
    _store_failed: float | None = None
    _running: dict[str, float] = field(default_factory=dict)
    """Since when some pods were seen running, by uid."""
    _told: tuple[str, float] = ("", 0.0)
    _pods_at: float = 0.0

    def follow(self) -> None:
        """Tell what happens until all indices have ended. Raises ClusterError where none of the rest ever would, and
        StoreError where nobody can say."""
        while self.book.open():
            begun = time.monotonic()
            self.lease.check()
            try:
                if self._look():
                    return
            except ClusterDown as error:
                self._tell(str(error))
            least_s, most_s = _LOOK_S
            time.sleep(min(max((time.monotonic() - begun) * _LOOK_SHARE, least_s), most_s))

    def _look(self) -> bool:
        """Look once; True if all indices have ended."""
        ended = self.target.end()  # before the store: what has ended by now is there
        self._settle()
        if not self.book.open():
            return True
        if ended is not None:
            return self._finish(*ended)
        if time.monotonic() >= self._pods_at:
            self._look_at_pods()
            self._pods_at = time.monotonic() + _PODS_EVERY_S
        return False

    def _settle(self) -> None:
        """Tell what the store knows of."""
        try:
            settled = self.remote.settled()
        except StoreError as error:
            now = time.monotonic()
            self._store_failed = self._store_failed or now
            if not error.retryable or now - self._store_failed > STORE_S:
                raise
            self._tell(str(error))
            return
        self._store_failed = None
        for index in self.book.open():
            if index in settled:
                self.book.end(index, settled[index])
                self._work()

    def _look_at_pods(self) -> None:
        """Tell which pods died, and what keeps others from running."""
        self._tell_deaths()
        kube, labels = self.lease.kube, self.target.labels
        waits = self.target.waits()
        seen = kube.list(POD, labels, "status.phase=Running", most=20) if waits or self._deaths else []
        running = [pod for pod in seen if "deletionTimestamp" not in pod["metadata"]]
        stuck = [wait for wait in waits if not wait.mends]
        # Where some pods run, others that wait for room are nothing to worry about.
        said = "; ".join(wait.message for wait in (stuck if running else waits))
        if said:
            self._tell(said)
        now = time.monotonic()
        if not stuck or running:
            self._broken = None
        else:
            self._broken = self._broken or now
            if now - self._broken > BROKEN_S:
                raise ClusterRefused(f"{said} (no pod has run for {now - self._broken:.0f} s)")
        uids = {pod["metadata"]["uid"] for pod in running}
        self._running = {uid: self._running.get(uid, now) for uid in uids}
        if any(now - since > _LIVES_S for since in self._running.values()):
            self._work()
        if len(self._deaths) >= _FAILURES and now - self._worked > FAILING_S:
            raise ClusterRefused(
                f"no pod does anything: {len(self._deaths)} failed in {now - self._worked:.0f} s, at last because "
                f"{self._deaths[-1]}"
            )

    def _tell_deaths(self) -> None:
        first: dict[int | None, int] = {}
        for index in self.book.open():
            first.setdefault(self.slice_of[index], index)
        for pod in self._failed_pods():
            if pod["metadata"]["uid"] in self._seen:
                continue
            self._seen.add(pod["metadata"]["uid"])
            why, code = death(pod)
            if code == DO_NOT_RETRY:
                continue
            self._whys[slice_number(pod)] = why
            mine = first.get(slice_number(pod))
            if mine is not None:
                self.book.again(mine, why)
            if code not in (None, POLITE_STOP, KILLED):
                if not self._deaths:
                    self._worked = time.monotonic()
                self._deaths.append(why)

    def _finish(self, well: bool, reason: str, message: str) -> bool:
        """The work has ended: so does every index. False while the store does not say of which."""
        deadline = time.monotonic() + _LATE_S
        while well and self.book.open() and time.monotonic() < deadline:
            time.sleep(1.0)
            self._settle()
        if self._store_failed is not None:
            return False
        if not self.book.open():
            return True
        if reason == GONE:
            self.lease.check()
            raise ClusterError(f"{message}; what is done stays done: run it again")
        pods = self._failed_pods()
        if reason == "DeadlineExceeded":
            raise ClusterError(
                f"{self.target.name} took longer than cluster.deadline_s; what is done stays done: run it again, or "
                "raise it"
            )
        if reason == "PodFailurePolicy":
            why = next((why for why, code in map(death, pods) if code in SAME_FOR_ALL), message)
            raise ClusterRefused(f"no pod of this job can work: {why}; check cluster.image and cluster.env")
        whys = self._whys | {slice_number(pod): death(pod)[0] for pod in pods}
        counts = Counter(slice_number(pod) for pod in pods)
        for index in self.book.open():
            number = self.slice_of[index]
            why = whys.get(number) or (
                message if not well else "its pod ended well, but the store has no receipt of it"
            )
            self.book.end(index, Failure(one_line(why), max(counts[number], 1), exit_code=ShardFailed.exit_code))
        return True

    def _failed_pods(self) -> list[Manifest]:
        """Failed pods, the last to be created last."""
        pods = self.lease.kube.list(POD, self.target.labels, "status.phase=Failed", most=_MOST_PODS)
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _work(self) -> None:
        self._worked = time.monotonic()
        self._deaths.clear()

    def _tell(self, said: str) -> None:
        """Tell what the job waits for, unless that was just told."""
        before, when = self._told
        if said != before and (not before or time.monotonic() - when > _TELL_AGAIN_S):
            self._told = said, time.monotonic()
            self.book.wait(said)
