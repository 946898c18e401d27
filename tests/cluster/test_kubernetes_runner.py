"""The runner `kubernetes` keeps the contract in real pods, rides out what can be ridden out, and never hangs."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core.errors import ClusterError, ClusterRefused, StoreError, UsageError
from eo_batch.core.placement import Placement
from eo_batch.runners import manifests, watch
from eo_batch.runners.base import Event, Failure, Job, Runner
from eo_batch.runners.kube import connect
from eo_batch.runners.kubernetes import KubernetesRunner
from eo_batch.runners.lease import Lease, held_lease
from tests.cluster.contract import PodContract
from tests.cluster.given import S3, Images
from tests.cluster.kube import apply, get, kubectl, names, namespace, wait_for
from tests.cluster.lines import cuttable
from tests.cluster.pods import InPods, PodRemote
from tests.cluster.queues import queue
from tests.cluster.s3 import secret
from tests.runners.calls import Fine, Greedy, Shelf, Sleeping, Slow
from tests.runners.contract import run

pytestmark = pytest.mark.cluster

_ACCOUNT = "eo-batch-runner"


@pytest.fixture(scope="module")
def space(images: Images) -> Iterator[str]:
    """A namespace that admits restricted pods only, with what a runner needs."""
    with namespace("eo-batch-test-jobs") as found:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _ACCOUNT}}
        apply(found, account, secret("store-keys"))
        yield found


@pytest.fixture(scope="module")
def bucket(s3: S3) -> str:
    return s3.server.new_bucket()


@pytest.fixture
def placement(space: str, images: Images, s3_here: S3) -> Placement:
    env = {"AWS_ENDPOINT_URL": s3_here.inside, "AWS_REGION": "us-east-1"}
    return Placement.model_validate(
        {
            "runner": "kubernetes",
            "cluster": {"namespace": space, "image": images.cpu, "secrets": ["store-keys"], "env": env},
            "pools": {"small": {"cpu": "20m", "memory_mb": 300}},
            "stages": {"default": {"pool": "small", "shards_per_pod": 2, "parallelism": 6}},
        }
    )


@pytest.fixture
def lease(placement: Placement) -> Iterator[Lease]:
    with held_lease(placement, f"contract-{uuid.uuid4().hex[:4]}") as lease:
        yield lease


@pytest.fixture
def notes(bucket: str) -> Shelf:
    return Shelf(bucket, f"notes-{uuid.uuid4().hex}")


def changed(placement: Placement, section: str, **values: Any) -> Placement:
    """The placement with other values in one section."""
    return placement.model_copy(update={section: getattr(placement, section).model_copy(update=values)})


@pytest.mark.slow
class TestKubernetes(PodContract):
    runner_name = "kubernetes"
    tells_retries = False

    @pytest.fixture
    def runner(self, placement: Placement, lease: Lease, bucket: str) -> Runner:
        return InPods(KubernetesRunner(placement, lease), bucket)

    @pytest.fixture
    def notes(self, notes: Shelf) -> Shelf:
        return notes

    @pytest.fixture
    def left(self, space: str) -> Callable[[], list[str]]:
        return lambda: names(space, "jobs", "pods")


def test_a_job_that_pods_cannot_share_is_refused(placement: Placement, lease: Lease, notes: Shelf) -> None:
    with pytest.raises(UsageError, match="can't run in pods"):
        KubernetesRunner(placement, lease).run(Job("test", (0,), Fine(notes)), lambda event: None)


@pytest.mark.slow
def test_pods_that_are_deleted_cost_no_try(
    placement: Placement, lease: Lease, bucket: str, notes: Shelf, space: str
) -> None:
    runner = InPods(KubernetesRunner(placement, lease), bucket)
    killed: list[str] = []

    def kill() -> None:
        wait_for(lambda: len(notes.names()) >= 4, "some have begun")
        for pod in get(space, "pods", "-l", f"eo-batch.io/lease={lease.name}")[:2]:
            killed.append(pod["metadata"]["name"])
            grace = () if len(killed) % 2 else ("--grace-period=0", "--force")
            kubectl("delete", "pod", "-n", space, killed[-1], "--wait=false", *grace)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome, events = run(runner, Slow(notes), tuple(range(8)), attempts=2)
    thread.join()
    assert len(killed) == 2
    assert outcome.done == set(range(8))
    again = sum(Slow(notes).begun(index) - 1 for index in range(8))
    assert again == 2, "each pod that was killed ran one index"
    assert {event.kind for event in events} <= {"done", "retry"}


@pytest.mark.slow
def test_a_pod_without_enough_memory_says_so(placement: Placement, lease: Lease, bucket: str, notes: Shelf) -> None:
    outcome, events = run(InPods(KubernetesRunner(placement, lease), bucket), Greedy(notes), (0, 1), attempts=1)
    assert outcome.done == {1}
    assert "worker process died" in outcome.failed[0].message
    assert [event.message for event in events if event.kind == "retry"] == [
        "its pod was killed: out of memory; raise memory_mb of the pool"
    ]


def test_a_job_that_somebody_deletes_is_an_error(
    placement: Placement, lease: Lease, bucket: str, notes: Shelf, space: str
) -> None:
    def delete() -> None:
        wait_for(lambda: bool(notes.names()), "it has begun")
        kubectl("delete", "job", "-n", space, "-l", f"eo-batch.io/lease={lease.name}")

    thread = threading.Thread(target=delete)
    thread.start()
    with pytest.raises(ClusterError, match=r"somebody deleted jobs/contract-.*run it again"):
        InPods(KubernetesRunner(placement, lease), bucket).run(Job("test", (0,), Sleeping(notes)), lambda event: None)
    thread.join()
    assert names(space, "jobs", "pods") == []


def refused(placement: Placement, lease: Lease, bucket: str, notes: Shelf) -> tuple[str, list[str]]:
    """The error that a job ends with, and what it was said to wait for."""
    waits: list[str] = []
    begun = time.monotonic()
    with pytest.raises(ClusterRefused) as caught:
        InPods(KubernetesRunner(placement, lease), bucket).run(
            Job("test", (0, 1), Fine(notes)), lambda event: waits.append(event.message)
        )
    assert time.monotonic() - begun < 60
    assert "\n" not in str(caught.value)
    assert names(placement.cluster.namespace, "jobs", "pods") == []
    return str(caught.value), waits


@pytest.mark.usefixtures("impatient")
class TestBroken:
    """What nobody but a person can mend ends with one line that names it, soon."""

    @pytest.fixture
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "BROKEN_S", 6.0)

    def test_an_image_that_does_not_exist(self, placement: Placement, lease: Lease, bucket: str, notes: Shelf) -> None:
        image = "registry.invalid/no-such:1"
        said, waits = refused(changed(placement, "cluster", image=image), lease, bucket, notes)
        assert said.startswith(f"image {image} can't be pulled (")
        assert waits[0].startswith(f"image {image} can't be pulled (")

    def test_a_secret_that_is_not_there(self, placement: Placement, lease: Lease, bucket: str, notes: Shelf) -> None:
        said, _ = refused(changed(placement, "cluster", secrets=("nowhere",)), lease, bucket, notes)
        assert 'secret "nowhere" not found' in said

    def test_a_service_account_that_is_not_there(
        self, placement: Placement, lease: Lease, bucket: str, notes: Shelf
    ) -> None:
        said, waits = refused(changed(placement, "cluster", service_account="nobody"), lease, bucket, notes)
        assert said.startswith("service account nobody is not there in namespace")
        assert waits == []

    def test_a_queue_that_is_not_there(self, placement: Placement, lease: Lease, bucket: str, notes: Shelf) -> None:
        queued = {"small": placement.pools["small"].model_copy(update={"queue": "nowhere"})}
        said, waits = refused(placement.model_copy(update={"pools": queued}), lease, bucket, notes)
        assert "queue nowhere (pools.small.queue) is not there" in said or "needs Kueue" in said
        assert waits == []

    def test_a_queue_that_is_too_small(self, placement: Placement, lease: Lease, bucket: str, notes: Shelf) -> None:
        with queue(placement, "10m") as queued:
            said, waits = refused(queued, lease, bucket, notes)
        assert waits[0].startswith("queue tests has not admitted the pods: ")
        assert said.startswith(waits[0])
        assert notes.names() == []

    def test_a_quota_that_no_pod_fits_in(
        self, placement: Placement, lease: Lease, bucket: str, notes: Shelf, space: str
    ) -> None:
        with quota(space, {"requests.memory": "200M"}):
            said, _ = refused(placement, lease, bucket, notes)
        assert "the pods are not admitted: pods are forbidden: exceeded quota: tight" in said

    def test_pods_that_pod_security_does_not_admit(
        self, placement: Placement, lease: Lease, bucket: str, notes: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(manifests, "UID", 0)
        said, _ = refused(placement, lease, bucket, notes)
        assert "violates PodSecurity" in said

    def test_an_image_without_the_command(
        self, placement: Placement, lease: Lease, bucket: str, monkeypatch: pytest.MonkeyPatch, notes: Shelf
    ) -> None:
        monkeypatch.setattr(PodRemote, "freeze", lambda self, indices, shards_per_pod: ("no-such-command",))
        said, _ = refused(placement, lease, bucket, notes)
        assert said.startswith("no pod of this job can work: its pod ended with exit code 127: ")
        assert "no-such-command" in said


def test_a_quota_for_one_pod_at_a_time_is_waited_for(
    placement: Placement, lease: Lease, bucket: str, notes: Shelf, space: str
) -> None:
    with quota(space, {"pods": "1"}):
        outcome, _ = run(InPods(KubernetesRunner(placement, lease), bucket), Fine(notes), (0, 1, 2, 3))
    assert outcome.done == {0, 1, 2, 3}


def test_a_store_that_does_not_answer_at_the_end_is_waited_for(
    placement: Placement, lease: Lease, bucket: str, notes: Shelf, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = PodRemote.settled
    ended: list[float] = []

    def fails(remote: PodRemote) -> Mapping[int, Failure | None]:
        jobs = get(space, "jobs", "-l", f"eo-batch.io/lease={lease.name}")
        if any(job["status"].get("conditions") for job in jobs):
            ended.append(time.monotonic())
        if not ended or time.monotonic() - ended[0] < 15:
            raise StoreError("the store is down")
        return settled(remote)

    monkeypatch.setattr(PodRemote, "settled", fails)
    outcome, events = run(InPods(KubernetesRunner(placement, lease), bucket), Fine(notes), (0, 1))
    assert outcome.done == {0, 1}
    assert [event.message for event in events if event.kind == "wait"] == ["the store is down"]


def test_a_job_that_its_queue_admits_runs(placement: Placement, lease: Lease, bucket: str, notes: Shelf) -> None:
    with queue(placement, "100m") as queued:
        outcome, events = run(InPods(KubernetesRunner(queued, lease), bucket), Fine(notes), (0, 1, 2, 3))
    assert outcome.done == {0, 1, 2, 3}
    assert {event.kind for event in events} == {"done"}


def test_pods_that_no_node_takes_are_told_and_waited_for(
    placement: Placement, lease: Lease, bucket: str, notes: Shelf, space: str
) -> None:
    nowhere = {"small": placement.pools["small"].model_copy(update={"node_selector": {"kubernetes.io/os": "plan9"}})}
    events: list[Event] = []

    def delete() -> None:
        wait_for(lambda: bool(events), "it is told")
        kubectl("delete", "job", "-n", space, "-l", f"eo-batch.io/lease={lease.name}")

    thread = threading.Thread(target=delete)
    thread.start()
    with pytest.raises(ClusterError, match="somebody deleted"):
        InPods(KubernetesRunner(placement.model_copy(update={"pools": nowhere}), lease), bucket).run(
            Job("test", (0,), Fine(notes)), events.append
        )
    thread.join()
    assert (events[0].index, events[0].kind) == (None, "wait")
    assert events[0].message.startswith("no node takes the pods: 0/")


@contextmanager
def quota(space: str, hard: dict[str, str]) -> Iterator[None]:
    """A quota on the namespace."""
    apply(space, {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"}, "spec": {"hard": hard}})
    wait_for(lambda: "hard" in get(space, "resourcequota")[0].get("status", {}), "the quota is in force")
    try:
        yield
    finally:
        kubectl("delete", "resourcequota", "-n", space, "tight")


@pytest.mark.slow
def test_an_api_server_that_does_not_answer_is_waited_for(
    placement: Placement, lease: Lease, bucket: str, notes: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cuttable(tmp_path, monkeypatch) as line:
        cut = replace(lease, kube=connect(placement.cluster))
        events: list[Event] = []

        def on_event(event: Event) -> None:
            events.append(event)

        def disturb() -> None:
            wait_for(lambda: len(notes.names()) >= 2, "some have begun")
            line.cut()
            wait_for(lambda: any(event.kind == "wait" for event in events), "it is told")
            line.mend()

        thread = threading.Thread(target=disturb)
        thread.start()
        InPods(KubernetesRunner(placement, cut), bucket).run(Job("test", tuple(range(6)), Slow(notes)), on_event)
        thread.join()
    assert "does not answer" in next(event.message for event in events if event.kind == "wait")
    assert {event.index for event in events if event.kind == "done"} == set(range(6))
    assert all(Slow(notes).begun(index) == 1 for index in range(6))
