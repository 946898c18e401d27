"""What the Dask operator is asked for, as plain data: a DaskCluster, and the DaskAutoscaler of its workers.

The operator makes a Deployment and a Service of the scheduler out of it, and a Deployment for each worker; it gives all
of them the labels and annotations of the DaskCluster.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from eo_batch.core.placement import Placement, StagePlacement
from eo_batch.runners.manifests import Manifest, pod_template

CLUSTER_LABEL = "dask.org/cluster-name"
"""The operator's label of all that belongs to a DaskCluster: its name."""
PART_LABEL = "dask.org/component"
"""The operator's label: `scheduler` or `worker`."""
COMM_PORT = 8786
"""Where a scheduler is spoken to."""

_HTTP_PORT = 8787
_API = "kubernetes.dask.org/v1"
_SCHEDULER = {"cpu": "100m", "memory": "512M"}
"""What a scheduler asks for. It holds no more tasks than there are workers, and 1 kB for each worker."""
_SCHEDULER_LIMIT = "2G"
"""Its limit of memory: people's own computations on the cluster may have some 100,000 tasks."""
_WORKER = shlex.split(
    "dask worker --name $(DASK_WORKER_NAME) --nworkers 1 --nthreads 1 --memory-limit 0 --no-dashboard "
    "--local-directory /tmp/dask"
)
"""Its pod limits a worker's memory: under a limit of its own it would stop taking work, for good."""
_NANNY_MB = 100
"""Memory of the process that watches over a worker's."""


def cluster_manifest(
    placement: Placement,
    stage: str,
    name: str,
    workers: int,
    labels: Mapping[str, str],
    memory_mb: int = 0,
    owner: Mapping[str, Any] | None = None,
) -> Manifest:
    """A DaskCluster whose workers can run a stage: pods of `dask.pool`, each with one worker of one thread.

    `memory_mb` is what one index is projected to need; `owner` is an owner reference.
    Pods satisfy the Pod Security standard `restricted`. `dask worker` runs under its nanny: it ends politely at SIGTERM
    (so that the scheduler hears of it, and a drained node costs no try), and starts a worker that has died at once,
    where Kubernetes would wait longer with each death. It hides no death, since the scheduler reports them.
    """
    assert placement.cluster is not None
    placed = placement.model_copy(update={"stages": {"default": StagePlacement(pool=placement.dask.pool)}})
    needed_mb = max(placement.pools[placement.dask.pool].memory_mb, memory_mb) + _NANNY_MB
    worker = _pod(pod_template(placed, stage, _WORKER, labels, needed_mb))
    template = pod_template(placed, stage, ["dask", "scheduler", "--no-show"], labels)
    scheduler = _pod(template)
    [container] = scheduler["containers"]
    container["resources"] = {"requests": _SCHEDULER, "limits": {"memory": _SCHEDULER_LIMIT}}
    container["ports"] = [
        {"name": "tcp-comm", "containerPort": COMM_PORT},
        {"name": "http-dashboard", "containerPort": _HTTP_PORT},
    ]
    health = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
    container["readinessProbe"] = health | {"periodSeconds": 1, "timeoutSeconds": 5}
    container["livenessProbe"] = health | {"initialDelaySeconds": 30, "periodSeconds": 20, "timeoutSeconds": 10}
    metadata: Manifest = {
        "name": name,
        "namespace": placement.cluster.namespace,
        "labels": template["metadata"]["labels"],
        "annotations": template["metadata"]["annotations"],
    }
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return {
        "apiVersion": _API,
        "kind": "DaskCluster",
        "metadata": metadata,
        "spec": {
            "worker": {"replicas": workers, "spec": worker},
            "scheduler": {"spec": scheduler, "service": _service(name)},
        },
    }


def autoscaler_manifest(cluster: Manifest, least: int, most: int) -> Manifest:
    """The DaskAutoscaler of a cluster (as the API gave it): between so many workers as its scheduler can use."""
    metadata = cluster["metadata"]
    owner = {
        "apiVersion": _API,
        "kind": "DaskCluster",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": _API,
        "kind": "DaskAutoscaler",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": metadata["labels"],
            "ownerReferences": [owner],
        },
        "spec": {"cluster": metadata["name"], "minimum": least, "maximum": most},
    }


def _pod(template: Manifest) -> Manifest:
    """The spec of a pod that a Deployment keeps running."""
    spec: Manifest = {**template["spec"], "restartPolicy": "Always"}
    return spec


def _service(name: str) -> Manifest:
    ports: Sequence[tuple[str, int]] = (("tcp-comm", COMM_PORT), ("http-dashboard", _HTTP_PORT))
    return {
        "type": "ClusterIP",
        "selector": {CLUSTER_LABEL: name, PART_LABEL: "scheduler"},
        "ports": [
            {"name": port_name, "protocol": "TCP", "port": port, "targetPort": port_name} for port_name, port in ports
        ],
    }
