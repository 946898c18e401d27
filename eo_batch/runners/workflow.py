"""A run as an Argo workflow: the graph of stages as plain data. Nothing here asks a cluster.

    plan ──▶ chips ──▶ publish ──▶ pretrain ──▶ embed ──▶ probe ──▶ report

Stages of one shard are pods that run `eo-batch step`. The others are each one object that Kubernetes works off, an
Indexed Job or a JobSet: the step before prints its manifest as an output parameter, and a node of the workflow creates
it and waits for its end. So a workflow has a few nodes, however many shards a run has, and says nothing about pods that
`runners.manifests` does not say already.

| output of a step | what it holds, for each stage that comes next |
|---|---|
| `STAGE-slices` | how many pods it takes; 0 where nothing is missing or the stage is not wanted |
| `STAGE-manifest` | the object that runs them; only for stages of many shards |
| `STAGE-success` | what that object's status has when all went well, as a label selector over its JSON |

The service account of the workflow's own pods needs, in its namespace, and nothing else:

| API group | resources | verbs | for |
|---|---|---|---|
| `argoproj.io` | `workflowtaskresults` | create, patch | telling Argo what a step put out |
| `batch` | `jobs` | get, create, patch | fan-outs |
| `jobset.x-k8s.io` | `jobsets` | get, create, patch | fan-outs of gangs |
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eo_batch.core.layout import STAGES
from eo_batch.core.placement import Placement, dump_placement
from eo_batch.runners.base import DO_NOT_RETRY
from eo_batch.runners.manifests import (
    LEASE_LABEL,
    RUN_LABEL,
    SAME_FOR_ALL,
    WORK_LABEL,
    Manifest,
    labels_of,
    pod_template,
    work_labels,
)

RUNNER = "argo"
"""Name of the runner, for receipts."""
TEMPLATE = "eo-batch"
"""Name of the WorkflowTemplate that the chart ships."""
FAN_OUTS = ("chips", "pretrain", "embed")
"""Stages of many shards, whose pods are a Job's or a JobSet's."""
AFTER: Mapping[str, tuple[str, ...]] = {"plan": ("chips",), "publish": ("pretrain", "embed", "probe", "report")}
"""Stages of which a step tells what is to be done: those whose missing shards are known as soon as it is done."""
OUTPUTS = "/tmp/outputs"
"""Folder in a step's pod where it writes its output parameters, one file each."""
WATCH_SUFFIX = "-watch"
"""The component, in labels, of the pod that waits for the end of a stage's Job: the stage's, and this."""
COMPLETE = {"Job": "status.completionTime", "JobSet": "status.terminalState == Completed"}
"""What the status of an object has when all went well, by kind; Kubernetes sets `completionTime` in no other case.
Argo reads it as a label selector whose keys are paths, so it can't look for a condition by its type."""

_FAILED = ", ".join(["status.terminalState == Failed", *(f"status.conditions.{i}.type == Failed" for i in range(4))])
"""What the status of an object has when it failed for good and no pod of it runs any more: one of these. A Job has at
most three conditions before this one: it was suspended, is about to fail, or was about to complete."""
_STEP_RETRIES = 12
"""Tries of a step's pod beyond the first. The step itself gives up a shard that kills its pods after fewer."""
_WATCH_RETRIES = 60
"""The same for a pod that only waits for the end of a Job, for hours: trying again costs nothing."""
_PLACED = ("affinity", "nodeSelector", "tolerations", "priorityClassName")
"""Fields of a pod that say where it may run, which a template of Argo's has under the same names."""
_HOPELESS = ("failure condition", "forbidden", "is invalid", "no matches for kind", "denied the request")
"""What Argo says of an object that failed, or was refused and will be again."""
_SPARE_S = 600
"""A pod that waits for the end of a Job has to see it reach its deadline."""
_EXECUTOR: Manifest = {
    "resources": {"requests": {"cpu": "10m", "memory": "64M"}, "limits": {"memory": "512M"}},
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
"""Argo's own containers. Its controller gives them what it is told by its own configuration, which is nothing by
default; Pod Security `restricted` and resource quotas ask for it."""

_PARAMETERS: Mapping[str, tuple[str | None, str]] = {
    "run": (None, "Name of the run: that of its spec."),
    "store": (None, "Store of the run: s3://bucket/prefix, gs://… or az://…"),
    "spec": ("", "Run spec, YAML; it is submitted. Empty: what was submitted last under the run's name."),
    "spec-at": ("", "Key of a run spec in the store, instead."),
    "until": ("", "Last stage; empty is all of them."),
    "refresh": ("false", "Whether chips whose scenes changed are made again: true or false."),
    "profile": (None, "Where the pods of fan-outs run, YAML. Steps run where this template was rendered for."),
    "lease": ("", "Name of the Lease that owns the workflow."),
    "identity": ("", "What the run's stages are, as who submits it sees it; pods of another version refuse the run."),
}
"""Parameters of a workflow: their defaults, None where rendering knows better, and what they are for."""


def workflow_template(placement: Placement) -> Manifest:
    """The WorkflowTemplate of a namespace: `argo submit --from workflowtemplate/eo-batch -p run=… -p spec=…`."""
    assert placement.cluster is not None
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": TEMPLATE, "namespace": placement.cluster.namespace},
        "spec": graph(placement),
    }


