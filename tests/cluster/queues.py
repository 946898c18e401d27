"""Kueue queues for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eo_batch.core.placement import Placement
from eo_batch.runners.kube import QUEUES, connect
from tests.cluster.kube import apply, kubectl

_KIND = "kueue.x-k8s.io/v1beta1"


@contextmanager
def queue(placement: Placement, cpu: str) -> Iterator[Placement]:
    """The placement with its pool in a queue that admits so much processor. Skips where Kueue is missing."""
    cluster = placement.cluster
    assert cluster is not None
    if connect(cluster).served(*QUEUES) is None:
        pytest.skip("the cluster has no Kueue")
    name = f"{cluster.namespace}-queue"
    quotas = {"cpu": cpu, "memory": "64Gi", "ephemeral-storage": "1Ti"}
    resources = [{"name": resource, "nominalQuota": quota} for resource, quota in quotas.items()]
    group = {"coveredResources": list(quotas), "flavors": [{"name": name, "resources": resources}]}
    spec = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}},
        "resourceGroups": [group],
    }
    apply(
        cluster.namespace,
        {"apiVersion": _KIND, "kind": "ResourceFlavor", "metadata": {"name": name}},
        {"apiVersion": _KIND, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": _KIND, "kind": "LocalQueue", "metadata": {"name": "tests"}, "spec": {"clusterQueue": name}},
    )
    pools = {key: pool.model_copy(update={"queue": "tests"}) for key, pool in placement.pools.items()}
    try:
        yield placement.model_copy(update={"pools": pools})
    finally:
        kubectl("delete", "localqueue", "-n", cluster.namespace, "tests")
        kubectl("delete", "clusterqueue,resourceflavor", name)
