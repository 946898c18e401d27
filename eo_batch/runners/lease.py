"""A Lease that owns everything a run starts in a cluster, and is renewed while whoever started it lives.

Deleted at the end of the run; of a killed one it expires, and `eo-batch sweep` deletes it. Kubernetes then deletes all
that it owns.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from eo_batch.core.errors import ClusterError, ClusterRefused
from eo_batch.core.placement import Placement
from eo_batch.runners.kube import LEASE, STARTED, Kind, Kube, connect, insist
from eo_batch.runners.manifests import LEASE_LABEL, Manifest, labels_of, object_name

GONE_S = 90.0
"""Longest wait for what a run started to be gone: pods have half a minute to end."""
_LOOK_EVERY_S = 1.0


@dataclass
class Lease:
    """A Lease that this process holds."""

    kube: Kube
    name: str
    run: str
    lease_s: int
    """Seconds after its last renewal until it has expired."""
    uid: str = ""
    _object: Manifest = field(default_factory=dict)
    _renewed: float = 0.0
    """When it was last renewed, by the monotonic clock."""
    _lost: str | None = None
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def namespace(self) -> str:
        """Namespace of the Lease and of all that it owns."""
        return self.kube.namespace

    @property
    def owner(self) -> dict[str, Any]:
        """The owner reference for what the Lease is to own."""
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": self.name, "uid": self.uid}

    @property
    def labels(self) -> dict[str, str]:
        """Labels for all that the Lease owns, and for its pods."""
        return labels_of(self.run) | {LEASE_LABEL: self.name}

    def check(self) -> None:
        """Raise ClusterError if the Lease is lost: then what it owned is being deleted, or will be."""
        lost, age_s = self._lost, time.monotonic() - self._renewed
        if lost is None and age_s > self.lease_s:
            lost = f"it could not be renewed for {age_s:.0f} s, and the sweeper may have deleted it"
        if lost is not None:
            raise ClusterError(
                f"lease {self.namespace}/{self.name} is lost: {lost}; what this run started is deleted with it. "
                "What is done stays done: run it again"
            )

    def _take(self) -> None:
        now = _now()
        manifest = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": {
                "holderIdentity": f"{socket.gethostname()}_{os.getpid()}",
                "leaseDurationSeconds": self.lease_s,
                "acquireTime": now,
                "renewTime": now,
            },
        }
        self._object = self.kube.create(LEASE, manifest)
        self.uid, self._renewed = self._object["metadata"]["uid"], time.monotonic()

    def _keep(self) -> None:
        """Renew it until it is released or lost. A renewal that fails is tried again."""
        every_s = min(max(self.lease_s / 5, 1.0), 60.0)
        while not self._released.wait(every_s):
            begun = time.monotonic()
            try:
                self._lost = self._renew()
            except ClusterError:
                continue  # `check` tells when this lasts for too long
            if self._lost is not None:
                return
            self._renewed = begun

    def _renew(self) -> str | None:
        """Renew it once; returns why it is lost, if it is."""
        wanted = self._object | {"spec": self._object["spec"] | {"renewTime": _now()}}
        try:
            written = self.kube.replace(LEASE, wanted)
        except ClusterRefused:
            written = None
        if written is not None:
            self._object = written
        there = written or self.kube.get(LEASE, self.name)
        if there is None or there["metadata"]["uid"] != self.uid or there["metadata"].get("deletionTimestamp"):
            return "somebody deleted it"
        if written is None:
            self._object = there
            raise ClusterError(f"lease {self.name} was not renewed")
        return None

    def _release(self) -> None:
        """Delete it and wait until all that it owned is gone, `GONE_S` at most: it is all being deleted by then, but
        pods on a node that was lost stay until the node's object goes."""
        self._released.set()
        try:
            insist(lambda: self.kube.delete(LEASE, self.name, uid=self.uid))
            insist(lambda: wait_until_gone(self.kube, f"{LEASE_LABEL}={self.name}", GONE_S))
        except ClusterError as error:
            raise ClusterError(
                f"lease {self.namespace}/{self.name} is left behind with all that this run started ({error}); "
                f"`eo-batch sweep` deletes it when it has expired, {self.lease_s} s from now"
            ) from error


@contextmanager
def held_lease(placement: Placement, run: str) -> Iterator[Lease]:
    """Hold a Lease for a run: within the block it is renewed, after it all that it owned is gone.

    Raises ClusterError where the cluster can't be reached or refuses.
    """
    assert placement.cluster is not None
    name = object_name(run, uuid.uuid4().hex[:8])
    lease = Lease(connect(placement.cluster), name, run, placement.cluster.lease_s)
    lease._take()
    keeper = threading.Thread(target=lease._keep, name=f"lease {name}", daemon=True)
    keeper.start()
    try:
        yield lease
    except BaseException as error:
        try:
            lease._release()
        except ClusterError as left:
            error.add_note(str(left))  # why the run ended matters more
        raise
    lease._release()


def wait_until_gone(kube: Kube, labels: str, most_s: float, kinds: Sequence[Kind] = STARTED) -> list[str]:
    """Wait until no object of these kinds with these labels is left, `most_s` at most; returns what is left."""
    deadline = time.monotonic() + most_s
    while True:
        left = [
            f"{kind.plural}/{found['metadata']['name']}"
            for kind in kinds
            for found in kube.list(kind, labels, most=20, absent_ok=True)
        ]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_LOOK_EVERY_S)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
