"""A run's workflow: few nodes, small, whole, with nothing but what Pod Security `restricted` admits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hera.workflows import models

from eo_batch.core.layout import STAGES
from eo_batch.core.placement import Placement, parse_placement
from eo_batch.runners.base import SLICE
from eo_batch.runners.manifests import Manifest, labels_of, object_name, slicing, work_manifest
from eo_batch.runners.workflow import (
    AFTER,
    FAN_OUTS,
    fan_out_workflow,
    run_workflow,
    success_of,
    workflow_template,
)

PROFILES = Path(__file__).resolve().parents[2] / "profiles"
OWNER = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": "same-1a2b3c4d", "uid": "0"}
REFERENCE = re.compile(r"\{\{(?!=)([^}]+)\}\}")


@pytest.fixture(params=["eks", "gke", "aks", "kubernetes"])
def placement(request: pytest.FixtureRequest) -> Placement:
    return parse_placement((PROFILES / f"{request.param}.yaml").read_text())


@pytest.fixture
def eks() -> Placement:
    return parse_placement((PROFILES / "eks.yaml").read_text())


def templates(workflow: Manifest) -> dict[str, Manifest]:
    return {template["name"]: template for template in workflow["spec"]["templates"]}


def texts(value: Any) -> Iterator[str]:
    """All strings within a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def submitted(placement: Placement, **given: str) -> Manifest:
    given = {"run": "same", "store": "s3://runs", "lease": OWNER["name"], **given}
    return run_workflow(placement, "same-5e6f7a8b", labels_of("same"), OWNER, **given)


def work_of(placement: Placement, stage: str, shards: int) -> Manifest:
    """The object of a fan-out of so many shards."""
    per_pod, slices = slicing(placement, stage, shards)
    argv = ("eo-batch", "slice", f"same/{stage}-0123456789ab/work/{'0' * 36}/list.json", SLICE, "--store", "s3://runs")
    name = object_name("same", stage, "0123456789")
    return work_manifest(placement, stage, name, argv, slices, per_pod, labels_of("same"))


def test_template_and_workflow_are_the_same_but_for_the_values_of_parameters(placement: Placement) -> None:
    template, workflow = workflow_template(placement)["spec"], submitted(placement, until="chips")["spec"]
    given = {parameter["name"]: parameter.pop("value", None) for parameter in workflow["arguments"]["parameters"]}
    defaults = {parameter["name"]: parameter.pop("value", None) for parameter in template["arguments"]["parameters"]}
    assert workflow == template
    differ = {name for name in given if given[name] != defaults[name]}
    assert differ == {"run", "store", "lease", "until"}
    assert parse_placement(given["profile"]) == placement


@pytest.mark.parametrize("kind", ["WorkflowTemplate", "Workflow", "one fan-out"])
def test_argo_knows_every_field(placement: Placement, kind: str) -> None:
    if kind == "WorkflowTemplate":
        manifest, model = workflow_template(placement), models.WorkflowTemplate
    elif kind == "Workflow":
        manifest, model = submitted(placement), models.Workflow
    else:
        work = work_of(placement, "embed", 10)
        manifest, model = fan_out_workflow(placement, "a", "embed", labels_of("same"), OWNER, work), models.Workflow
    known = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert sorted(_paths(known)) == sorted(_paths(manifest)), "what the models do not know, they drop"


