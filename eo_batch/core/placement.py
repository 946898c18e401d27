"""Placement: where a run's stages run. Never part of a run's identity; the same spec runs on any of them.

A profile (`profiles/*.yaml`) is one placement. It names pools of nodes by purpose (`cpu-spot`, `gpu-train`, `gpu-spot`)
and says which stage runs on which, in pods of what size.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eo_batch.core.errors import SpecError
from eo_batch.core.layout import STAGES

LEARNING = ("pretrain", "embed", "probe")
"""Stages that need torch or scikit-learn, and so the larger image."""

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)]
Label = Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
"""Key of a label, as Kubernetes writes it: `topology.kubernetes.io/zone`."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(_Section):
    """A taint that pods of a pool put up with; fields as in Kubernetes."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Pool(_Section):
    """A kind of nodes, and the size of the pods that run there."""

    node_selector: dict[str, str] = {}
    """Labels of the pool's nodes."""
    avoid_labels: tuple[Label, ...] = ()
    """Labels of nodes that pods stay off where others have room, such as `nvidia.com/gpu.present`."""
    gang_topology: Label | Literal[""] = "topology.kubernetes.io/zone"
    """Label whose value the nodes of a gang share where they can: traffic between zones is slow and costs money. Empty
    leaves it to the scheduler."""
    tolerations: tuple[Toleration, ...] = ()
    cpu: str = "1"
    """Processor request of a pod, as Kubernetes writes it: `2`, `500m`."""
    memory_mb: Count = 2048
    """Least memory of a pod, MB; a stage whose plan projects more gets more."""
    gpus: int = Field(default=0, ge=0)
    """`nvidia.com/gpu` of a pod; pods that ask for none never get one."""
    priority_class: Name | None = None
    """PriorityClass; None is the cluster's default."""
    queue: Name | None = None
    """Kueue LocalQueue that admits the pool's work; None starts pods without asking."""


class StagePlacement(_Section):
    """Where and how one stage runs."""

    pool: Name
    """Name of a pool of this profile."""
    shards_per_pod: Count = 1
    """Shards that one pod runs, one after the other."""
    parallelism: Count = 50
    """Most pods at once."""
    nodes: Count = 1
    """Pods that work on one shard together, started together or not at all; for `pretrain` only."""


class Cluster(_Section):
    """A namespace of a Kubernetes cluster, as the Helm chart sets it up."""

    namespace: Name = "eo-batch"
    context: str | None = None
    """Context of the kube config; None is the current one, or the pod's own cluster."""
    service_account: Name = "eo-batch-runner"
    """What pods run as: on clouds, the identity that may write the store. It has no rights in Kubernetes."""
    image: str
    """Image without torch, for every stage that needs none."""
    gpu_image: str | None = None
    """Image with torch, for pretrain, embed and probe; None is `image`."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    env: dict[str, str] = {}
    """Environment of the pods, such as AWS_REGION. Nothing secret: it is readable in every pod's object."""
    secrets: tuple[Name, ...] = ()
    """Kubernetes Secrets whose keys become environment variables of the pods, for stores reached by plain keys."""
    pod_labels: dict[str, str] = {}
    """Labels of all pods, such as `azure.workload.identity/use: "true"`."""
    deadline_s: Count = 86_400
    """A stage that takes longer is ended by Kubernetes, whoever watches it or not. Dask clusters have no such end: only
    the Lease that owns them ends those whose driver is gone."""
    ttl_s: Count = 3_600
    """Finished Jobs are deleted after this time."""
    lease_s: Count = 600
    """What a run started is deleted when whoever started it has not shown up for this time; not with --detach."""


class ArgoServer(_Section):
    """Argo Workflows."""

    url: str = "http://argo-server.argo:2746"
    """Address of Argo's server, as drivers reach it."""
    ui: str | None = None
    """Address of Argo's pages, as people reach them, for links; None takes `url`."""
    service_account: Name = "eo-batch-workflow"
    """What a workflow's own pods run as: they create Jobs, and report what became of them."""
    client_account: Name = "eo-batch-driver"
    """Service account whose token opens the server, where the kube config holds a certificate and no token."""
    verify_tls: bool = True
    """Whether the server's certificate must be valid; Argo's own default certificate is not."""


class DaskCluster(_Section):
    """A Dask cluster: an existing one (`address`), one of the operator's (with `cluster`), or local processes."""

    address: str | None = None
    """Scheduler to connect to, such as tcp://scheduler:8786; None starts a cluster and closes it at the end."""
    workers_min: Count = 1
    workers_max: Count = 4
    """Workers, each with one thread; with the operator the cluster adapts between the two."""
    pool: Name = "cpu-spot"
    """Pool of the workers' pods."""


class Placement(_Section):
    """Where a run's stages run."""

    runner: Literal["local", "dask", "kubernetes", "argo"]
    """Who runs shards: processes here, Dask, Indexed Jobs that are driven from here, or one Argo workflow."""
    store: str | None = None
    """Store of runs if none is named: folder or URL."""
    workers: int | None = Field(default=None, ge=0)
    """Processes of the runner `local`; None is one for each core."""
    cluster: Cluster | None = None
    argo: ArgoServer = ArgoServer()
    dask: DaskCluster = DaskCluster()
    pools: dict[Name, Pool] = {}
    stages: dict[str, StagePlacement] = {}
    """By stage; `default` holds for those that are not named."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.runner in ("kubernetes", "argo") and self.cluster is None:
            raise ValueError(f"cluster is missing; runner={self.runner} needs its image, namespace and service account")
        unknown = set(self.stages) - {*STAGES, "default"}
        if unknown:
            raise ValueError(f"stages.{min(unknown)} is no stage; stages are {', '.join(STAGES)}, and default")
        for stage, placed in self.stages.items():
            if placed.pool not in self.pools:
                known = ", ".join(sorted(self.pools)) or "none"
                raise ValueError(f"stages.{stage}.pool={placed.pool} is not in pools (known: {known})")
            if placed.nodes > 1 and stage != "pretrain":
                raise ValueError(
                    f"stages.{stage}.nodes={placed.nodes}: only pretrain works on one shard in several pods"
                )
        if self.runner == "dask" and self.cluster is not None and self.dask.pool not in self.pools:
            raise ValueError(f"dask.pool={self.dask.pool} is not in pools (known: {', '.join(sorted(self.pools))})")
        return self

    def at(self, stage: str) -> StagePlacement:
        """Where a stage runs. Raises SpecError if the profile does not say."""
        placed = self.stages.get(stage) or self.stages.get("default")
        if placed is None:
            raise SpecError(f"the profile places neither {stage} nor default; add stages.default with a pool")
        return placed

    def image_of(self, stage: str) -> str:
        """The image whose pods run a stage."""
        assert self.cluster is not None  # the runners that ask have one
        return (self.cluster.gpu_image if stage in LEARNING else None) or self.cluster.image


LOCAL = Placement(runner="local")
"""This machine."""


def parse_placement(text: str, where: str = "profile") -> Placement:
    """The placement of a YAML profile. Raises SpecError naming every wrong field."""
    try:
        return Placement.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise SpecError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise SpecError(f"{where}: {'; '.join(_line(problem) for problem in error.errors())}") from error


def _line(problem: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in problem["loc"]) or "profile"
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}"


def dump_placement(placement: Placement) -> str:
    """YAML that `parse_placement` reads back to an equal placement; what is at its default is left out."""
    return yaml.safe_dump(placement.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
