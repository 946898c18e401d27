"""Dask clusters of the Dask operator, and the runner on whichever Dask cluster a placement names.

The DaskCluster is created here and not by `KubeCluster`, which gives up after a minute where the operator's handlers
race (they leave `status.phase` at Pending though everything runs), waits for ever for an image that does not exist, and
knows no context but the current one. It is a DaskCluster like any other: people attach with `KubeCluster.from_name`.
"""

import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from eo_batch.core.errors import ClusterDown, ClusterRefused
from eo_batch.core.placement import Placement
from eo_batch.runners.base import Job
from eo_batch.runners.book import one_line
from eo_batch.runners.dask import DaskRunner
from eo_batch.runners.dask_forward import Forward
from eo_batch.runners.dask_manifests import CLUSTER_LABEL, COMM_PORT, PART_LABEL, autoscaler_manifest, cluster_manifest
from eo_batch.runners.dask_places import AtAddress, LocalProcesses
from eo_batch.runners.kube import DASK_CLUSTER, DEPLOYMENT, POD, SERVICE_ACCOUNT, Kind, Kube, insist
from eo_batch.runners.lease import Lease, held_lease, wait_until_gone
from eo_batch.runners.manifests import WORK_LABEL, Manifest, object_name
from eo_batch.runners.waits import Wait, deployments_wait, pods_wait

AUTOSCALER = Kind("kubernetes.dask.org", "v1", "daskautoscalers", "the Dask operator")

_OPERATOR_S = 120.0
"""An operator that lives has made the scheduler's Deployment by then."""
_LET_GO_S = 10.0
"""Longest wait for the operator to let go of an autoscaler."""
_END_S = 60.0
"""Longest wait for a cluster's pods to be gone: they have half a minute to end."""


@contextmanager
def dask_runner(placement: Placement, run: str) -> Iterator[DaskRunner]:
    """The runner `dask` of a placement: at its address, on the operator's cluster, or on processes of this machine.

    What it starts is gone when the block ends. Raises ClusterError where the cluster can't be reached or refuses.
    """
    if placement.dask.address is not None:
        yield DaskRunner(AtAddress(placement.dask.address))
    elif placement.cluster is None:
        with DaskRunner(LocalProcesses(placement.dask.workers_max)) as runner:
            yield runner
    else:
        with held_lease(placement, run) as lease, DaskRunner(OperatorCluster(placement, lease)) as runner:
            yield runner


@dataclass(frozen=True)
class _Running:
    """A DaskCluster that was created here."""

    made: Manifest
    """As the API gave it."""
    image: str
    memory_mb: int
    """What an index may need."""
    began: datetime

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.made["metadata"]["name"])


