"""Gangs: pods that work on one slice together, started together or not at all. One JobSet holds all gangs of a stage.

Each gang is a Job of as many pods as it has nodes; torchrun starts one process for each GPU in every pod, and meets at
the first pod of the gang, by the name that the JobSet's headless Service gives it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eo_batch.core.placement import Placement
from eo_batch.runners.base import POLITE_STOP
from eo_batch.runners.manifests import (
    SAME_FOR_ALL,
    WORK_LABEL,
    Manifest,
    exit_rule,
    head,
    pod_template,
    work_labels,
)

GROUP = "gang"
"""Name of the set of Jobs in the JobSet: its Jobs are `NAME-gang-0`, `NAME-gang-1`, …"""
PORT = 29500
"""Where the processes of a gang meet."""
_GANG_LABEL = "jobset.sigs.k8s.io/job-index"
"""JobSet's label of pods: the number of their gang."""
RESTARTS = 8
"""Restarts of all gangs after one of them died. Disruptions do not count."""


def gang_manifest(
    placement: Placement,
    stage: str,
    name: str,
    argv: Sequence[str],
    slices: int,
    labels: Mapping[str, str],
    memory_mb: int,
    owner: Mapping[str, Any] | None,
) -> Manifest:
    """The JobSet that runs `argv` once for each slice, in `nodes` pods; arguments as those of `work_manifest`.

    A pod that dies takes its gang with it, and JobSet starts all gangs again, which go on from their checkpoints.
    """
    assert placement.cluster is not None
    nodes, pool = placement.at(stage).nodes, placement.pools[placement.at(stage).pool]
    metadata, queued = head(placement, stage, name, argv, labels, owner)
    marked = work_labels(labels, stage, name)
    fields = {
        "EO_BATCH_SLICE": f"metadata.labels['{_GANG_LABEL}']",
        "EO_BATCH_RANK": "metadata.annotations['batch.kubernetes.io/job-completion-index']",
    }
    together = [
        "python3",
        "-m",
        "eo_batch.runners.together",
        f"--nnodes={nodes}",
        f"--nproc-per-node={max(pool.gpus, 1)}",
        "--node-rank=$(EO_BATCH_RANK)",
        f"--master-addr={name}-{GROUP}-$(EO_BATCH_SLICE)-0.{name}",
        f"--master-port={PORT}",
        "--no-python",
        *argv,
    ]
    template = pod_template(placement, stage, together, marked, memory_mb, fields)
    if pool.gang_topology:
        with_it = {
            "topologyKey": pool.gang_topology,
            "labelSelector": {"matchLabels": {WORK_LABEL: name}},
            "matchLabelKeys": [_GANG_LABEL],
        }
        prefers = [{"weight": 100, "podAffinityTerm": with_it}]
        near = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": prefers}}
        template["spec"]["affinity"] = template["spec"].get("affinity", {}) | near
    job: Manifest = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        # One pod that dies ends its Job, and the JobSet decides.
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                exit_rule("FailJob", POLITE_STOP),
                exit_rule("FailJob", *SAME_FOR_ALL),
            ]
        },
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": placement.cluster.deadline_s,
        "template": template,
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "suspend": queued,
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "successPolicy": {"operator": "All"},
            "failurePolicy": {
                "maxRestarts": RESTARTS,
                # The first that matches decides; a Job's message names the condition or the exit code.
                "rules": [
                    {
                        "name": "disrupted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                        "onJobFailureMessagePatterns": ["DisruptionTarget", f"exit code {POLITE_STOP}"],
                    },
                    {
                        "name": "hopeless",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"],
                    },
                ],
            },
            "ttlSecondsAfterFinished": placement.cluster.ttl_s,
            "replicatedJobs": [
                {"name": GROUP, "replicas": slices, "template": {"metadata": {"labels": marked}, "spec": job}}
            ],
        },
    }