def run_workflow(
    placement: Placement, name: str, labels: Mapping[str, str], owner: Mapping[str, Any] | None, **given: str
) -> Manifest:
    """A run's workflow. `labels` are those of `labels_of` or of a Lease, `owner` is an owner reference, and the rest
    are parameters."""
    spec = graph(placement)
    unknown = given.keys() - {parameter["name"].replace("-", "_") for parameter in spec["arguments"]["parameters"]}
    assert not unknown, unknown
    for parameter in spec["arguments"]["parameters"]:
        if (value := given.get(parameter["name"].replace("-", "_"))) is not None:
            parameter["value"] = value
    return _workflow(placement, name, labels, owner, spec)


def fan_out_workflow(
    placement: Placement, name: str, stage: str, labels: Mapping[str, str], owner: Mapping[str, Any], work: Manifest
) -> Manifest:
    """A workflow of one fan-out of a stage, `work`."""
    marks = {**labels, WORK_LABEL: work["metadata"]["name"]}
    spec = _base(placement, 1, marks) | {
        "entrypoint": stage,
        "templates": [_fan_out(placement, stage, json.dumps(work), success_of(work))],
    }
    return _workflow(placement, name, marks, owner, spec)


def success_of(work: Manifest) -> str:
    """What the status of an object has when all went well."""
    return COMPLETE[work["kind"]]


def graph(placement: Placement) -> Manifest:
    """What WorkflowTemplate and Workflow have in common, which is all but names, labels, and values of parameters."""
    known = {"profile": dump_placement(placement), "store": placement.store}
    parameters = []
    for name, (default, about) in _PARAMETERS.items():
        value = known.get(name, default)
        parameters.append({"name": name, "description": about} | ({} if value is None else {"value": value}))
    # The run's name as a label may hold it: a label's value ends with a letter or a digit.
    run = "{{=sprig.trimAll('._-', workflow.parameters.run)}}"
    labels = labels_of("") | {RUN_LABEL: run, LEASE_LABEL: "{{workflow.parameters.lease}}"}
    return _base(placement, len(STAGES), labels) | {
        "entrypoint": "run",
        "arguments": {"parameters": parameters},
        "templates": [{"name": "run", "dag": {"tasks": _tasks()}}, *(_stage(placement, stage) for stage in STAGES)],
    }


def _tasks() -> list[Manifest]:
    """One after the other, as every other runner does it; those that have nothing to do are skipped."""
    tellers = {stage: teller for teller, told in AFTER.items() for stage in told}
    tasks: list[Manifest] = []
    for before, stage in zip((None, *STAGES), STAGES, strict=False):
        task: Manifest = {"name": stage, "template": stage}
        if before is not None:
            task["depends"] = before
        if stage in tellers:
            task["when"] = f"{{{{tasks.{tellers[stage]}.outputs.parameters.{stage}-slices}}}} > 0"
        tasks.append(task)
    return tasks


def _stage(placement: Placement, stage: str) -> Manifest:
    if stage not in FAN_OUTS:
        return _step(placement, stage)
    # Outputs of the whole workflow, since every node of a try would hold a copy of what it is given.
    manifest, success = (f"{{{{workflow.outputs.parameters.{stage}-{what}}}}}" for what in ("manifest", "success"))
    return _fan_out(placement, stage, manifest, success)