def _paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _paths(part, f"{path}.{key}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _paths(part, f"{path}[{number}]")
    yield path


def test_stages_run_one_after_the_other(placement: Placement) -> None:
    tasks = templates(workflow_template(placement))["run"]["dag"]["tasks"]
    assert [task["name"] for task in tasks] == list(STAGES)
    assert [task.get("depends") for task in tasks] == [None, *STAGES[:-1]]
    assert {task["name"] for task in tasks if "when" in task} == {told for stages in AFTER.values() for told in stages}


def test_whatever_is_named_is_there(placement: Placement) -> None:
    template = workflow_template(placement)
    known = {"workflow.uid", "workflow.name"}
    known |= {f"workflow.parameters.{given['name']}" for given in template["spec"]["arguments"]["parameters"]}
    for stage in AFTER:
        for output in templates(template)[stage]["outputs"]["parameters"]:
            known.add(f"tasks.{stage}.outputs.parameters.{output['name']}")
            if "globalName" in output:
                known.add(f"workflow.outputs.parameters.{output['globalName']}")
    named = {name for text in texts(template) for name in REFERENCE.findall(text)}
    assert named <= known
    assert {name for name in known - named if "slices" in name} == set()


def test_steps_write_the_outputs_that_are_read(placement: Placement) -> None:
    for stage, following in AFTER.items():
        template = templates(workflow_template(placement))[stage]
        outputs = {output["name"] for output in template["outputs"]["parameters"]}
        assert {f"{told}-slices" for told in following} <= outputs
        assert f"--next={','.join(following)}" in template["container"]["args"]
        folder = next(arg for arg in template["container"]["args"] if arg.startswith("--outputs=")).partition("=")[2]
        paths = {output["valueFrom"]["path"] for output in template["outputs"]["parameters"]}
        assert paths == {f"{folder}/{name}" for name in outputs}
        assert any(folder.startswith(mount["mountPath"]) for mount in template["container"]["volumeMounts"])


def test_every_container_is_restricted_and_asks_for_resources(placement: Placement) -> None:
    spec = workflow_template(placement)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, template in templates({"spec": spec}).items():
        if name == "run":
            continue
        patch = json.loads(template["podSpecPatch"])
        containers = {part["name"]: part for part in patch.get("initContainers", []) + patch["containers"]}
        if "container" in template:
            assert set(containers) == {"init", "wait"}
            containers["main"] = template["container"]
        else:
            assert set(containers) == {"main"}
        for container in containers.values():
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
        assert patch["enableServiceLinks"] is False


def test_only_what_learns_asks_for_gpus(eks: Placement) -> None:
    probing = eks.model_copy(update={"stages": eks.stages | {"probe": eks.stages["embed"]}})
    for name, template in templates(workflow_template(probing)).items():
        asks = '"nvidia.com/gpu":' in json.dumps(template)
        assert asks == (name == "probe"), name
        if name in FAN_OUTS:
            assert template["nodeSelector"] == {"eo-batch.io/pool": "cpu-spot"}, "waiting takes no GPU node"
        assert ("affinity" in template) == (name not in ("run", "probe")), "pods of the CPU pool prefer other nodes"


@pytest.mark.parametrize("shards", [39, 10_000])
def test_a_workflow_stays_below_100_kilobytes(eks: Placement, shards: int) -> None:
    """The object at its largest: with every node that a run without disturbance has, and what each keeps."""
    gang = eks.stages["pretrain"].model_copy(update={"nodes": 2})
    eks = eks.model_copy(update={"stages": eks.stages | {"pretrain": gang}})
    spec = submitted(eks, spec_at=f"same/work/{'0' * 36}/run.yaml", identity="0" * 12)
    # A step's pod, what retries it, and the workflow each keep its outputs; a manifest is quoted as a string.
    works = sum(len(json.dumps(json.dumps(work_of(eks, stage, shards)))) for stage in FAN_OUTS)
    nodes = 1 + 2 * len(STAGES)
    assert nodes <= 20
    assert len(json.dumps(spec)) + 3 * works + 1000 * nodes < 100_000


def test_a_run_of_any_size_has_the_same_workflow(eks: Placement) -> None:
    small, large = (json.dumps(work_of(eks, "chips", shards)) for shards in (39, 10_000))
    assert abs(len(large) - len(small)) < 20


def holds(selector: str, status: Manifest, every: bool) -> bool:
    """Whether a status meets a condition, as Argo's executor reads it: a label selector whose keys are paths into the
    object; all of its parts have to hold for success, and one is enough for failure."""
    results = []
    for part in selector.split(", "):
        path, _, wanted = part.partition(" == ")
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", path), "or it is no key of a label"
        found: Any = {"status": status}
        for key in path.split("."):
            if isinstance(found, list):
                found = found[int(key)] if int(key) < len(found) else None
            else:
                found = (found or {}).get(key)
        results.append(found is not None if not wanted else found == wanted)
    return all(results) if every else any(results)


def conditions(*types: str, **more: Any) -> Manifest:
    return {"conditions": [{"type": kind, "status": "True"} for kind in types], **more}


STATUSES = {
    "runs": ("Job", {"active": 3, "ready": 3, "failed": 1}, None),
    "was suspended": ("Job", conditions("Suspended", active=2), None),
    "has failed pods": ("Job", {"failed": 7, "active": 1, "failedIndexes": "2"}, None),
    "is about to complete": ("Job", conditions("SuccessCriteriaMet", terminating=1), None),
    "is complete": ("Job", conditions("SuccessCriteriaMet", "Complete", completionTime="2026-01-01T00:00:00Z"), True),
    "is about to fail": ("Job", conditions("FailureTarget", terminating=1), None),
    "failed": ("Job", conditions("FailureTarget", "Failed"), False),
    "failed after a queue": ("Job", conditions("Suspended", "FailureTarget", "Failed"), False),
    "a gang runs": ("JobSet", {"conditions": [], "restarts": 1}, None),
    "a gang was queued": ("JobSet", conditions("Suspended"), None),
    "a gang is complete": ("JobSet", conditions("Completed", terminalState="Completed"), True),
    "a gang failed": ("JobSet", conditions("Suspended", "Failed", terminalState="Failed"), False),
}


@pytest.mark.parametrize("case", STATUSES)
def test_conditions_tell_how_a_fan_out_ended(eks: Placement, case: str) -> None:
    kind, status, well = STATUSES[case]
    resource = templates(workflow_template(eks))["chips"]["resource"]
    assert holds(resource["failureCondition"], status, every=False) is (well is False)
    assert holds(success_of({"kind": kind}), status, every=True) is (well is True)


def test_one_fan_out_is_a_workflow_too(eks: Placement) -> None:
    work = work_of(eks, "embed", 10)
    workflow = fan_out_workflow(eks, "same-embed-1", "embed", labels_of("same"), OWNER, work)
    (template,) = workflow["spec"]["templates"]
    assert workflow["spec"]["entrypoint"] == template["name"] == "embed"
    assert json.loads(template["resource"]["manifest"]) == work
    assert template["resource"]["successCondition"] == success_of(work)
    assert workflow["metadata"]["ownerReferences"] == [OWNER]
    assert REFERENCE.findall(json.dumps(template)) == []
    whole = templates(workflow_template(eks))["embed"]
    assert {key for key in whole if whole[key] != template[key]} == {"resource"}


def test_an_unknown_parameter_is_our_own_mistake(eks: Placement) -> None:
    with pytest.raises(AssertionError, match="untill"):
        submitted(eks, untill="chips")
