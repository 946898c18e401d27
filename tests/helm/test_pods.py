"""Pods that the chart makes, or has made: admitted by Pod Security `restricted`, and told no secret."""

from __future__ import annotations

import re

import pytest

from tests.helm.render import VALUES, Manifest, named, of_kind, pods, rendered

_REGISTRIES = r"(registry\.example\.com|.*\.amazonaws\.com|.*\.pkg\.dev.*|myregistry\.azurecr\.io)"
IMAGES = rf"{_REGISTRIES}/eo-batch-cpu[:@].+|\{{\{{ image \}}\}}"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds of volumes that `restricted` allows."""

everywhere = pytest.mark.parametrize("values", VALUES)


@everywhere
def test_pods_are_restricted(values: str) -> None:
    """The standard, point by point (kubernetes.io/docs/concepts/security/pod-security-standards)."""
    found = dict(pods(rendered(values)))
    assert found
    for where, pod in found.items():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys(), where
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, where
        assert security["runAsUser"] > 0, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= VOLUMES, where
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert not {"privileged", "procMount", "runAsUser", "seccompProfile"} & own.keys(), where
            assert all("hostPort" not in port for port in container.get("ports", [])), where


@everywhere
def test_pods_are_ours(values: str) -> None:
    """Nothing of them is writable but /tmp, they have limits, and run the image that values name, with its init."""
    for where, pod in pods(rendered(values)):
        spec = pod["spec"]
        assert spec["enableServiceLinks"] is False, where
        names = [volume["name"] for volume in spec["volumes"]]
        assert len(set(names)) == len(names), where
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
            assert re.fullmatch(IMAGES, container["image"]), container["image"]
            assert "command" not in container, f"{where}: it would start without the image's init"
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, where
            assert "memory" in container["resources"]["limits"], where
            assert {"name": "HOME", "value": "/tmp"} in container["env"], where
            mounts = container["volumeMounts"]
            assert [mount["mountPath"] for mount in mounts if not mount.get("readOnly")] == ["/tmp"], where
            assert {mount["name"] for mount in mounts} <= set(names), where
            variables = [entry["name"] for entry in container["env"]]
            assert len(set(variables)) == len(variables), where


@everywhere
def test_what_pods_refer_to_is_there(values: str) -> None:
    objects = rendered(values)
    accounts = {found["metadata"]["name"] for found in of_kind(objects, "ServiceAccount")}
    maps = {found["metadata"]["name"] for found in of_kind(objects, "ConfigMap")}
    web = {"eo-batch-web"} if values in ("all", "keys") else set()
    assert accounts == {"eo-batch-runner", "eo-batch-driver", "eo-batch-workflow", "eo-batch-sweeper"} | web
    for where, pod in pods(objects):
        assert pod["spec"]["serviceAccountName"] in accounts, where
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps, where


@everywhere
def test_everything_is_in_the_namespace_or_named_after_it(values: str) -> None:
    """So that two releases in two namespaces do not meet."""
    whole_cluster = ("ClusterQueue", "ResourceFlavor", "NodePool", "PriorityClass")
    for found in rendered(values):
        metadata = found["metadata"]
        if found["kind"] in whole_cluster:
            assert metadata["name"].startswith("eo-batch-"), found["kind"]
        else:
            assert metadata["namespace"] == "eo-batch", f"{found['kind']} {metadata['name']}"


@everywhere
def test_nothing_holds_a_secret(values: str) -> None:
    """No Secret is made, and what an environment variable of a telling name says comes from one by reference."""
    objects = rendered(values)
    assert of_kind(objects, "Secret") == []
    for where, pod in pods(objects):
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            for entry in container["env"]:
                telling = re.search(r"KEY|SECRET|TOKEN|PASSWORD|AUTH", entry["name"])
                if telling and not re.search(r"_SECRET_(NAME|KEY)$", entry["name"]):
                    assert "secretKeyRef" in entry["valueFrom"], f"{where}: {entry['name']}"


def test_plain_keys_come_from_the_existing_secret() -> None:
    objects = rendered("keys")
    referred = {"secretRef": {"name": "store-keys"}}
    reach_the_store = {"Deployment eo-batch-prefect-worker", "Deployment eo-batch-web", "Pod eo-batch-check-store"}
    for where, pod in pods(objects):
        keys = [referred] if where in reach_the_store else []
        assert pod["spec"]["containers"][0].get("envFrom", []) == keys, where


@pytest.mark.parametrize(
    ("values", "annotation", "label"),
    [
        ("eks", "eks.amazonaws.com/role-arn", None),
        ("gke", "iam.gke.io/gcp-service-account", None),
        ("aks", "azure.workload.identity/client-id", "azure.workload.identity/use"),
    ],
)
def test_clouds_know_pods_by_their_service_account(values: str, annotation: str, label: str | None) -> None:
    objects = rendered(values)
    for who in ("runner", "driver", "workflow"):
        assert named(objects, "ServiceAccount", f"eo-batch-{who}")["metadata"]["annotations"][annotation]
    assert "annotations" not in named(objects, "ServiceAccount", "eo-batch-sweeper")["metadata"]
    check = named(objects, "Pod", "eo-batch-check-store")["metadata"]["labels"]
    assert (label is None) or check[label] == "true"
    assert label not in named(objects, "Pod", "eo-batch-check-sweeper")["metadata"]["labels"]


def test_an_account_made_elsewhere_is_used_and_not_made() -> None:
    objects = rendered(
        "default", "--set", "serviceAccounts.runner.create=false", "--set", "serviceAccounts.runner.name=mine"
    )
    names = {found["metadata"]["name"] for found in of_kind(objects, "ServiceAccount")}
    assert names == {"eo-batch-driver", "eo-batch-workflow", "eo-batch-sweeper"}
    assert named(objects, "Pod", "eo-batch-check-store")["spec"]["serviceAccountName"] == "mine"


def test_chart_pods_are_placed_by_control() -> None:
    for where, pod in pods(rendered("all")):
        assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}, where
        assert pod["spec"]["tolerations"] == [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}], where
        assert pod["spec"]["priorityClassName"] == "system", where


@pytest.mark.parametrize("name", ["eo-batch-prefect-worker", "eo-batch-web"])
def test_selectors_find_their_pods_and_no_others(name: str) -> None:
    objects = rendered("all")
    selector = named(objects, "Deployment", name)["spec"]["selector"]
    found = [where for where, pod in pods(objects) if selector["matchLabels"].items() <= _labels(pod).items()]
    assert found == [f"Deployment {name}"]
    budget = named(objects, "PodDisruptionBudget", name)["spec"]
    assert budget["selector"] == selector
    assert budget["maxUnavailable"] == 1


def test_the_service_leads_to_the_web_pods() -> None:
    objects = rendered("all")
    service, pod = (named(objects, kind, "eo-batch-web")["spec"] for kind in ("Service", "Deployment"))
    assert service["selector"] == pod["selector"]["matchLabels"]
    (port,) = pod["template"]["spec"]["containers"][0]["ports"]
    assert [(ours["port"], ours["targetPort"]) for ours in service["ports"]] == [(80, port["name"])]
    assert service.get("type", "ClusterIP") == "ClusterIP", "it has no log-in"


def test_one_replica_does_not_keep_a_node_from_being_drained() -> None:
    assert of_kind(rendered("keys"), "PodDisruptionBudget") == []


def _labels(pod: Manifest) -> dict[str, str]:
    labels: dict[str, str] = pod["metadata"]["labels"]
    return labels