@dataclass
class OperatorCluster:
    """A place whose cluster starts at the first job, and again for a job that needs another image or more memory."""

    placement: Placement
    lease: Lease
    """Owns the cluster."""
    _running: _Running | None = field(default=None, repr=False)
    _least: int = 0
    """Workers that the autoscaler keeps at least."""
    _forward: Forward | None = field(default=None, repr=False)

    def address(self, job: Job | None) -> str:
        """See `Place`."""
        if self._running is None or (job is not None and not self._suits(self._running, job)):
            self.close()
            self._running = self._start(job)
        return f"tcp://{self._reach(self._running, self._scheduler_pod(self._running))}"

    def want(self, workers: int) -> None:
        """See `Place`. Raises ClusterError if the Lease is lost.

        The autoscaler asks the scheduler how many workers it can use, and the scheduler knows only of indices that
        have a worker; how many wait is told by its minimum.
        """
        self.lease.check()
        least = self._bounded(workers)
        if self._running is None or least == self._least:
            return
        with suppress(ClusterDown):  # the number of workers can wait for an API server that restarts
            self._scale(self._running.name, least)

    def disrupted(self, worker: str) -> bool:
        """See `Place`: whether its pod is gone, or was taken."""
        running = self._running
        if running is None:
            return False
        host = worker.rpartition("://")[2].rpartition(":")[0]
        pods = insist(lambda: self._kube.list(POD, _labels(running, "worker")))
        return all(was_taken(pod) for pod in pods if pod.get("status", {}).get("podIP") == host)

    def waiting(self) -> str:
        """See `Place`. Raises ClusterRefused if time can't mend it."""
        assert self._running is not None
        where = f"kubectl get pods -n {self._kube.namespace} -l {_labels(self._running, 'worker')}"
        try:
            why = self._why(self._running, "worker")
        except ClusterDown as error:
            why = str(error)
        return f"{why}; see {where}" if why else f"see {where}"

    def close(self) -> bool:
        """See `Place`."""
        running, self._running = self._running, None
        self._end_forward()
        if running is not None:
            self._end_autoscaler(running.name)
            # In the foreground: what the cluster owns goes even if no operator lives that would let it go itself.
            insist(lambda: self._kube.delete(DASK_CLUSTER, running.name, "Foreground"))
            wait_until_gone(self._kube, f"{CLUSTER_LABEL}={running.name}", _END_S, (POD,))
        return True

    @property
    def _kube(self) -> Kube:
        return self.lease.kube

    def _bounded(self, workers: int) -> int:
        return max(self.placement.dask.workers_min, min(self.placement.dask.workers_max, workers))

    def _suits(self, running: _Running, job: Job) -> bool:
        gpu_image = self.placement.cluster.gpu_image if self.placement.cluster is not None else None
        has_image = running.image in (self.placement.image_of(job.name), gpu_image)
        return has_image and job.memory_mb <= running.memory_mb

    def _start(self, job: Job | None) -> _Running:
        _preflight(self._kube, self.placement)
        stage, memory_mb = (job.name, job.memory_mb) if job is not None else ("chips", 0)
        name = object_name(self.lease.run, "dask", uuid.uuid4().hex[:8])
        workers = self._bounded(len(job.indices) if job is not None else 0)
        labels = {**self.lease.labels, WORK_LABEL: name}
        manifest = cluster_manifest(self.placement, stage, name, workers, labels, memory_mb, self.lease.owner)
        made = insist(lambda: self._kube.create(DASK_CLUSTER, manifest))
        memory_mb = max(memory_mb, self.placement.pools[self.placement.dask.pool].memory_mb)
        running = _Running(made, self.placement.image_of(stage), memory_mb, datetime.now(UTC))
        autoscaler = autoscaler_manifest(made, workers, self.placement.dask.workers_max)
        insist(lambda: self._kube.create(AUTOSCALER, autoscaler))
        self._least = workers
        return running

    def _scale(self, name: str, least: int) -> None:
        autoscaler = self._kube.get(AUTOSCALER, name)
        if autoscaler is None:
            return  # the cluster is being deleted
        wanted = autoscaler | {"spec": autoscaler["spec"] | {"minimum": least}}
        if self._kube.replace(AUTOSCALER, wanted) is not None:  # else the operator wrote meanwhile: next time
            self._least = least

    def _end_autoscaler(self, name: str) -> None:
        """Before its cluster: the operator holds on to both while it asks a scheduler that is gone."""
        with suppress(ClusterRefused):  # its cluster owns it, and takes it along
            insist(lambda: self._kube.delete(AUTOSCALER, name))
            deadline = time.monotonic() + _LET_GO_S
            while insist(lambda: self._kube.get(AUTOSCALER, name)) is not None and time.monotonic() < deadline:
                time.sleep(0.5)

    def _scheduler_pod(self, running: _Running) -> str:
        """Name of the scheduler's pod. Raises OSError saying why it is not ready, ClusterError if it will not be."""
        pods = insist(lambda: self._kube.list(POD, _labels(running, "scheduler")))
        for pod in pods:
            if _is_ready(pod):
                return str(pod["metadata"]["name"])
        why = self._why(running, "scheduler")
        if not pods and not why and datetime.now(UTC) - running.began > timedelta(seconds=_OPERATOR_S):
            raise ClusterRefused(
                f"nobody starts the scheduler of DaskCluster {self._kube.namespace}/{running.name}: is the Dask "
                "operator running, and does it watch this namespace?"
            )
        raise TimeoutError(why or f"the scheduler of DaskCluster {self._kube.namespace}/{running.name} is starting")

    def _why(self, running: _Running, part: str) -> str:
        """What keeps the pods of the scheduler or the workers from running; empty if nobody knows.

        Raises ClusterRefused if time can't mend it.
        """
        pods = self._kube.list(POD, _labels(running, part))
        deployments = self._kube.list(DEPLOYMENT, _labels(running, part), absent_ok=True)
        waits = [*pods_wait(pods), *_crashes(pods), *deployments_wait(deployments)]
        for wait in waits:
            if not wait.mends:
                raise ClusterRefused(wait.message)
        return waits[0].message if waits else ""

    def _reach(self, running: _Running, pod: str) -> str:
        """Host and port that lead to the scheduler from here. Raises OSError if none does."""
        service = f"{running.name}-scheduler.{self._kube.namespace}.svc"
        try:
            socket.getaddrinfo(service, COMM_PORT)
            return f"{service}:{COMM_PORT}"
        except socket.gaierror:
            pass  # such names are known inside the cluster only
        if self._forward is None or self._forward.pod != pod:
            self._end_forward()
            context = self.placement.cluster.context if self.placement.cluster is not None else None
            self._forward = Forward(self._kube.namespace, pod, COMM_PORT, context)
        return self._forward.address

    def _end_forward(self) -> None:
        forward, self._forward = self._forward, None
        if forward is not None:
            forward.close()


