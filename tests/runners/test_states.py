"""What Kubernetes says of pods, Jobs, queues and Leases, in words for people; and clusters that say nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eo_batch.core.errors import ClusterError, ClusterRefused
from eo_batch.core.placement import Cluster
from eo_batch.runners.kube import POD, connect
from eo_batch.runners.states import death, end_of, slice_number
from eo_batch.runners.sweep import expired_at
from eo_batch.runners.waits import (
    Wait,
    created_wait,
    deployments_wait,
    lost_pods,
    pods_wait,
    slow_wait,
    steps_wait,
    workload_wait,
)


def pod(phase: str = "Pending", conditions: list[dict[str, Any]] | None = None, **container: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "annotations": {"batch.kubernetes.io/job-completion-index": "7"}},
        "spec": {},
        "status": {
            "phase": phase,
            "conditions": conditions or [],
            "containerStatuses": [{"image": "cpu:1", "state": container}] if container else [],
        },
    }


def test_a_pod_that_does_not_start_and_of_which_nothing_is_said_may_be_stuck() -> None:
    """Kubelet leaves it so when its node crashed between making its container and starting it."""
    when = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-27T12:00:00Z"}
    stuck = pod(conditions=[scheduled], waiting={}) | {"spec": {"nodeName": "node-b"}}
    assert slow_wait(stuck, [], when + timedelta(minutes=9)) is None
    said = "pod p has not started for 11 min on node-b: `kubectl delete pod p` lets another one take its place"
    assert slow_wait(stuck, [], when + timedelta(minutes=11, seconds=30)) == Wait(said, mends=True)
    warned = {"reason": "FailedMount", "message": "no such volume", "lastTimestamp": "2026-11-27T12:01:00Z"}
    told = slow_wait(stuck, [warned], when + timedelta(minutes=2))
    assert told == Wait("the pods can't be started (FailedMount): no such volume", mends=True)


@pytest.mark.parametrize(
    ("seen", "message", "mends"),
    [
        (
            pod(waiting={"reason": "ErrImagePull", "message": "not found"}),
            "image cpu:1 can't be pulled (ErrImagePull): not found; check cluster.image",
            False,
        ),
        (
            pod(waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "cpu:1"'}),
            "image cpu:1 can't be pulled (ImagePullBackOff); check cluster.image",
            False,
        ),
        (
            pod(waiting={"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}),
            'the pods can\'t be started (CreateContainerConfigError): secret "keys" not found; check cluster.secrets',
            False,
        ),
        (
            pod(
                waiting={
                    "reason": "CreateContainerConfigError",
                    "message": "failed to sync secret cache: timed out waiting for the condition",
                }
            ),
            "the pods can't be started (CreateContainerConfigError): failed to sync secret cache: timed out waiting "
            "for the condition",
            True,
        ),
        (
            pod(
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. "
                        "no new claims to deallocate, preemption: none",
                    }
                ]
            ),
            "no node takes the pods: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            True,
        ),
    ],
)
def test_what_pods_wait_for(seen: dict[str, Any], message: str, mends: bool) -> None:
    assert list(pods_wait([seen])) == [Wait(message, mends)]


def test_pods_of_a_lost_node_are_told() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    pods = [pod("Running"), pod("Running"), pod("Running")]
    for held, ends in zip(pods, (None, "2026-01-01T11:59:50Z", "2026-01-01T11:58:00Z"), strict=True):
        held["spec"]["nodeName"] = f"node-{ends}"
        if ends is not None:
            held["metadata"]["deletionTimestamp"] = ends
    (wait,) = lost_pods(pods, now)
    assert wait.mends
    assert wait.message.startswith("node-2026-01-01T11:58:00Z is lost, ")
    assert "kubectl delete node node-2026-01-01T11:58:00Z" in wait.message


def test_pods_that_start_wait_for_nothing() -> None:
    assert list(pods_wait([pod(waiting={"reason": "ContainerCreating"}), pod()])) == []


@pytest.mark.parametrize(
    ("limited", "mends"), [("requests.memory=100M", False), ("requests.memory=1G", True), ("requests.memory=2Gi", True)]
)
def test_a_quota_mends_if_one_pod_fits_in(limited: str, mends: bool) -> None:
    text = (
        'Error creating: pods "run-0-x" is forbidden: exceeded quota: tight, requested: requests.memory=300M, '
        f"used: requests.memory=0, limited: {limited}"
    )
    wait = created_wait([event("FailedCreate", 5, text)])
    assert wait is not None
    assert wait.mends is mends
    assert wait.message.startswith("the pods are not admitted: pods are forbidden: exceeded quota: tight")


def test_steps_wait_for_quota_and_leave_the_rest_to_their_pods() -> None:
    forbidden = (
        'pods "run-plan-1" is forbidden: exceeded quota: tight, requested: requests.memory=764M, '
        "used: requests.memory=0, limited: requests.memory=50M"
    )
    nodes = {
        "run": {"type": "DAG", "phase": "Running", "message": forbidden},
        "plan": {"type": "Pod", "phase": "Pending", "message": forbidden},
        "chips": {"type": "Pod", "phase": "Pending", "message": "ImagePullBackOff: Back-off pulling image"},
        "publish": {"type": "Pod", "phase": "Error", "message": forbidden},
        "report": {"type": "Pod", "phase": "Pending"},
    }
    (wait,) = steps_wait(nodes)
    assert wait.message.startswith("the pods are not admitted: pods are forbidden: exceeded quota: tight, requested: ")
    assert not wait.mends


@pytest.mark.parametrize(
    ("said", "mends"),
    [
        ("exceeded quota: tight, requested: memory=3G, used: memory=4G, limited: memory=5G", True),
        ("exceeded quota: tight, requested: memory=3G, used: memory=0, limited: memory=1G", False),
        ('violates PodSecurity "restricted:latest": seccompProfile', False),
    ],
)
def test_deployments_wait_for_pods_that_they_may_not_create(said: str, mends: bool) -> None:
    failed = {"type": "ReplicaFailure", "status": "True", "message": f'pods "run-dask-worker-1-x" is forbidden: {said}'}
    works = {"type": "Available", "status": "True", "message": "x"}
    admitted = failed | {"status": "False"}
    found = [{"status": {"conditions": [works, one]}} for one in (failed, admitted)]
    (wait,) = deployments_wait([*found, {}])
    assert wait == Wait(f"the pods are not admitted: pods are forbidden: {said}", mends)


def test_a_webhook_that_does_not_answer_comes_back() -> None:
    said = 'Internal error occurred: failed calling webhook "mpod.kb.io": connection refused'
    (wait,) = deployments_wait(
        [{"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": said}]}}]
    )
    assert wait == Wait(f"the pods are not admitted: {said}", mends=True)


def event(reason: str, second: int, message: str = "") -> dict[str, Any]:
    return {"metadata": {}, "reason": reason, "message": message, "lastTimestamp": f"2026-01-01T00:00:{second:02d}Z"}


def test_a_job_that_creates_pods_again_waits_for_nothing() -> None:
    assert created_wait([event("FailedCreate", 5, "x"), event("SuccessfulCreate", 6)]) is None
    assert created_wait([event("SuccessfulCreate", 4), event("FailedCreate", 5, "x")]) is not None
    assert created_wait([]) is None


@pytest.mark.parametrize(
    ("condition", "message", "mends"),
    [
        (
            {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient unused quota"},
            "queue gpus has not admitted the pods: insufficient unused quota",
            True,
        ),
        (
            {"type": "QuotaReserved", "status": "False", "reason": "Inadmissible", "message": "LocalQueue is gone"},
            "queue gpus has not admitted the pods: LocalQueue is gone",
            False,
        ),
    ],
)
def test_what_a_workload_waits_for(condition: dict[str, Any], message: str, mends: bool) -> None:
    assert workload_wait({"status": {"conditions": [condition]}}, "gpus") == Wait(message, mends)


def test_an_admitted_workload_waits_for_nothing() -> None:
    admitted = [{"type": kind, "status": "True"} for kind in ("QuotaReserved", "Admitted")]
    assert workload_wait({"status": {"conditions": admitted}}, "gpus") is None
    assert workload_wait({}, "gpus") is None


@pytest.mark.parametrize(
    ("seen", "why", "code"),
    [
        (
            pod(terminated={"exitCode": 137, "reason": "OOMKilled"}),
            "its pod was killed: out of memory; raise memory_mb of the pool",
            137,
        ),
        (pod(terminated={"exitCode": 137, "reason": "Error"}), "its pod was killed (exit code 137)", 137),
        (
            pod(terminated={"exitCode": 4, "message": "noise\nerror: the store is down\n"}),
            "its pod ended with exit code 4: error: the store is down",
            4,
        ),
        (
            pod(conditions=[{"type": "DisruptionTarget", "status": "True", "message": "the node is preempted"}]),
            "its pod was disrupted: the node is preempted",
            None,
        ),
    ],
)
def test_why_a_pod_died(seen: dict[str, Any], why: str, code: int | None) -> None:
    assert death(seen) == (why, code)
    assert slice_number(seen) == 7


def test_the_end_of_a_job() -> None:
    assert end_of({"status": {}}) is None
    target = {"type": "FailureTarget", "status": "True", "reason": "x"}
    assert end_of({"status": {"conditions": [target]}}) is None, "its pods are still ending"
    failed = {"type": "Failed", "status": "True", "reason": "FailedIndexes", "message": "Job has failed indexes"}
    assert end_of({"status": {"conditions": [target, failed]}}) == (False, "FailedIndexes", "Job has failed indexes")
    assert end_of({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}) == (True, "", "")


def test_a_lease_expires_by_the_later_of_two_clocks() -> None:
    renewed = datetime(2026, 1, 1, 12, tzinfo=UTC)
    lease: dict[str, Any] = {
        "metadata": {"managedFields": [{"time": "2026-01-01T12:00:00Z"}]},
        "spec": {"renewTime": "2026-01-01T11:00:00.000000Z", "leaseDurationSeconds": 60},
    }
    assert expired_at(lease) == renewed + timedelta(seconds=60)
    lease["spec"]["renewTime"] = "2026-01-01T12:30:00.000000Z"
    assert expired_at(lease) == renewed + timedelta(minutes=31)
    assert expired_at({"metadata": {}, "spec": {}}) is None


def kubeconfig(monkeypatch: pytest.MonkeyPatch, path: Any, server: str) -> None:
    path.write_text(
        f"""
        current-context: c
        contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
        clusters: [{{name: c, cluster: {{server: "{server}"}}}}]
        users: [{{name: u, user: {{}}}}]
        """
    )
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def test_no_cluster_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ClusterRefused, match=r"no cluster to talk to: .*set KUBECONFIG"):
        connect(Cluster(image="i"))


def test_a_context_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    kubeconfig(monkeypatch, tmp_path / "kubeconfig", "http://127.0.0.1:9")
    with pytest.raises(ClusterRefused, match=r"cluster\.context=other: .*get-contexts"):
        connect(Cluster(image="i", context="other"))


def test_a_cluster_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    kubeconfig(monkeypatch, tmp_path / "kubeconfig", "http://127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"http://127.0.0.1:9 does not answer .*list pods in namespace eo-batch"):
        connect(Cluster(image="i")).list(POD)
