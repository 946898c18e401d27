"""`tofu output -raw helm_values` is what helm/eo-batch wants, and fits the pools and identities made beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.conftest import Applied

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "eo-batch"
POOLS = ("cpu-spot", "gpu-spot", "gpu-train")
clouds = pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])


def _values(applied: Applied, cloud: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(applied(cloud).output("helm_values"))
    return found


_KINDS = (
    "argoproj.io/v1alpha1/WorkflowTemplate",
    "jobset.x-k8s.io/v1alpha2/JobSet",
    "karpenter.sh/v1/NodePool",
    "kubernetes.dask.org/v1/DaskCluster",
    "kueue.x-k8s.io/v1beta2/ClusterQueue",
)
"""What a cluster knows after the prerequisites; the chart asks."""


def _template(chart: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """What `helm template` makes of a chart; it refuses values that values.schema.json does."""
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not installed")
    if not (chart / "Chart.yaml").exists():
        pytest.skip(f"{chart} is not there")
    kinds = [f"--api-versions={kind}" for kind in _KINDS]
    done = subprocess.run(
        [helm, "template", "eo-batch", str(chart), "--namespace=eo-batch", "--values=-", *kinds],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@clouds
def test_the_keys_are_there(applied: Applied, cloud: str) -> None:
    values = _values(applied, cloud)
    assert values["image"].keys() == {"cpu", "gpu"}
    assert values["store"]["url"].startswith({"aws": "s3://", "azure": "az://", "gcp": "gs://"}[cloud])
    assert values["store"].get("region") == ("us-west-2" if cloud == "aws" else None)
    assert ("azureAccount" in values["store"]) == (cloud == "azure")
    assert tuple(sorted(values["pools"])) == POOLS
    assert values["karpenter"]["enabled"] == (cloud == "aws")
    assert values["kueue"] == {"enabled": True}
    for account in values["serviceAccounts"].values():
        assert account.keys() == {"annotations", "podLabels"}


@clouds
def test_no_value_is_null(applied: Applied, cloud: str) -> None:
    """Helm deletes a chart's default where a value is null."""

    def nulls(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            return [found for key, child in value.items() for found in nulls(child, f"{path}.{key}")]
        if isinstance(value, list):
            return [found for child in value for found in nulls(child, f"{path}[]")]
        return [path] if value is None else []

    assert nulls(_values(applied, cloud), "") == []


@clouds
def test_the_chart_takes_them(applied: Applied, cloud: str) -> None:
    """The real chart renders with them, and its service accounts are those that have identities."""
    values = _values(applied, cloud)
    documents = _template(CHART, values | {"web": {"enabled": True}})
    accounts = {d["metadata"]["name"]: d["metadata"] for d in documents if d["kind"] == "ServiceAccount"}
    for name, account in values["serviceAccounts"].items():
        made = accounts[f"eo-batch-{name}"]
        assert {key: made.get("annotations", {}).get(key) for key in account["annotations"]} == account["annotations"]
    images = {values["image"]["cpu"], values["image"]["gpu"]}
    assert images & set(_images(documents)), "no pod runs an image of the registry"


def _images(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["image"]] if isinstance(value.get("image"), str) else []
        return own + [found for child in value.values() for found in _images(child)]
    return [found for child in value for found in _images(child)] if isinstance(value, list) else []


def test_node_pools_of_the_chart_use_the_node_class(applied: Applied) -> None:
    aws = applied("aws")
    pools = [d for d in _template(CHART, _values(applied, "aws")) if d["kind"] == "NodePool"]
    assert len(pools) == len(POOLS)
    (release,) = aws.child("karpenter").instances("helm_release", "node_class").values()
    assert release.get("chart") == str(ROOT / "infra/modules/karpenter/chart")
    (node_class,) = _template(Path(release.get("chart")), yaml.safe_load(release.get("values")[0]))
    for pool in pools:
        reference = pool["spec"]["template"]["spec"]["nodeClassRef"]
        assert (f"{reference['group']}/v1", reference["kind"]) == (node_class["apiVersion"], node_class["kind"])
        assert reference["name"] == node_class["metadata"]["name"]
    spec = node_class["spec"]
    assert spec["metadataOptions"] == {"httpTokens": "required", "httpPutResponseHopLimit": 1}
    assert spec["instanceProfile"] == "eo-batch-node-karpenter"
    assert len(spec["subnetSelectorTerms"]) == 3
    assert spec["blockDeviceMappings"][0]["ebs"]["encrypted"] is True


@pytest.mark.parametrize("missing", ["amiAlias", "instanceProfile", "subnetIds", "securityGroupIds", "diskGiB"])
def test_the_node_class_wants_all_its_values(applied: Applied, missing: str) -> None:
    (release,) = applied("aws").child("karpenter").instances("helm_release", "node_class").values()
    values = {**yaml.safe_load(release.get("values")[0]), missing: None}
    with pytest.raises(AssertionError, match=missing):
        _template(Path(release.get("chart")), values)


def _tolerated(taint: tuple[str, str, str], tolerations: list[dict[str, str]]) -> bool:
    """Kubernetes' own rule."""
    key, value, effect = taint
    return any(
        t.get("key") in (key, None)
        and t.get("effect") in (effect, None)
        and (t.get("operator") == "Exists" or t.get("value") == value)
        for t in tolerations
    )


def _pools_of_gcp(applied: Applied) -> dict[str, tuple[dict[str, str], list[tuple[str, str, str]]]]:
    """Pool → labels and taints of its nodes, with the taint that GKE puts on GPU nodes itself."""
    gcp, found = applied("gcp"), {}
    for name, pool in gcp.instances("google_container_node_pool", "work").items():
        (config,) = gcp.rendered(pool.block, pool.each)["node_config"]
        taints = [(t["key"], t["value"], "NoSchedule") for t in config.get("taint", [])]
        taints += [("nvidia.com/gpu", "present", "NoSchedule")] if "guest_accelerator" in config else []
        found[name] = (config["labels"], taints)
    return found


def _pools_of_azure(applied: Applied) -> dict[str, tuple[dict[str, str], list[tuple[str, str, str]]]]:
    found = {}
    for name, pool in applied("azure").instances("azurerm_kubernetes_cluster_node_pool", "work").items():
        taints = [taint.replace("=", ":").split(":") for taint in pool.get("node_taints")]
        found[name] = (pool.get("node_labels"), [(key, value, effect) for key, value, effect in taints])
    return found


@pytest.mark.parametrize("cloud", ["azure", "gcp"])
def test_pods_of_a_pool_fit_its_nodes_and_no_others(applied: Applied, cloud: str) -> None:
    pools = (_pools_of_gcp if cloud == "gcp" else _pools_of_azure)(applied)
    values = _values(applied, cloud)["pools"]
    assert sorted(pools) == sorted(values)
    for pool, (labels, taints) in pools.items():
        assert values[pool]["nodeSelector"].items() <= labels.items()
        assert [taint for taint in taints if not _tolerated(taint, values[pool]["tolerations"])] == []
        # CPU pods stay off GPU nodes, and pods that want to stay off spot nodes.
        keys = {key for key, _, _ in taints}
        assert ("nvidia.com/gpu" in keys) == pool.startswith("gpu")
        assert ("eo-batch.io/spot" in keys) == pool.endswith("spot")


def test_nodes_of_karpenter_fit_the_pods(applied: Applied) -> None:
    values = _values(applied, "aws")
    for document in _template(CHART, values):
        if document["kind"] != "NodePool":
            continue
        template = document["spec"]["template"]
        pool = template["metadata"]["labels"]["eo-batch.io/pool"]
        taints = [(t["key"], t["value"], t["effect"]) for t in template["spec"]["taints"]]
        assert [taint for taint in taints if not _tolerated(taint, values["pools"][pool]["tolerations"])] == []


def test_pools_scale_to_zero(applied: Applied) -> None:
    gcp, azure = applied("gcp"), applied("azure")
    for pool in gcp.instances("google_container_node_pool", "work").values():
        (scaling,) = gcp.rendered(pool.block, pool.each)["autoscaling"]
        assert scaling["total_min_node_count"] == 0 < scaling["total_max_node_count"]
    for pool in azure.instances("azurerm_kubernetes_cluster_node_pool", "work").values():
        assert pool.get("auto_scaling_enabled") is True
        assert pool.get("min_count") == 0 < pool.get("max_count")


def test_spot_pools_are_spot(applied: Applied) -> None:
    gcp, azure = applied("gcp"), applied("azure")
    for name in POOLS:
        spot = name.endswith("spot")
        pool = gcp.instances("google_container_node_pool", "work")[name]
        assert gcp.rendered(pool.block, pool.each)["node_config"][0]["spot"] is spot
        pool = azure.instances("azurerm_kubernetes_cluster_node_pool", "work")[name]
        assert pool.get("priority") == ("Spot" if spot else "Regular")
        assert pool.get("eviction_policy") == ("Delete" if spot else None)
        # AKS takes 12 small letters and digits.
        assert pool.get("name").isalnum()
        assert len(pool.get("name")) <= 12


@pytest.mark.parametrize(("cloud", "profile"), [("aws", "eks"), ("azure", "aks"), ("gcp", "gke")])
def test_profiles_place_pods_in_the_same_pools(applied: Applied, cloud: str, profile: str) -> None:
    """`profiles/<cluster>.yaml`, which people use without the chart's own, knows the same labels and taints."""
    path = ROOT / "profiles" / f"{profile}.yaml"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    pools = yaml.safe_load(path.read_text(encoding="utf-8"))["pools"]
    values = _values(applied, cloud)["pools"]
    assert {name: pool["node_selector"] for name, pool in pools.items()} == {
        name: pool["nodeSelector"] for name, pool in values.items()
    }
    for name, pool in pools.items():
        assert sorted(pool["tolerations"], key=str) == sorted(
            ({key: t[key] for key in ("key", "operator", "value", "effect")} for t in values[name]["tolerations"]),
            key=str,
        )