def _labels(running: _Running, part: str) -> str:
    """A selector of the pods and Deployments of a part of a cluster."""
    return f"{CLUSTER_LABEL}={running.name},{PART_LABEL}={part}"


def was_taken(pod: Manifest) -> bool:
    """Whether a pod is about to go, or is on a node that is lost: what ended in it did not end by itself."""
    conditions = _conditions(pod)
    # A lost node tells nothing of its containers, so that they seem ready in a pod that is not; a container that ends
    # makes neither ready.
    lost = conditions.get("Ready") == "False" and conditions.get("ContainersReady") == "True"
    return "deletionTimestamp" in pod["metadata"] or conditions.get("DisruptionTarget") == "True" or lost


def _is_ready(pod: Manifest) -> bool:
    return _conditions(pod).get("Ready") == "True" and not was_taken(pod)


def _conditions(pod: Manifest) -> dict[str, str]:
    return {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions") or ()}


def _crashes(pods: Sequence[Manifest]) -> Iterator[Wait]:
    """Pods whose process ends again and again."""
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses") or ():
            if (container.get("state", {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff":
                ended = container.get("lastState", {}).get("terminated") or {}
                said = one_line((ended.get("message") or "").strip().rpartition("\n")[2])
                why = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode')}"
                yield Wait(f"{pod['metadata']['name']} ends again and again ({why}): {said}", mends=True)


def _preflight(kube: Kube, placement: Placement) -> None:
    """Raise ClusterRefused naming what the cluster does not have, with its remedy."""
    assert placement.cluster is not None
    where = f"in namespace {kube.namespace}"
    pool = placement.dask.pool
    queue = placement.pools[pool].queue
    if queue is not None:
        raise ClusterRefused(
            f"dask.pool={pool} waits in queue {queue} (pools.{pool}.queue), which does not admit Dask's workers: name "
            "a pool without a queue, and limit it by dask.workers_max"
        )
    if kube.served(DASK_CLUSTER) is None:
        raise ClusterRefused(
            "the cluster has no DaskCluster: install the Dask operator (chart dask-kubernetes-operator)"
        )
    wanted = [*((verb, DASK_CLUSTER) for verb in ("create", "delete")), ("list", POD)]
    wanted += [(verb, AUTOSCALER) for verb in ("create", "get", "update", "delete")]
    denied = [f"{verb} {kind.plural}" for verb, kind in wanted if not kube.may(verb, kind)]
    if denied:
        raise ClusterRefused(f"we may not {', '.join(denied)} {where}: bind us to the chart's role for drivers")
    account = placement.cluster.service_account
    try:
        missing = kube.get(SERVICE_ACCOUNT, account) is None
    except ClusterRefused:
        missing = False  # we may not look: what happens to the pods will tell
    if missing:
        raise ClusterRefused(f"service account {account} is not there {where}: install the chart, or name another")
