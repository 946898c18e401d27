"""The chart's node pools: nodes come from zero for exactly the pods that ask for them, and go when they are empty.

Karpenter's provider here is `kwok`: nodes are objects that say that they are ready, and pods on them that say that they
run. What is seen is who asks for which nodes. With a cloud's own provider the tests skip: they would rent GPUs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from eo_batch.core.placement import parse_placement
from eo_batch.runners.manifests import labels_of, work_manifest
from tests.cluster.chart import CHART, Installed, installed
from tests.cluster.conftest import S3, Images
from tests.cluster.kube import apply, get, kubectl, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_SPACE = "eo-batch-test-karpenter"
_CLASS = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": _SPACE}
_SIMULATED = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
"""What pods have to put up with to be on simulated nodes."""
_PLACES = {
    "chips": ("cpu-spot", "spot", 0),
    "pretrain": ("gpu-train", "on-demand", 1),
    "embed": ("gpu-spot", "spot", 1),
}
"""Pool of a stage by the chart's default values, how its nodes are paid, and the GPUs of a pod."""
_POOLS = tuple(pool for pool, _, _ in _PLACES.values())
_OURS = "eo-batch.io/run=pools"
_EMPTY_S = 10
"""Nodes go when they were empty for so long: pods end as soon as they have begun, and their nodes are to be seen."""

Node = dict[str, Any]


@pytest.fixture(scope="module")
def node_class(images: Images) -> Iterator[dict[str, str]]:
    served = kubectl("api-versions")
    if "karpenter.sh/v1" not in served:
        pytest.skip("the cluster has no Karpenter")
    if _CLASS["group"] not in served:
        pytest.skip("the cluster's Karpenter is a cloud's, which would rent GPUs: only that of kwok is used")
    version = f"{_CLASS['group']}/v1alpha1"
    manifest = {"apiVersion": version, "kind": _CLASS["kind"], "metadata": {"name": _CLASS["name"]}}
    kubectl("apply", "-f", "-", manifests=[manifest])
    yield _CLASS
    kubectl("delete", _CLASS["kind"], _CLASS["name"], "--timeout=60s")


@pytest.fixture(scope="module")
def release(
    images: Images, s3: S3, node_class: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """The chart with the pools of its own default values, but for what simulated nodes ask for."""
    defaults = _defaults()
    assert defaults["karpenter"]["nodePools"].keys() == set(_POOLS)
    pools = {
        name: {key: pool[key] for key in ("cpu", "memory_mb", "gpus")}
        | {"tolerations": [*pool["tolerations"], _SIMULATED]}
        for name, pool in defaults["pools"].items()
    }
    node_pools = {name: {"consolidateAfter": f"{_EMPTY_S}s"} for name in _POOLS}
    more = {"pools": pools, "karpenter": {"enabled": True, "nodeClassRef": node_class, "nodePools": node_pools}}
    with installed(_SPACE, images, s3, tmp_path_factory.mktemp("release"), more) as found:
        yield found
        # A node whose pool goes while it comes would be nobody's.
        kubectl("delete", "jobs", "-n", _SPACE, "--all")
        wait_for(lambda: nodes_of(*_POOLS) == [], "no node outlives its pods", 90, every_s=1)


def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found


def nodes_of(*pools: str) -> list[Node]:
    """Nodes that Karpenter brought for some pools of the release."""
    names = ",".join(f"{_SPACE}-{pool}" for pool in pools)
    told = kubectl("get", "nodes", "-l", f"karpenter.sh/nodepool in ({names})", "-o", "json")
    found: list[Node] = json.loads(told)["items"]
    return found


def at_home(pods: list[Node], nodes: Mapping[str, Node]) -> list[Node]:
    """The nodes that pods ran on."""
    return [nodes[name] for name in sorted({pod["spec"]["nodeName"] for pod in pods})]


@pytest.mark.parametrize("wanted", [{"chips": 3}, {"chips": 1, "pretrain": 1, "embed": 1}], ids=["no-gpu", "all-pools"])
def test_nodes_come_for_the_pods_that_ask_and_go_when_they_are_empty(
    release: Installed, wanted: dict[str, int]
) -> None:
    """Those of a pool hold its pods and no others, though GPU nodes have processors to spare."""
    placement = parse_placement(release.profile("kubernetes").read_text())
    assert nodes_of(*_POOLS) == [], "pools begin with no node"
    for stage, pods in wanted.items():
        apply(_SPACE, work_manifest(placement, stage, f"pools-{stage}", ["true"], pods, 1, labels_of("pools")))
    nodes: dict[str, Node] = {}

    def ran() -> bool:
        # They are there a moment before Karpenter has given them all they are to have.
        come = [node for node in nodes_of(*_POOLS) if "karpenter.sh/initialized" in node["metadata"]["labels"]]
        nodes.update({node["metadata"]["name"]: node for node in come})
        ended = [job for job in get(_SPACE, "jobs", "-l", _OURS) if "completionTime" in job["status"]]
        on = {pod["spec"].get("nodeName") for pod in get(_SPACE, "pods", "-l", _OURS)}
        return len(ended) == len(wanted) and on <= nodes.keys()

    wait_for(ran, "all pods ran on nodes of the pools", 120)
    pods = get(_SPACE, "pods", "-l", _OURS)
    assert len(pods) == sum(wanted.values())
    assert nodes.keys() == {pod["spec"]["nodeName"] for pod in pods}, "a node that nobody asked for"
    for stage, count in wanted.items():
        pool, capacity, gpus = _PLACES[stage]
        mine = at_home([pod for pod in pods if pod["metadata"]["labels"]["eo-batch.io/stage"] == stage], nodes)
        for node in mine:
            labels = node["metadata"]["labels"]
            assert (labels["eo-batch.io/pool"], labels["karpenter.sh/capacity-type"]) == (pool, capacity)
            taints = {taint["key"] for taint in node["spec"]["taints"] if taint["effect"] == "NoSchedule"}
            assert taints >= {taint["key"] for taint in _defaults()["karpenter"]["nodePools"][pool]["taints"]}
        assert sum(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in mine) == count * gpus
    wait_for(lambda: nodes_of(*_POOLS) == [], "the empty nodes go", 120, every_s=1)
    kubectl("delete", "jobs", "-n", _SPACE, "-l", _OURS)
