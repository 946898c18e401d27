"""What the Dask operator is asked for, and what its pods tell."""

from __future__ import annotations

from typing import Any

import pytest

from eo_batch.core.placement import Cluster, DaskCluster, Placement, Pool, Toleration
from eo_batch.runners.dask_cluster import was_taken
from eo_batch.runners.dask_manifests import autoscaler_manifest, cluster_manifest

OWNER = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": "demo-1", "uid": "u-1"}
PLACEMENT = Placement(
    runner="dask",
    cluster=Cluster(
        namespace="work",
        service_account="worker",
        image="eo-batch:1",
        gpu_image="eo-batch-gpu:1",
        env={"AWS_REGION": "eu-central-1"},
        secrets=("keys",),
        pod_labels={"identity": "yes"},
    ),
    pools={
        "cpu-spot": Pool(
            node_selector={"pool": "spot"}, tolerations=(Toleration(key="spot"),), cpu="2", memory_mb=1000
        ),
        "other": Pool(memory_mb=9000),
    },
    dask=DaskCluster(workers_min=2, workers_max=7),
)


def made(stage: str = "chips", memory_mb: int = 0) -> dict[str, Any]:
    return cluster_manifest(PLACEMENT, stage, "demo-dask", 3, {"run": "demo"}, memory_mb, OWNER)


def pods(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part: cluster["spec"][part]["spec"] for part in ("scheduler", "worker")}


def test_a_cluster_belongs_to_its_lease_and_carries_the_labels_of_its_pods() -> None:
    cluster = made()
    assert cluster["metadata"]["namespace"] == "work"
    assert cluster["metadata"]["ownerReferences"] == [OWNER]
    assert cluster["metadata"]["labels"] == {"run": "demo", "identity": "yes"}
    assert cluster["spec"]["worker"]["replicas"] == 3


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_pods_are_restricted_and_run_on_the_pool_of_dask(part: str) -> None:
    pod = pods(made())[part]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert pod["restartPolicy"] == "Always", "a Deployment takes no other"
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("worker", False)
    assert pod["nodeSelector"] == {"pool": "spot"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["spot"]


def test_workers_have_one_thread_each_and_memory_for_their_index_and_nanny() -> None:
    [worker] = pods(made(memory_mb=4000))["worker"]["containers"]
    assert worker["args"][:2] == ["dask", "worker"]
    assert "--nthreads 1" in " ".join(worker["args"])
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in worker["env"]
    assert {"name": "AWS_REGION", "value": "eu-central-1"} in worker["env"]
    assert worker["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert worker["resources"]["requests"] == {"cpu": "2", "memory": "4100M", "ephemeral-storage": "256M"}
    [small] = pods(made(memory_mb=10))["worker"]["containers"]
    assert small["resources"]["requests"]["memory"] == "1100M"


def test_stages_that_learn_get_the_larger_image() -> None:
    assert {pod["containers"][0]["image"] for pod in pods(made("chips")).values()} == {"eo-batch:1"}
    assert {pod["containers"][0]["image"] for pod in pods(made("embed")).values()} == {"eo-batch-gpu:1"}


def test_an_autoscaler_belongs_to_its_cluster() -> None:
    cluster = made()
    cluster["metadata"]["uid"] = "u-2"
    autoscaler = autoscaler_manifest(cluster, 3, 7)
    assert autoscaler["spec"] == {"cluster": "demo-dask", "minimum": 3, "maximum": 7}
    [owner] = autoscaler["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("DaskCluster", "demo-dask", "u-2")


@pytest.mark.parametrize(
    ("metadata", "conditions", "taken"),
    [
        ({}, {"Ready": "True", "ContainersReady": "True"}, False),
        ({}, {"Ready": "False", "ContainersReady": "False"}, False),  # a container ended, as when it ran out of memory
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"Ready": "True", "ContainersReady": "True"}, True),
        ({}, {"Ready": "True", "ContainersReady": "True", "DisruptionTarget": "True"}, True),
        ({}, {"Ready": "False", "ContainersReady": "True"}, True),  # its node is lost
    ],
)
def test_a_pod_that_was_taken_is_told_from_one_whose_process_died(
    metadata: dict[str, str], conditions: dict[str, str], taken: bool
) -> None:
    status = {"conditions": [{"type": kind, "status": value} for kind, value in conditions.items()]}
    assert was_taken({"metadata": metadata, "status": status}) is taken
