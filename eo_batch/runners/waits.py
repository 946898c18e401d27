"""What keeps pods from running, in words for people: asked of the cluster, told by runners and by `eo-batch status`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from eo_batch.runners.book import one_line
from eo_batch.runners.kube import DEPLOYMENT, EVENT, JOB, JOBSET, POD, WORKFLOW, WORKLOADS, Kube
from eo_batch.runners.manifests import Manifest

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_SLOW_KUBELET = re.compile("timed out|deadline exceeded|failed to reserve container name")
"""What it says of a start that it could not finish in time, and tries again."""
_PREEMPTION = re.compile(r"(?:no new claims to deallocate, *)?preemption:")
"""Where the scheduler goes on to say whom it could not have driven out."""
_SOME = 50
"""Pods that are looked at: if more wait, they wait for the same."""
_SLOW_S = 60.0
"""A pod that is on a node and has not started for this time has something that keeps it from it."""
_STUCK_S = 600.0
"""One for which nothing is said after this time, not even that its image is slow, may never start."""
_LOST_S = 30.0
"""A pod that is still there this long after it should have ended is on a node that is lost."""


@dataclass(frozen=True)
class Wait:
    """Something that keeps pods from running."""

    message: str
    """One line for a person: what, where, and what to do."""
    mends: bool
    """Whether time can mend it: nodes come, quota gets free. Otherwise somebody has to change something."""


def waits_of(kube: Kube, labels: str) -> list[Wait]:
    """What the work with these labels (a selector) waits for, each thing once; empty if nothing is in its way.

    Raises ClusterError.
    """
    now = kube.now()
    jobs, sets = kube.list(JOB, labels), kube.list(JOBSET, labels, absent_ok=True)
    found = [*_queued(kube, [*jobs, *sets])]
    for job in jobs:
        found += _not_created(kube, job)
    found += deployments_wait(kube.list(DEPLOYMENT, labels, absent_ok=True))
    pending = kube.list(POD, labels, "status.phase=Pending", _SOME)
    found += pods_wait(pending)
    slow = next((pod for pod in pending if _on_node_for(pod, now) > timedelta(seconds=_SLOW_S)), None)
    if slow is not None and not found:
        fields = f"involvedObject.uid={slow['metadata']['uid']},type=Warning"
        wait = slow_wait(slow, kube.list(EVENT, fields=fields, most=50, absent_ok=True), now)
        found += [wait] if wait is not None else []
    if any(job.get("status", {}).get("terminating") for job in jobs):
        found += lost_pods(kube.list(POD, labels, "status.phase=Running", _SOME), now)
    return list(dict.fromkeys(found))


def run_waits(kube: Kube, labels: str) -> list[Wait]:
    """The same for all that a run has started, its workflows' steps included. Raises ClusterError."""
    workflows = kube.list(WORKFLOW, labels, absent_ok=True)
    steps = [wait for workflow in workflows for wait in steps_wait(workflow.get("status", {}).get("nodes") or {})]
    return list(dict.fromkeys([*waits_of(kube, labels), *steps]))


def pods_wait(pods: Iterable[Manifest]) -> Iterator[Wait]:
    """What pending pods wait for."""
    for pod in pods:
        status = pod.get("status", {})
        for condition in status.get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                text = condition.get("message") or condition.get("reason") or "no reason given"
                yield Wait(f"no node takes the pods: {one_line(_PREEMPTION.split(text)[0])}", mends=True)
        for container in status.get("containerStatuses") or ():
            waiting = container.get("state", {}).get("waiting") or {}
            reason, text = waiting.get("reason", ""), one_line(waiting.get("message", ""))
            if reason in _IMAGE:
                # Only the first failure says why; later ones that somebody is backing off.
                why = f": {text}" if text and not text.startswith("Back-off") else ""
                yield Wait(
                    f"image {container['image']} can't be pulled ({reason}){why}; check cluster.image", mends=False
                )
            elif reason in _START:
                slow = _SLOW_KUBELET.search(text) is not None
                check = "" if slow else "; check cluster.secrets"
                yield Wait(f"the pods can't be started ({reason}): {text}{check}", mends=slow)


def lost_pods(pods: Iterable[Manifest], now: datetime) -> Iterator[Wait]:
    """Pods that should have ended and have not, because nobody on their node tells."""
    for pod in pods:
        ends = pod["metadata"].get("deletionTimestamp")
        if ends is not None and now - _time(ends) > timedelta(seconds=_LOST_S):
            node = pod["spec"].get("nodeName", "its node")
            yield Wait(
                f"{node} is lost, and its pods count as running until it is gone: `kubectl delete node {node}`, if no "
                "cloud controller does",
                mends=True,
            )


