"""The same spec in every way, out of the installed chart, while pods are killed: the bytes of a run on this machine,
nothing lost, nothing done twice that was done, no secret shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from eo_batch.core.layout import STAGES
from tests.cluster import prefect_server
from tests.cluster import s3 as s3_pod
from tests.cluster.disturbing import InEachStage, Killer, disturbing
from tests.cluster.given import S3
from tests.cluster.kube import get, kubectl
from tests.cluster.place import Place
from tests.cluster.runs import Reference, check_same, nothing_done_twice
from tests.cluster.secrets import check_store, no_secret_shown
from tests.cluster.ways import ByCommand, ByFlow, Way, way_of
from tests.servers.seaweed import SECRET_KEY

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WAYS = ("kubernetes", "argo", "dask", "prefect", "prefect-argo")
LIMIT_S = 1500.0
"""A run that takes longer hangs."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, place: Place, s3_here: S3) -> Iterator[Way]:
    with way_of(request.param, place) as found:
        yield found


# A flow with Argo's workflow joins what two others do.
@pytest.mark.parametrize("way", [*WAYS[:-1], pytest.param(WAYS[-1], marks=pytest.mark.matrix)], indirect=True)
def test_a_run_with_a_kill_in_every_stage(way: Way, place: Place, reference: Reference, s3_here: S3) -> None:
    store = s3_here.server.new_bucket()
    killer = Killer(way.space, way.at_work, dict.fromkeys(STAGES, 1), seed=1)
    with disturbing(killer), nothing_done_twice(store), no_secret_shown(way.space):
        said = way.run(reference, store, LIMIT_S)
    assert set(killer.by_stage) == set(STAGES), said
    check_same(store, reference, way.runner)
    assert place.left() == []
    check_store(store)
    assert SECRET_KEY not in said
    if isinstance(way, ByCommand):
        again = way.run(reference, store, LIMIT_S)
        assert "to do" not in again, "everything has a receipt"
    if isinstance(way, ByFlow):
        check_flow(way)


def check_flow(way: ByFlow) -> None:
    """The flow run had a Job of its own with no more rights than the driver's, and people see what it did."""
    (pod,) = get(way.space, "pods", "-l", f"prefect.io/flow-run-id={way.flow_run}")
    assert pod["spec"]["serviceAccountName"] == "eo-batch-driver"
    worker = kubectl("logs", "-n", way.space, "deployment/eo-batch-prefect-worker", "-c", "worker")
    assert "forbidden" not in worker.lower(), worker
    tasks = way.server.find("task_runs", task_runs={"flow_run_id": {"any_": [way.flow_run]}})
    assert {task["name"] for task in tasks} == ({"workflow"} if way.engine == "argo" else set(STAGES))
    artifacts = way.server.artifacts(way.flow_run)
    assert {"same-coverage", "same-cost"} <= artifacts.keys()
    if way.engine == "argo":
        assert f"/workflows/{way.space}/" in artifacts["same-workflow"]["data"]
    assert {artifacts[f"same-{stage}"]["data"] for stage in STAGES} == {100.0}
    run = way.server.get(f"/flow_runs/{way.flow_run}")
    assert SECRET_KEY not in json.dumps([run, tasks, artifacts])


def restart_argo() -> None:
    """End Argo's controller, which Kubernetes starts again."""
    kubectl("delete", "pod", "-n", "argo", "-l", "app=workflow-controller", "--wait=false")


@pytest.mark.matrix
def test_a_run_with_twenty_kills(way: Way, place: Place, reference: Reference, s3_here: S3) -> None:
    store = s3_here.server.new_bucket()
    wanted = dict.fromkeys(STAGES, 1) | {"chips": 7, "pretrain": 5, "embed": 6}
    killer = Killer(way.space, way.at_work, wanted, seed=2)
    with disturbing(killer), nothing_done_twice(store):
        said = way.run(reference, store, LIMIT_S)
    assert set(killer.by_stage) == set(STAGES), said
    assert killer.by_stage.total() >= 20, killer.by_stage
    check_same(store, reference, way.runner)
    assert place.left() == []


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("way", "what"),
    [*((name, "s3") for name in WAYS), ("argo", "argo"), ("prefect", "prefect"), ("prefect-argo", "prefect")],
    indirect=["way"],
)
def test_a_run_whose_servers_restart_in_every_stage(
    way: Way, what: str, place: Place, reference: Reference, s3_here: S3
) -> None:
    acts: dict[str, Callable[[], object]] = {
        "s3": lambda: s3_pod.restart(s3_here.namespace, s3_here.server),
        "argo": restart_argo,
        "prefect": lambda: prefect_server.restart(place.prefect_space),
    }
    store = s3_here.server.new_bucket()
    disturber = InEachStage(way.space, way.at_work, acts[what])
    with disturbing(disturber), nothing_done_twice(store):
        said = way.run(reference, store, LIMIT_S)
    assert set(disturber.by_stage) == set(STAGES), said
    check_same(store, reference, way.runner)
    assert place.left() == []
