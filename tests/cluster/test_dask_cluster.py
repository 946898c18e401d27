"""On clusters of the Dask operator the runner `dask` keeps the contract, loses pods without loss, leaves nothing."""

from __future__ import annotations

import pickle
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import pytest
import xarray

import eo_batch
from eo_batch.core.errors import ClusterRefused
from eo_batch.core.placement import Placement
from eo_batch.runners import dask_cluster
from eo_batch.runners.base import Call, Event, Job, OnEvent, Outcome, Runner
from eo_batch.runners.dask import DaskRunner
from eo_batch.runners.dask_cluster import OperatorCluster, dask_runner
from tests.cluster.contract import PodContract
from tests.cluster.dask_operator import dask_operator
from tests.cluster.given import S3, Images
from tests.cluster.kube import apply, get, kill_program, kubectl, namespace, wait_for
from tests.cluster.runs import Reference
from tests.cluster.s3 import secret
from tests.runners.calls import Fine, Held, Shelf
from tests.runners.contract import agree, run
from tests.runners.receipted import Receipted

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("tests/runners/calls.py", "tests/runners/receipted.py")
"""What pods need of the tests."""
_ACCOUNT = "eo-batch-runner"


@dataclass(frozen=True)
class Shipped:
    """A call whose code travels with it: pods have eo_batch, and none of its tests."""

    call: Call

    def __call__(self, index: int) -> object:
        return self.call(index)

    def __reduce__(self) -> tuple[Callable[[bytes], Call], tuple[bytes]]:
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        return cloudpickle.loads, (cloudpickle.dumps(Parcel(self.call)),)


@dataclass(frozen=True)
class Parcel:
    """Becomes the call where it is unpickled; all that it needs for that is sent by value."""

    call: Call

    def __reduce__(self) -> tuple[Callable[[dict[str, bytes], bytes], Any], tuple[dict[str, bytes], bytes]]:
        return unpack, ({path: (_ROOT / path).read_bytes() for path in _CODE}, pickle.dumps(self.call))


def unpack(code: dict[str, bytes], pickled: bytes) -> Any:
    """Runs in workers: files, so that tracebacks show their lines."""
    import pathlib
    import pickle
    import sys

    for name, data in code.items():
        path = pathlib.Path("/tmp/code", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if "/tmp/code" not in sys.path:
        sys.path.insert(0, "/tmp/code")
    return pickle.loads(pickled)


@dataclass(frozen=True)
class Shipping:
    """A runner that ships what it runs."""

    runner: Runner
    name: str = "shipping"

    def run(self, job: Job, on_event: OnEvent) -> Outcome:
        return self.runner.run(replace(job, call=Shipped(job.call)), on_event)


@pytest.fixture(scope="module")
def space(images: Images) -> Iterator[str]:
    """A namespace that admits restricted pods only, with an operator."""
    with namespace("eo-batch-test-dask") as found:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _ACCOUNT}}
        apply(found, account, secret("store-keys"))
        with dask_operator(found, images.cpu, found):
            yield found


@pytest.fixture(scope="module")
def placement(space: str, images: Images, s3: S3) -> Placement:
    env = {"AWS_ENDPOINT_URL": s3.inside, "AWS_REGION": "us-east-1"}
    return Placement.model_validate(
        {
            "runner": "dask",
            "cluster": {"namespace": space, "image": images.cpu, "secrets": ["store-keys"], "env": env},
            "pools": {"cpu-spot": {"cpu": "20m", "memory_mb": 300}},
            "dask": {"workers_min": 1, "workers_max": 2},
        }
    )


@pytest.fixture(scope="module")
def cluster(placement: Placement) -> Iterator[DaskRunner]:
    """A runner whose cluster serves all tests here."""
    with dask_runner(placement, "contract") as runner:
        yield replace(runner, patience=replace(runner.patience, retry_s=0.1))


@pytest.fixture(scope="module")
def bucket(s3: S3) -> str:
    return s3.server.new_bucket()


@pytest.fixture
def notes(bucket: str, s3_here: S3) -> Shelf:
    return Shelf(bucket, f"notes-{uuid.uuid4().hex}")


def pods(space: str, run_name: str, part: str = "") -> list[str]:
    """Names of the pods of a run's Dask clusters that are not on their way out."""
    selector = f"eo-batch.io/run={run_name},dask.org/component{f'={part}' if part else ''}"
    found = get(space, "pods", "-l", selector)
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def left(space: str, run_name: str) -> list[str]:
    """What there is of a run."""
    kinds = ("leases", "daskclusters", "daskautoscalers", "daskworkergroups", "deployments", "services", "pods")
    return [
        f"{kind}/{thing['metadata']['name']}"
        for kind in kinds
        for thing in get(space, kind, "-l", f"eo-batch.io/run={run_name}")
    ]


class TestDaskOnKubernetes(PodContract):
    runner_name = "dask"

    @pytest.fixture
    def runner(self, cluster: DaskRunner) -> Runner:
        return Shipping(cluster)

    @pytest.fixture
    def notes(self, notes: Shelf) -> Shelf:
        return notes

    @pytest.fixture
    def left(self, space: str) -> Callable[[], list[str]]:
        return lambda: pods(space, "contract")


def test_more_work_brings_more_workers_and_less_takes_them_away(placement: Placement, space: str, notes: Shelf) -> None:
    with dask_runner(placement, "adaptive") as runner:
        run(Shipping(runner), Fine(notes), (0,))
        assert len(pods(space, "adaptive", "worker")) == 1
        held, indices = Held(notes), tuple(range(1, 13))

        def let_go() -> None:
            try:
                wait_for(lambda: sum(map(held.begun, indices)) == 2, "two workers run one each", 120)
            finally:
                notes.write(Held.GO, "")

        with ThreadPoolExecutor(1) as beside:
            watching = beside.submit(let_go)
            outcome, _ = run(Shipping(runner), held, indices)
            watching.result()
        assert outcome.done == set(indices)
        runner.place.want(1)  # as a run does whose last shard is running
        wait_for(lambda: len(pods(space, "adaptive", "worker")) == 1, "one worker is left", 90)
    assert left(space, "adaptive") == []