def slow_wait(pod: Manifest, warnings: Sequence[Manifest], now: datetime) -> Wait | None:
    """Why a pod that is on a node has not started, by the warnings about it; None if that may be all right yet."""
    if warnings:
        last = max(warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return Wait(f"the pods can't be started ({last['reason']}): {one_line(last.get('message') or '')}", mends=True)
    since = _on_node_for(pod, now)
    if since <= timedelta(seconds=_STUCK_S):
        return None
    # Kubelet does not go on with a container that it had made, and not started, when its node crashed.
    name = pod["metadata"]["name"]
    return Wait(
        f"pod {name} has not started for {since // timedelta(minutes=1)} min on {pod['spec'].get('nodeName')}: "
        f"`kubectl delete pod {name}` lets another one take its place",
        mends=True,
    )


def created_wait(events: Iterable[Manifest]) -> Wait | None:
    """Why a Job can't create its pods, by its events; None if it can."""
    newest: dict[str, tuple[datetime, str]] = {}
    for event in events:
        when = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        seen = (_time(when), event.get("message") or "")
        newest[event["reason"]] = max(newest.get(event["reason"], seen), seen)
    failed, created = newest.get("FailedCreate"), newest.get("SuccessfulCreate")
    if failed is None or (created is not None and created[0] >= failed[0]):
        return None
    return _not_admitted(failed[1].removeprefix("Error creating: "))


def deployments_wait(deployments: Iterable[Manifest]) -> Iterator[Wait]:
    """Why the pods of Deployments, which are those of Dask clusters, can't be created."""
    for deployment in deployments:
        for condition in deployment.get("status", {}).get("conditions") or ():
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                yield _not_admitted(condition["message"])


def steps_wait(nodes: Mapping[str, Manifest]) -> Iterator[Wait]:
    """Why Argo can't create the pods of a workflow's steps, by its nodes: it goes on trying where a quota is used up,
    and tells nobody else. What becomes of pods that are there, they tell themselves."""
    for node in nodes.values():
        said = node.get("message") or ""
        if node.get("type") == "Pod" and node.get("phase") == "Pending" and "forbidden: " in said:
            yield _not_admitted(said)


def workload_wait(workload: Manifest, queue: str) -> Wait | None:
    """What a Kueue workload waits for; None if it is admitted, or not yet looked at."""
    conditions = {one["type"]: one for one in workload.get("status", {}).get("conditions") or ()}
    if conditions.get("Admitted", {}).get("status") == "True":
        return None
    for kind in ("QuotaReserved", "Admitted"):
        condition = conditions.get(kind)
        if condition is not None and condition["status"] == "False":
            text = one_line(condition.get("message", ""))
            never = condition.get("reason") == "Inadmissible" or "> maximum capacity" in text
            return Wait(f"queue {queue} has not admitted the pods: {text}", mends=not never)
    return None


def _not_admitted(said: str) -> Wait:
    text = re.sub(r'^pods "[^"]*" is ', "pods are ", one_line(said))
    # A webhook that does not answer is an internal error.
    passes = "Internal error occurred" in text or ("exceeded quota" in text and not _never_fits(text))
    return Wait(f"the pods are not admitted: {text}", mends=passes)


def _queued(kube: Kube, works: Iterable[Manifest]) -> Iterator[Wait]:
    waiting = [work for work in works if work["spec"].get("suspend")]
    if not waiting:
        return
    kind = kube.served(*WORKLOADS)
    if kind is None:
        name = waiting[0]["metadata"]["name"]
        yield Wait(f"{name} is suspended, and nobody will resume it: the cluster has no Kueue", mends=False)
        return
    for work in waiting:
        queue = work["metadata"]["labels"].get("kueue.x-k8s.io/queue-name", "?")
        uid = work["metadata"]["uid"]
        for workload in kube.list(kind, f"kueue.x-k8s.io/job-uid={uid}", absent_ok=True):
            wait = workload_wait(workload, queue)
            if wait is not None:
                yield wait


def _not_created(kube: Kube, job: Manifest) -> Iterator[Wait]:
    spec, status = job["spec"], job.get("status", {})
    ended = sum(1 for condition in status.get("conditions") or () if condition["type"] in ("Complete", "Failed"))
    left = spec["completions"] - status.get("succeeded", 0)
    if ended or spec.get("suspend") or status.get("active", 0) >= min(left, spec["parallelism"]):
        return
    fields = f"involvedObject.uid={job['metadata']['uid']}"
    wait = created_wait(kube.list(EVENT, fields=fields, most=500, absent_ok=True))
    if wait is not None:
        yield wait


def _on_node_for(pod: Manifest, now: datetime) -> timedelta:
    scheduled = [
        _time(condition["lastTransitionTime"])
        for condition in pod.get("status", {}).get("conditions") or ()
        if condition["type"] == "PodScheduled" and condition["status"] == "True"
    ]
    return now - scheduled[0] if scheduled else timedelta()


def _never_fits(text: str) -> bool:
    """Whether a quota's whole amount is less than one pod asks for, from what admission says of it."""
    found = re.search(r"requested: (\S+), used: \S+, limited: (\S+)", text)
    if found is None:
        return False
    asked, limited = (dict(pair.split("=", 1) for pair in amounts.split(",")) for amounts in found.groups())
    return any(_amount(asked[name]) > _amount(most) for name, most in limited.items() if name in asked)


def _amount(text: str) -> float:
    """A quantity as Kubernetes writes it."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text)
    return float(found[1]) * units.get(found[2], 1.0) if found else float("inf")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
