"""Kubernetes objects as plain data: the pods of a stage, and the Indexed Job that runs them.

Nothing here asks a cluster. Pods satisfy the Pod Security standard `restricted`, and get no rights in Kubernetes.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from eo_batch.core.errors import SpecError, UsageError
from eo_batch.core.placement import Placement
from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP

Manifest = dict[str, Any]
"""An object as the Kubernetes API takes it, in JSON's types."""

RUN_LABEL = "eo-batch.io/run"
"""Label of everything that a run starts: the run's name."""
LEASE_LABEL = "eo-batch.io/lease"
"""Label of everything that a Lease owns, directly or not: the Lease's name."""
STAGE_LABEL = "eo-batch.io/stage"
WORK_LABEL = "eo-batch.io/work"
"""Label of one piece of work and of all its pods: its name."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
COMMAND_ANNOTATION = "eo-batch.io/command"

CONTAINER = "eo-batch"
"""Name of the container that works."""
UID = 10001
"""User and group of the pods: as in the images, though any other can run them."""
MAX_COMPLETIONS = 100_000
"""Largest Indexed Job for which Kubernetes neither restricts parallelism nor limits per index."""
NAME_CHARS = 47
"""Longest name: a JobSet's pods add the name of a set, the number of a gang and of a pod in it (`-gang-9999-9999`), and
all of it has to fit into a host name of 63 characters."""
SAME_FOR_ALL = (UsageError.exit_code, 126, 127)
"""Exit codes that every pod of a Job would end with: its input is wrong, or its image does not have the command."""

_DEATHS = 8
"""Deaths of its pod that each shard of a slice is granted. A slice itself gives up a shard after fewer tries, and goes
on with the others; Kubernetes must not come first, for it would give up the whole slice. What is left over is for pods
that are killed without Kubernetes knowing that it was a disruption."""
_GRACE_S = 30
"""Between SIGTERM and SIGKILL, for handing back a try. GCP's spot nodes have no more."""
_SCRATCH_MB = 2048
"""What a pod may write to /tmp before it is evicted, so that it never fills its node's disk."""
_SHARED_MEMORY_MB = 1024
"""/dev/shm of a pod with GPUs: NCCL's processes on a node talk through it, and runtimes give 64 MB."""
_SPARE = 1.25
"""Limit of memory over what is asked for. The projection counts arrays and an idle interpreter; what is beyond it
(bytes in flight, fragmentation of the heap) has to fit here, for whatever goes over the limit is killed."""

_LEAVE_ALONE = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations of pods: packing a node's pods more tightly would throw away the shard that each is working on, and they
end soon by themselves."""


def object_name(*parts: str) -> str:
    """A name for an object out of what people know it by; the last part is kept whole, so it may make it unique."""
    *others, last = (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    head = "-".join(other for other in others if other)[: NAME_CHARS - len(last) - 1].rstrip("-")
    name = f"{head}-{last}" if head else last
    # The headless Service of a gang has its name, and a Service's must not begin with a digit.
    return name if name[:1].isalpha() else f"x{name}"[:NAME_CHARS]


def label_value(text: str) -> str:
    """What a label can hold of a text."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("._-")


def labels_of(run: str) -> dict[str, str]:
    """Labels of everything that a run starts."""
    return {
        "app.kubernetes.io/name": "eo-batch",
        "app.kubernetes.io/managed-by": "eo-batch",
        RUN_LABEL: label_value(run),
    }


def slicing(placement: Placement, stage: str, shards: int) -> tuple[int, int]:
    """How the shards of a stage are dealt out: shards of each slice, and number of slices.

    Gangs start together or not at all, so there are never more of them than may run at once.
    Raises SpecError where the placement can't hold so many.
    """
    placed = placement.at(stage)
    per_pod = placed.shards_per_pod
    if placed.nodes > 1:
        gangs = placed.parallelism // placed.nodes
        if gangs == 0:
            raise SpecError(
                f"stages.{stage}.parallelism={placed.parallelism} is less than stages.{stage}.nodes={placed.nodes}: "
                f"the pods of a gang run at once; use parallelism={placed.nodes} or more"
            )
        per_pod = max(per_pod, -(-shards // gangs))
    slices = -(-shards // per_pod)
    if slices > MAX_COMPLETIONS:
        raise SpecError(
            f"{stage}: {shards} shards in slices of {per_pod} are {slices} pods, and one Job holds {MAX_COMPLETIONS}; "
            f"use stages.{stage}.shards_per_pod={-(-shards // MAX_COMPLETIONS)} or more"
        )
    return per_pod, slices


def work_manifest(
    placement: Placement,
    stage: str,
    name: str,
    argv: Sequence[str],
    slices: int,
    shards_per_pod: int,
    labels: Mapping[str, str],
    memory_mb: int = 0,
    owner: Mapping[str, Any] | None = None,
) -> Manifest:
    """The object that runs `argv` once for each slice: an Indexed Job, or a JobSet where several pods share a slice.

    `argv` may hold `SLICE`; `name` is one of `object_name`; `slices` and `shards_per_pod` are those of `slicing`;
    `labels` are those of `labels_of` or of a Lease; `memory_mb` is what one shard is projected to need; `owner` is an
    owner reference. Raises SpecError.
    """
    if placement.at(stage).nodes > 1:
        from eo_batch.runners.gangs import gang_manifest

        return gang_manifest(placement, stage, name, argv, slices, labels, memory_mb, owner)
    assert placement.cluster is not None
    if slices > MAX_COMPLETIONS:
        raise SpecError(f"{slices} slices do not fit into one Job; use a larger stages.{stage}.shards_per_pod")
    placed = placement.at(stage)
    metadata, queued = head(placement, stage, name, argv, labels, owner)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": slices,
            "parallelism": min(placed.parallelism, slices),
            "suspend": queued,
            "backoffLimitPerIndex": _DEATHS * shards_per_pod,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    exit_rule("Ignore", POLITE_STOP),
                    exit_rule("FailIndex", DO_NOT_RETRY),
                    exit_rule("FailJob", *SAME_FOR_ALL),
                ]
            },
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": placement.cluster.deadline_s,
            "ttlSecondsAfterFinished": placement.cluster.ttl_s,
            "template": pod_template(
                placement,
                stage,
                argv,
                work_labels(labels, stage, name),
                memory_mb,
                {"EO_BATCH_SLICE": "metadata.annotations['batch.kubernetes.io/job-completion-index']"},
            ),
        },
    }