def test_pods_that_are_deleted_cost_only_what_was_in_flight(placement: Placement, space: str, notes: Shelf) -> None:
    """One try is all that each index has: a pod that is deleted costs none."""
    call, indices, events = Receipted(notes, takes_s=3.0), tuple(range(20)), list[Event]()
    begun: dict[int, int] = {}
    disturbances = {3: ("worker", True), 7: ("worker", False), 11: ("scheduler", True)}

    def on_event(event: Event) -> None:
        events.append(event)
        done = sum(event.kind == "done" for event in events)
        if event.kind == "done" and done in disturbances:
            part, polite = disturbances[done]
            begun.update({index: call.begun(index) for index in call.receipts()})
            grace = () if polite else ("--grace-period=0", "--force")
            kubectl("delete", "pod", "-n", space, pods(space, "deleted", part)[0], "--wait=false", *grace)

    with dask_runner(placement, "deleted") as runner:
        outcome = runner.run(Job("test", indices, Shipped(call), attempts=1), on_event)
    agree(outcome, events, indices)
    assert outcome.done == set(indices)
    assert len(begun) >= 11
    assert {index: call.begun(index) for index in begun} == begun, "what was done is not done again"
    again = [event for event in events if event.kind == "retry"]
    assert 1 <= len(again) <= 4, "what was in flight: one on each worker, two with the scheduler"
    assert left(space, "deleted") == []


def test_people_attach_and_compute_on_the_same_cluster(cluster: DaskRunner, space: str) -> None:
    import dask.array
    from dask_kubernetes.operator import KubeCluster

    with cluster.client() as client:
        assert float(dask.array.ones((40, 40), chunks=10).sum().compute()) == 1600
        assert set(client.nthreads().values()) == {1}
    [name] = [found.removeprefix("daskclusters/") for found in left(space, "contract") if "daskclusters" in found]
    attached = KubeCluster.from_name(name, namespace=space, port_forward_cluster_ip=True, quiet=True)
    try:
        assert len(attached.scheduler_info["workers"]) >= 1
    finally:
        attached.close()
    assert f"daskclusters/{name}" in left(space, "contract"), "it is not theirs to end"


def test_a_cube_is_computed_on_the_cluster(cluster: DaskRunner, reference: Reference, s3_here: S3) -> None:
    """Workers reach the store at another address than this process does."""
    url = f"{reference.store}/same"
    with dask.config.set(scheduler="synchronous"):
        expected = eo_batch.open_cube(url).s2_10m.mean(("chip", "time")).compute()
    with cluster.client() as client:
        lazy = eo_batch.open_cube(url).s2_10m.mean(("chip", "time"))
        xarray.testing.assert_allclose(client.compute(lazy).result(timeout=120), expected)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": "registry.invalid/nothing:1"}, "image registry.invalid/nothing:1 can't be pulled"),
        ({"service_account": "nobody"}, "service account nobody is not there in namespace eo-batch-test-dask"),
    ],
)
def test_what_is_missing_is_one_clear_line(
    placement: Placement, space: str, notes: Shelf, changes: dict[str, str], told: str
) -> None:
    assert placement.cluster is not None
    wrong = placement.model_copy(update={"cluster": placement.cluster.model_copy(update=changes)})
    begun = time.monotonic()
    with pytest.raises(ClusterRefused, match=told), dask_runner(wrong, "missing") as runner:
        runner.run(Job("test", (0,), Shipped(Fine(notes))), print)
    assert time.monotonic() - begun < 120
    assert left(space, "missing") == []


def test_a_namespace_without_operator_is_one_clear_line(
    placement: Placement, notes: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "_OPERATOR_S", 5.0)
    assert placement.cluster is not None
    with namespace("eo-batch-test-dask-alone") as alone:
        apply(alone, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _ACCOUNT}})
        elsewhere = placement.cluster.model_copy(update={"namespace": alone})
        with (
            pytest.raises(ClusterRefused, match=f"nobody starts the scheduler of DaskCluster {alone}/alone-dask-"),
            dask_runner(placement.model_copy(update={"cluster": elsewhere}), "alone") as runner,
        ):
            runner.run(Job("test", (0,), Shipped(Fine(notes))), print)
        assert left(alone, "alone") == []


def test_a_worker_that_is_killed_in_its_pod_costs_a_try(cluster: DaskRunner, space: str, notes: Shelf) -> None:
    """As by the kernel, when its memory is used up: all processes of the container at once."""
    call = Receipted(notes, takes_s=5.0)

    def kill() -> None:
        wait_for(lambda: call.running() == 1, "it has begun")
        for pod in pods(space, "contract", "worker"):
            kill_program(space, pod)

    run(Shipping(cluster), Fine(notes), (100,))
    thread = threading.Thread(target=kill)
    thread.start()
    outcome, _ = run(Shipping(cluster), call, (0,), attempts=1)
    thread.join()
    assert "worker process died" in outcome.failed[0].message


def test_a_worker_whose_pod_is_gone_was_taken_away(cluster: DaskRunner, notes: Shelf) -> None:
    run(Shipping(cluster), Fine(notes), (0,))
    place = cluster.place
    assert isinstance(place, OperatorCluster)
    with cluster.client() as client:
        [worker, *_] = client.nthreads()
    assert not place.disrupted(worker)
    assert place.disrupted("tcp://192.0.2.1:1234")