def _step(placement: Placement, stage: str) -> Manifest:
    """A stage of one shard."""
    assert placement.cluster is not None
    following = AFTER.get(stage, ())
    argv = ["eo-batch", "step", stage, "--work={{workflow.uid}}"]
    argv += [f"--{name}={{{{workflow.parameters.{name}}}}}" for name in _PARAMETERS]
    if following:
        argv += [f"--next={','.join(following)}", f"--outputs={OUTPUTS}"]
    pod = pod_template(placement, stage, argv, work_labels({}, stage, "{{workflow.name}}"))
    (container,) = pod["spec"]["containers"]
    # Argo runs the command below a process of its own, which passes signals on; and without a command it would ask a
    # registry for the image's.
    main = {key: value for key, value in container.items() if key != "name"} | {"command": argv[:1], "args": argv[1:]}
    outputs = [output for told in following for output in _outputs(told)]
    return {
        "name": stage,
        "metadata": pod["metadata"],
        "container": main,
        "volumes": pod["spec"]["volumes"],
        **_where(pod),
        **({"outputs": {"parameters": outputs}} if outputs else {}),
        "activeDeadlineSeconds": placement.cluster.deadline_s,
        "retryStrategy": _retry(_STEP_RETRIES, f"!(asInt(lastRetry.exitCode) in {[DO_NOT_RETRY, *SAME_FOR_ALL]})"),
        "podSpecPatch": _patch(initContainers=["init"], containers=["wait"]),
    }


def _outputs(stage: str) -> list[Manifest]:
    """What a step says of a stage that comes next."""
    told = [f"{stage}-{what}" for what in (("slices", "manifest", "success") if stage in FAN_OUTS else ("slices",))]
    shared = {name: {"globalName": name} for name in told if stage in FAN_OUTS and not name.endswith("slices")}
    return [{"name": name, "valueFrom": {"path": f"{OUTPUTS}/{name}"}, **shared.get(name, {})} for name in told]


def _fan_out(placement: Placement, stage: str, manifest: str, success: str) -> Manifest:
    """Creates an object and waits for its end. Another try finds the object that is there, and waits for that."""
    assert placement.cluster is not None
    pod = pod_template(placement, "plan", (), {"app.kubernetes.io/component": f"{stage}{WATCH_SUFFIX}"})
    hopeless = " || ".join(f"lastRetry.message contains '{said}'" for said in _HOPELESS)
    return {
        "name": stage,
        "metadata": pod["metadata"],
        "resource": {
            "action": "apply",
            "setOwnerReference": True,
            "manifest": manifest,
            "successCondition": success,
            "failureCondition": _FAILED,
        },
        **_where(pod),
        "activeDeadlineSeconds": placement.cluster.deadline_s + _SPARE_S,
        "retryStrategy": _retry(_WATCH_RETRIES, f"!({hopeless})"),
        "podSpecPatch": _patch(containers=["main"]),
    }


def _where(pod: Manifest) -> Manifest:
    """Which nodes a pod may run on, and before whom."""
    return {key: pod["spec"][key] for key in _PLACED if key in pod["spec"]}


def _base(placement: Placement, stages: int, labels: Mapping[str, str]) -> Manifest:
    """What all workflows have in common; `labels` are those of its own pods."""
    cluster = placement.cluster
    assert cluster is not None
    return {
        "serviceAccountName": placement.argo.service_account,
        "securityContext": pod_template(placement, "plan", (), {})["spec"]["securityContext"],
        "podMetadata": {"labels": dict(labels)},
        "activeDeadlineSeconds": stages * (cluster.deadline_s + _SPARE_S),
        "ttlStrategy": {"secondsAfterCompletion": cluster.ttl_s},
        "podGC": {"strategy": "OnPodSuccess"},
        "archiveLogs": False,
    }


def _workflow(
    placement: Placement, name: str, labels: Mapping[str, str], owner: Mapping[str, Any] | None, spec: Manifest
) -> Manifest:
    assert placement.cluster is not None
    metadata: Manifest = {"name": name, "namespace": placement.cluster.namespace, "labels": dict(labels)}
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec}


def _retry(limit: int, expression: str) -> Manifest:
    return {
        "limit": str(limit),
        "retryPolicy": "Always",
        "expression": expression,
        "backoff": {"duration": "5s", "factor": "2", "cap": "60s"},
    }


def _patch(**containers: Sequence[str]) -> str:
    """What only a patch of the pod can say: what Argo's own containers are, and that Services are no variables."""
    named = {kind: [{"name": name, **_EXECUTOR} for name in names] for kind, names in containers.items()}
    return json.dumps({"enableServiceLinks": False, **named})
