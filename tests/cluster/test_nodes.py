"""Nodes that are drained, or lost at once, in the middle of each stage: the same bytes, and nothing done twice."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eo_batch.core.layout import STAGES
from tests.cluster.disturbing import InEachStage, disturbing
from tests.cluster.given import S3, Images
from tests.cluster.kube import kubectl, nodes, wait_for
from tests.cluster.place import Place, place_of
from tests.cluster.runs import Reference, check_same, nothing_done_twice
from tests.cluster.ways import Way, way_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.matrix]

_LIMIT_S = 2400.0
_HOST = "kubernetes.io/hostname"
_TAINT = "eo-batch.io/test-victim"


@pytest.fixture(scope="module")
def victim(s3: S3) -> Iterator[str]:
    """The node that is drained and lost: not that of the S3 server, whose data would be lost with it. Like spot nodes
    it has a taint, so that nothing else is lost.
    """
    others = nodes() - s3.nodes
    if not others:
        pytest.skip("the cluster has one node only, which has the store")
    node = min(others)
    taint(node)
    try:
        yield node
    finally:
        kubectl("taint", "node", node, f"{_TAINT}-")


@pytest.fixture(scope="module")
def place(images: Images, s3: S3, victim: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """All shards run on the node that is lost; what drives and serves them does not, as on spot nodes."""
    [safe, *_] = s3.nodes
    tolerations = [{"key": _TAINT, "operator": "Exists"}]
    pool, control = {"nodeSelector": {_HOST: victim}, "tolerations": tolerations}, {"nodeSelector": {_HOST: safe}}
    folder = tmp_path_factory.mktemp("release")
    with place_of("eo-batch-test-nodes", images, s3, folder, pool, control) as found:
        yield found


@pytest.fixture(params=["kubernetes", "argo", "dask", "prefect"])
def way(request: pytest.FixtureRequest, place: Place, s3_here: S3) -> Iterator[Way]:
    with way_of(request.param, place) as found:
        yield found


@pytest.fixture(params=["drained", "lost"])
def act(request: pytest.FixtureRequest, victim: str) -> Callable[[], None]:
    if request.param == "drained":
        return lambda: drain(victim)
    adapter = request.getfixturevalue("adapter")
    return lambda: lose(adapter, victim)


def taint(node: str) -> None:
    """Keep all others off a node."""
    kubectl("taint", "node", node, f"{_TAINT}=true:NoExecute", "--overwrite")


def drain(node: str) -> None:
    """Evict all that runs there, as before an upgrade; then let pods come back."""
    kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s", timeout_s=150)
    kubectl("uncordon", node)


def lose(adapter: list[str], node: str) -> None:
    """Lose it at once. When the cluster has seen that, its object goes, as on a cloud; another node comes.

    On a cloud that has another name. Here it is the same, so it may not come before the pods of the lost one are gone.
    """

    def ask(what: str) -> None:
        subprocess.run([*adapter, what, node], check=True, capture_output=True, timeout=180)

    ask("node-kill")
    wait_for(lambda: not ready(node), f"{node} is not ready", 120)
    ask("node-gone")
    wait_for(lambda: not pods_on(node), f"no pod is left on {node}", 180)
    ask("node-start")
    wait_for(lambda: node in nodes(), f"{node} is there again", 120)
    taint(node)
    wait_for(lambda: ready(node), f"{node} is ready again", 120)


def pods_on(node: str) -> str:
    """Names of the pods of a node."""
    return kubectl("get", "pods", "-A", "-o", "name", "--field-selector", f"spec.nodeName={node}")


def ready(node: str) -> bool:
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    return kubectl("get", "node", node, "-o", f"jsonpath={path}") == "True"


def test_a_run_whose_node_goes_in_every_stage(
    way: Way, act: Callable[[], Any], place: Place, reference: Reference, s3_here: S3
) -> None:
    store = s3_here.server.new_bucket()
    disturber = InEachStage(way.space, way.at_work, act)
    with disturbing(disturber), nothing_done_twice(store):
        said = way.run(reference, store, _LIMIT_S)
    assert set(disturber.by_stage) == set(STAGES), said
    check_same(store, reference, way.runner)
    assert place.left() == []
