"""What pods prefer, seen on nodes: the pods of a gang come to one zone, and those of a CPU pool leave out the node with
GPUs, though the scheduler by itself spreads both.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from eo_batch.core.placement import Placement
from eo_batch.runners.kube import JOBSET
from eo_batch.runners.manifests import labels_of, work_manifest
from tests.cluster.given import Images
from tests.cluster.kube import apply, get, kubectl, namespace, nodes, wait_for

pytestmark = pytest.mark.cluster

_ZONE, _GPU = "eo-batch.io/test-zone", "eo-batch.io/test-gpu"
"""Labels of these tests: clouds have set the real ones."""
_GANGS, _NODES = 3, 2
_PODS = 4
_SLEEP = ("python3", "-c", "import time; time.sleep(600)")


@pytest.fixture(scope="module")
def space(images: Images) -> Iterator[str]:
    with namespace("eo-batch-test-placing") as found:
        apply(found, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "eo-batch-runner"}})
        yield found


@pytest.fixture(scope="module")
def zones(images: Images) -> Iterator[Mapping[str, str]]:
    """Nodes without taints, each in a zone of its own; the last has the label that is avoided."""
    found = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    free = sorted(node["metadata"]["name"] for node in found if not node["spec"].get("taints"))
    free = [node for node in free if node in nodes()]
    if len(free) < 2:
        pytest.skip("the cluster needs two nodes without taints")
    try:
        for node in free:
            kubectl("label", "node", node, f"{_ZONE}={node}")
        kubectl("label", "node", free[-1], f"{_GPU}=true")
        yield {node: node for node in free}
    finally:
        for node in free:
            kubectl("label", "node", node, f"{_ZONE}-", f"{_GPU}-")


def placement(space: str, images: Images) -> Placement:
    small: dict[str, Any] = {"cpu": "10m", "memory_mb": 20}
    return Placement.model_validate(
        {
            "runner": "kubernetes",
            "cluster": {"namespace": space, "image": images.cpu},
            "pools": {"cpu": small | {"avoid_labels": [_GPU]}, "gang": small | {"gang_topology": _ZONE}},
            "stages": {"default": {"pool": "cpu"}, "pretrain": {"pool": "gang", "nodes": _NODES}},
        }
    )


def placed(space: str, kind: str, name: str, pods: int) -> list[Any]:
    """The pods of a piece of work as soon as all have a node; then it is deleted."""
    labels = f"eo-batch.io/work={name}"

    def scheduled() -> bool:
        return sum("nodeName" in pod["spec"] for pod in get(space, "pods", "-l", labels)) == pods

    wait_for(scheduled, f"{pods} pods have nodes", 90)
    found = get(space, "pods", "-l", labels)
    kubectl("delete", kind, "-n", space, name)
    return found


def test_pods_leave_out_nodes_with_what_their_pool_avoids(space: str, images: Images, zones: Mapping[str, str]) -> None:
    work = work_manifest(placement(space, images), "chips", "avoiding", _SLEEP, _PODS, 1, labels_of("placing"))
    apply(space, work)
    where = {pod["spec"]["nodeName"] for pod in placed(space, "job", "avoiding", _PODS)}
    assert where <= set(zones)
    assert max(zones) not in where


def test_the_pods_of_each_gang_share_a_zone(space: str, images: Images, zones: Mapping[str, str]) -> None:
    if JOBSET.group not in kubectl("api-versions"):
        pytest.skip("the cluster has no JobSet")
    work = work_manifest(placement(space, images), "pretrain", "near", _SLEEP, _GANGS, 1, labels_of("placing"))
    apply(space, work)
    gangs = defaultdict(set)
    for pod in placed(space, "jobset", "near", _GANGS * _NODES):
        gangs[pod["metadata"]["labels"]["jobset.sigs.k8s.io/job-index"]].add(zones[pod["spec"]["nodeName"]])
    assert len(gangs) == _GANGS
    assert all(len(found) == 1 for found in gangs.values()), gangs
