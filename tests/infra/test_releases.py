"""Charts come from one list with exact versions, and are installed so that restricted pods can run."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

pytest.importorskip("hcl2.walk", reason="python-hcl2 8 is not installed")

from tests.infra.conftest import Applied
from tests.infra.hcl import INFRA, MODULES, load, references
from tests.infra.world import World

RELEASES: dict[str, dict[str, str]] = yaml.safe_load((INFRA / "releases.yaml").read_text(encoding="utf-8"))


def test_versions_are_exact() -> None:
    for name, release in RELEASES.items():
        assert release.keys() == {"repository", "chart", "version", "app", "namespace", "ran"}, name
        assert re.fullmatch(r"\d+\.\d+\.\d+", release["version"]), name
        assert release["repository"].startswith(("https://", "oci://")), name
        assert release["ran"] in ("tests", "not yet"), name


def test_no_release_has_a_version_of_its_own() -> None:
    for folder in MODULES:
        for block in load(folder).all("resource"):
            if block.labels[0] != "helm_release" or "repository" not in block.attributes:
                continue
            for name in ("repository", "chart", "version", "namespace"):
                (first, *_) = references(block.attributes[name])
                assert first == ("local", "releases", "[]", name), f"{block.title}.{name}"


def _installed(applied: Applied, cloud: str) -> set[str]:
    world = applied(cloud).child("prerequisites")
    found = {*world.instances("helm_release", "controllers"), "kueue"}
    assert world.instances("helm_release", "kueue")[""].get("name") == "kueue"
    return found | {release.get("name") for release in world.instances("helm_release", "device_plugin").values()}


@pytest.mark.parametrize(("cloud", "device_plugin"), [("aws", True), ("azure", True), ("gcp", False)])
def test_prerequisites_are_installed(applied: Applied, cloud: str, device_plugin: bool) -> None:
    expected = {"argo-workflows", "jobset", "kueue", "dask-kubernetes-operator"}
    assert _installed(applied, cloud) == expected | ({"nvidia-device-plugin"} if device_plugin else set())


def test_every_release_is_used(applied: Applied) -> None:
    aws = {"karpenter", "karpenter-crd"}
    assert set(RELEASES) == aws | _installed(applied, "aws")


def _prerequisites() -> World:
    return World(load(INFRA / "modules" / "prerequisites"), {"namespace": "eo-batch", "device_plugin": True})


def test_pods_of_workflows_are_restricted() -> None:
    """What Pod Security "restricted" asks of every container, for those that Argo puts into pods itself."""
    values: dict[str, Any] = _prerequisites().local("values")["argo-workflows"]
    for container in ("executor", "mainContainer"):
        context = values[container]["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_images_are_released_ones() -> None:
    """Tags of the app that the chart was made for, from the projects' release registry."""
    world = _prerequisites()
    jobset = world.local("values")["jobset"]["image"]
    kueue = world.local("kueue_values")["controllerManager"]["manager"]["image"]
    assert (jobset["repository"], jobset["tag"]) == ("registry.k8s.io/jobset/jobset", RELEASES["jobset"]["app"])
    assert (kueue["repository"], kueue["tag"]) == ("registry.k8s.io/kueue/kueue", RELEASES["kueue"]["app"])


def test_the_namespace_admits_restricted_pods_only() -> None:
    world = _prerequisites()
    namespace = world.rendered(world.module.one("resource", "kubernetes_namespace_v1", "eo_batch"))
    assert namespace["metadata"][0]["name"] == "eo-batch"
    assert namespace["metadata"][0]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_device_plugin_runs_where_gpus_are() -> None:
    values = _prerequisites().local("device_plugin_values")
    terms = values["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [
        {"matchExpressions": [{"key": "eo-batch.io/pool", "operator": "In", "values": ["gpu-train", "gpu-spot"]}]}
    ]
    assert {toleration["key"] for toleration in values["tolerations"]} == {
        "nvidia.com/gpu",
        "eo-batch.io/spot",
        "kubernetes.azure.com/scalesetpriority",
    }


def test_the_chart_names_the_same_versions() -> None:
    """Where helm/eo-batch says with which version of a prerequisite it was tested, it is the one installed here."""
    checks = INFRA.parent / "helm" / "eo-batch" / "templates" / "_checks.tpl"
    if not checks.exists():
        pytest.skip(f"{checks} is not there")
    names = {
        "Argo Workflows": "argo-workflows",
        "JobSet": "jobset",
        "Kueue": "kueue",
        "Karpenter": "karpenter",
        "the Dask operator": "dask-kubernetes-operator",
    }
    tested = dict(re.findall(r'"([\w ]+) \(tested: ([\d.]+)\)"', checks.read_text(encoding="utf-8")))
    assert tested == {name: RELEASES[release]["app"].lstrip("v") for name, release in names.items()}
