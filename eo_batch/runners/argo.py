"""Runs jobs as Argo workflows, and follows those of whole runs.

What the store knows of each shard decides, as it does for Jobs; Argo is asked only whether the workflow goes on. While
its server is away, the workflow's object tells.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from eo_batch.core.errors import ClusterDown, ClusterRefused, EoBatchError, UsageError
from eo_batch.core.placement import Placement
from eo_batch.runners.argo_server import Server
from eo_batch.runners.base import Job, OnEvent, Outcome
from eo_batch.runners.book import Book, one_line
from eo_batch.runners.kube import JOB, JOBSET, SERVICE_ACCOUNT, WORKFLOW, Kube, insist
from eo_batch.runners.lease import Lease, wait_until_gone
from eo_batch.runners.manifests import LEASE_LABEL, WORK_LABEL, Manifest, object_name, slicing, work_manifest
from eo_batch.runners.nudge import nudge, overlooked
from eo_batch.runners.preflight import preflight
from eo_batch.runners.states import GONE, End, end_of
from eo_batch.runners.waits import Wait, steps_wait, waits_of
from eo_batch.runners.watch import Watch
from eo_batch.runners.workflow import FAN_OUTS, RUNNER, WATCH_SUFFIX, fan_out_workflow

_ENDED = ("Succeeded", "Failed", "Error")
_SAID_FIRST = re.compile(r"^main: Error \(exit code \d+\): (no more retries )?")
"""What Argo says before it says what is wrong."""
_END_S = 60.0
"""Longest wait for the pods of a job to be gone: they have half a minute to end."""


@dataclass(frozen=True)
class ArgoRunner:
    """The runner `argo` for one job; whole runs are one workflow instead (`entry.follow`)."""

    placement: Placement
    lease: Lease
    """Owns the workflows."""
    name: str = RUNNER

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        """See `Runner.run`. Raises as `KubernetesRunner.run`. The workflow is gone when this returns or raises."""
        if job.remote is None:
            raise UsageError(f"{job.name} can't run in pods: it has no list that they could share")
        book = Book(job, on_event)
        if not job.indices:
            return book.outcome()
        lease, placement = self.lease, self.placement
        server = Server(lease.kube, placement.argo)
        check_argo(lease.kube, placement)
        preflight(lease.kube, placement, job.name)
        per_pod, slices = slicing(placement, job.name, len(job.indices))
        argv = job.remote.freeze(job.indices, per_pod)
        name = object_name(lease.run, job.name, uuid.uuid4().hex[:8])
        work = work_manifest(placement, job.name, name, argv, slices, per_pod, lease.labels, job.memory_mb)
        slice_of = {index: position // per_pod for position, index in enumerate(job.indices)}
        target = WatchedWorkflow(server, name, f"{WORK_LABEL}={name}", work["kind"], name)
        try:
            insist(lambda: server.submit(fan_out_workflow(placement, name, job.name, lease.labels, lease.owner, work)))
            Watch(lease, job.remote, book, target, slice_of).follow()
        except BaseException as error:
            try:
                _end(server, job, name)
            except EoBatchError as left:
                error.add_note(str(left))  # why the job ended matters more; the Lease deletes the rest
            raise
        _end(server, job, name)
        return book.outcome()


@dataclass(frozen=True)
class WatchedWorkflow:
    """A workflow, as far as one stage of it is concerned."""

    server: Server
    name: str
    labels: str
    """Selector of the stage's pods, and of its Job."""
    kind: str = ""
    """Kind of the object that runs the stage's shards; empty if it has none."""
    work: str = ""
    """Name of that object, which need not be there yet."""

    def end(self) -> End | None:
        """See `Target.end`. How the Job failed says more than that the workflow did."""
        kube = self.server.kube
        work = kube.get(JOBSET if self.kind == "JobSet" else JOB, self.work) if self.work else None
        ended = end_of(work) if work is not None else None
        if ended is not None and not ended[0]:
            return ended
        found = self._look("metadata,status.phase")
        if found is None or "deletionTimestamp" in found["metadata"]:
            return False, GONE, f"somebody deleted workflow {self.name} in namespace {kube.namespace}"
        if found.get("status", {}).get("phase") not in _ENDED:
            return None
        status = (self._look("metadata,status") or found)["status"]
        return status["phase"] == "Succeeded", status["phase"], f"workflow {self.name} failed: {why_failed(status)}"

    def waits(self) -> list[Wait]:
        """See `Target.waits`. Reminds Argo of pods that were lost."""
        nodes = (self._look("status.nodes") or {}).get("status", {}).get("nodes") or {}
        if overlooked(nodes):
            nudge(self.server.kube, self.name)
        return list(dict.fromkeys([*waits_of(self.server.kube, self.labels), *steps_wait(nodes)]))

    def _look(self, fields: str) -> Manifest | None:
        try:
            return self.server.look(self.name, fields)
        except ClusterDown:
            return self.server.kube.get(WORKFLOW, self.name)


def stage_target(server: Server, workflow: str, lease: Lease, stage: str, work: str, kind: str) -> WatchedWorkflow:
    """One stage of a run's workflow; `work` and `kind` are those of the object that a fan-out creates."""
    who = f"{stage}, {stage}{WATCH_SUFFIX}" if stage in FAN_OUTS else stage
    labels = f"{LEASE_LABEL}={lease.name},app.kubernetes.io/component in ({who})"
    return WatchedWorkflow(server, workflow, labels, *((kind, work) if stage in FAN_OUTS else ()))


def why_failed(status: Mapping[str, object]) -> str:
    """Why a workflow failed, in one line, by its status: what Argo says of the node that failed last."""
    nodes = status.get("nodes")
    failed = [
        node
        for node in (nodes.values() if isinstance(nodes, dict) else ())
        if node.get("phase") in ("Failed", "Error") and node.get("type") == "Pod" and node.get("message")
    ]
    if not failed:
        return one_line(str(status.get("message") or "Argo does not say why"))
    last = max(failed, key=lambda node: str(node.get("finishedAt") or ""))
    return one_line(f"{last['displayName']}: {_SAID_FIRST.sub('', last['message'])}")


def check_argo(kube: Kube, placement: Placement) -> None:
    """Raise ClusterRefused if workflows can't run in a namespace, naming everything that is missing."""
    account = placement.argo.service_account
    problems = []
    if kube.served(WORKFLOW) is None:
        problems.append("the cluster has no workflows.argoproj.io: install Argo Workflows")
    try:
        there = kube.get(SERVICE_ACCOUNT, account) is not None
    except ClusterRefused:
        there = True  # we may not look: what happens to the pods will tell
    if not there:
        problems.append(
            f"service account {account} (argo.service_account) is not there in namespace {kube.namespace}: install the "
            "chart, or name another"
        )
    if problems:
        raise ClusterRefused("; ".join(problems))


def _end(server: Server, job: Job, name: str) -> None:
    assert job.remote is not None
    insist(lambda: server.delete(name))
    insist(lambda: wait_until_gone(server.kube, f"{WORK_LABEL}={name}", _END_S))
    job.remote.forget()