def head(
    placement: Placement,
    stage: str,
    name: str,
    argv: Sequence[str],
    labels: Mapping[str, str],
    owner: Mapping[str, Any] | None,
) -> tuple[Manifest, bool]:
    """Metadata of a piece of work, and whether it waits for a Kueue queue to admit it."""
    assert placement.cluster is not None
    queue = placement.pools[placement.at(stage).pool].queue
    metadata: Manifest = {
        "name": name,
        "namespace": placement.cluster.namespace,
        "labels": work_labels(labels, stage, name) | ({QUEUE_LABEL: queue} if queue else {}),
        "annotations": {COMMAND_ANNOTATION: shlex.join(argv)},
    }
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return metadata, queue is not None


def exit_rule(action: str, *codes: int) -> Manifest:
    """A rule of a podFailurePolicy on the exit code of the container that works."""
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": sorted(codes)}}


def work_labels(labels: Mapping[str, str], stage: str, name: str) -> dict[str, str]:
    """Labels of a piece of work and of its pods."""
    return {**labels, "app.kubernetes.io/component": stage, STAGE_LABEL: stage, WORK_LABEL: name}


def pod_template(
    placement: Placement,
    stage: str,
    argv: Sequence[str],
    labels: Mapping[str, str],
    memory_mb: int = 0,
    fields: Mapping[str, str] | None = None,
) -> Manifest:
    """The pods that run `argv` for a stage, with these labels and those of the placement. `fields` are environment
    variables out of fields of the pod itself, which `argv` may name as `$(VARIABLE)`."""
    cluster, pool = placement.cluster, placement.pools[placement.at(stage).pool]
    assert cluster is not None
    env: list[Manifest] = [
        {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}} for variable, path in (fields or {}).items()
    ]
    # One thread in every pod: results depend on the number of threads, and a pod asks for as many cores as it uses.
    fixed = {"HOME": "/tmp", "OMP_NUM_THREADS": "1"} | cluster.env
    env += [{"name": variable, "value": value} for variable, value in fixed.items()]
    asked_mb = max(pool.memory_mb, memory_mb)
    limit_mb = int(asked_mb * _SPARE) + (_SHARED_MEMORY_MB if pool.gpus else 0)
    limits = {"memory": f"{limit_mb}M", "ephemeral-storage": f"{_SCRATCH_MB}M"}
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {"sizeLimit": f"{_SCRATCH_MB}M"}}]
    if pool.gpus:
        limits["nvidia.com/gpu"] = str(pool.gpus)
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
        memory = {"medium": "Memory", "sizeLimit": f"{_SHARED_MEMORY_MB}M"}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
    spec: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": cluster.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": placement.image_of(stage),
                "imagePullPolicy": cluster.pull_policy,
                # The image's entry point stays: it passes signals on.
                "args": list(argv),
                "env": env,
                "envFrom": [{"secretRef": {"name": secret}} for secret in cluster.secrets],
                "resources": {
                    # No limit of the processor: it would only slow down what the node has to spare.
                    "requests": {"cpu": pool.cpu, "memory": f"{asked_mb}M", "ephemeral-storage": "256M"},
                    "limits": limits,
                },
                # What a pod printed last is then in its status: a pod that dies early tells why.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if pool.avoid_labels:
        without = [{"key": label, "operator": "DoesNotExist"} for label in pool.avoid_labels]
        prefers = {"weight": 100, "preference": {"matchExpressions": without}}
        spec["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [prefers]}}
    if pool.node_selector:
        spec["nodeSelector"] = dict(pool.node_selector)
    if pool.tolerations:
        spec["tolerations"] = [toleration.model_dump(exclude_none=True) for toleration in pool.tolerations]
    if pool.priority_class:
        spec["priorityClassName"] = pool.priority_class
    metadata = {"labels": {**labels, **cluster.pod_labels}, "annotations": dict(_LEAVE_ALONE)}
    return {"metadata": metadata, "spec": spec}
