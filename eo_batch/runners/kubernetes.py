"""Runs jobs as Kubernetes Indexed Jobs, or as JobSets where several pods work on one shard."""

import uuid
from dataclasses import dataclass

from eo_batch.core.errors import EoBatchError, UsageError
from eo_batch.core.placement import Placement
from eo_batch.runners.base import Job, OnEvent, Outcome, Remote
from eo_batch.runners.book import Book
from eo_batch.runners.kube import JOB, JOBSET, POD, Kind, Kube, insist
from eo_batch.runners.lease import Lease, wait_until_gone
from eo_batch.runners.manifests import WORK_LABEL, object_name, slicing, work_manifest
from eo_batch.runners.preflight import preflight
from eo_batch.runners.watch import Watch, WatchedJob

_END_S = 60.0
"""Longest wait for the pods of a job to be gone: they have half a minute to end."""


@dataclass(frozen=True)
class KubernetesRunner:
    """The runner `kubernetes`."""

    placement: Placement
    lease: Lease
    """Owns the Jobs."""
    name: str = "kubernetes"

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """See `Runner.run`. Raises UsageError for a job without a `remote`, ClusterError where no pod can run or the
        whole Job ended; what is done is done by then. The Job is gone when this returns or raises.
        """
        if job.remote is None:
            raise UsageError(f"{job.name} can't run in pods: it has no list that they could share")
        book = Book(job, on_event)
        if not job.indices:
            return book.outcome()
        kube = self.lease.kube
        preflight(kube, self.placement, job.name)
        per_pod, slices = slicing(self.placement, job.name, len(job.indices))
        argv = job.remote.freeze(job.indices, per_pod)
        name = object_name(self.lease.run, job.name, uuid.uuid4().hex[:8])
        manifest = work_manifest(
            self.placement,
            job.name,
            name,
            argv,
            slices,
            per_pod,
            self.lease.labels,
            job.memory_mb,
            self.lease.owner,
        )
        slice_of = {index: position // per_pod for position, index in enumerate(job.indices)}
        kind = JOBSET if manifest["kind"] == "JobSet" else JOB
        try:
            insist(lambda: kube.create(kind, manifest))
            Watch(self.lease, job.remote, book, WatchedJob(kube, kind, name), slice_of).follow()
        except BaseException as error:
            try:
                _end(kube, kind, name, job.remote)
            except EoBatchError as left:
                error.add_note(str(left))  # why the job ended matters more; the Lease deletes the rest
            raise
        _end(kube, kind, name, job.remote)
        return book.outcome()


def _end(kube: Kube, kind: Kind, name: str, remote: Remote) -> None:
    insist(lambda: kube.delete(kind, name))
    insist(lambda: wait_until_gone(kube, f"{WORK_LABEL}={name}", _END_S, (kind, POD)))
    remote.forget()
