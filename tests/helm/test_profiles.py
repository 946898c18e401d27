"""Profiles: those of the chart are what eo-batch reads, those of the repository are what the chart would make."""

from __future__ import annotations

from pathlib import Path

import pytest

from eo_batch.core.layout import STAGES
from eo_batch.core.placement import Placement, Pool, Toleration, parse_placement
from eo_batch.runners.argo_server import Server
from eo_batch.runners.kube import Kube
from eo_batch.runners.manifests import work_manifest
from tests.helm.render import ROOT, VALUES, Manifest, named, of_kind, profiles, rendered

FILES = sorted((ROOT / "profiles").glob("*.yaml"))


def placements(objects: tuple[Manifest, ...]) -> dict[str, Placement]:
    return {runner: parse_placement(text, runner) for runner, text in profiles(objects).items()}


def pod_specs(placement: Placement) -> dict[str, Manifest]:
    """What the pods of every stage ask for, by stage."""
    specs = {}
    for stage in STAGES:
        work = work_manifest(placement, stage, f"{stage}-1", ["true"], 1, 1, {"eo-batch.io/run": "r"})
        if work["kind"] == "JobSet":
            work = work["spec"]["replicatedJobs"][0]["template"]
        specs[stage] = work["spec"]["template"]["spec"]
    return specs


def without_queues(placement: Placement) -> dict[str, Pool]:
    return {name: pool.model_copy(update={"queue": None}) for name, pool in placement.pools.items()}


def tolerates(tolerations: tuple[Toleration, ...], taint: Manifest) -> bool:
    return any(
        toleration.key == taint["key"]
        and (toleration.operator == "Exists" or toleration.value == taint.get("value"))
        and toleration.effect in (None, taint["effect"])
        for toleration in tolerations
    )


@pytest.mark.parametrize("values", VALUES)
def test_the_chart_makes_profiles_that_place_every_stage(values: str) -> None:
    found = placements(rendered(values))
    for runner, placement in found.items():
        assert placement.runner == runner
        assert placement.cluster is not None
        assert placement.cluster.namespace == "eo-batch"
        assert placement.store == parse_placement(profiles(rendered(values))["kubernetes"]).store
        for stage in STAGES:
            placement.at(stage)
    # They place the same: what differs is who runs shards, and that no queue admits those of Dask.
    placed = {
        runner: (without_queues(placement), placement.stages, placement.cluster) for runner, placement in found.items()
    }
    assert all(one == placed["kubernetes"] for one in placed.values())
    queues = {runner: {pool.queue for pool in placement.pools.values()} for runner, placement in found.items()}
    assert queues.pop("dask", {None}) == {None}
    assert all(one == queues["kubernetes"] for one in queues.values())


def test_sections_bring_their_profiles() -> None:
    assert set(profiles(rendered("minimal"))) == {"kubernetes"}
    assert set(profiles(rendered("default"))) == {"kubernetes", "argo"}
    assert set(profiles(rendered("all"))) == {"kubernetes", "argo", "dask"}


def test_links_lead_to_where_people_see_argo() -> None:
    inside = placements(rendered("default"))["argo"]
    assert Server(Kube("here", None), inside.argo).url("w") == "http://argo-server.argo:2746/workflows/here/w"
    shown = placements(rendered("default", "--set", "argo.uiUrl=https://argo.example.com/"))["argo"]
    assert shown.argo.url == inside.argo.url
    assert Server(Kube("here", None), shown.argo).url("w") == "https://argo.example.com/workflows/here/w"


def test_values_arrive_in_the_profile() -> None:
    keys = placements(rendered("keys"))["argo"]
    assert keys.cluster is not None
    assert keys.cluster.secrets == ("store-keys",)
    assert keys.cluster.env == {
        "AWS_ENDPOINT_URL_S3": "http://s3.storage.svc:8333",
        "AWS_REGION": "us-east-1",
        "EO_BATCH_ASSETS_ANONYMOUS": "0",
    }
    named = placements(rendered("default", "--set", "serviceAccounts.workflow.name=w,serviceAccounts.driver.name=d"))[
        "argo"
    ]
    assert (named.argo.service_account, named.argo.client_account) == ("w", "d")
    azure = placements(rendered("aks"))["kubernetes"]
    assert azure.cluster is not None
    assert azure.cluster.pod_labels == {"azure.workload.identity/use": "true"}
    assert azure.cluster.env == {"AZURE_STORAGE_ACCOUNT_NAME": "myaccount"}
    changed = placements(rendered("all", "--set", "leaseSeconds=60", "--set", "deadlineSeconds=1000000"))["dask"]
    assert changed.cluster is not None
    assert (changed.cluster.lease_s, changed.cluster.deadline_s) == (60, 1_000_000)
    assert changed.at("pretrain").nodes == 2
    assert changed.pools["large"].cpu == "1500m"
    avoided = {name: (pool.avoid_labels, pool.gang_topology) for name, pool in changed.pools.items()}
    assert avoided == {
        "cpu-spot": (("nvidia.com/gpu.present",), "topology.kubernetes.io/zone"),
        "gpu-train": ((), "topology.kubernetes.io/zone"),
        "gpu-spot": ((), "topology.kubernetes.io/zone"),
        "large": (("nvidia.com/gpu.present", "cloud.google.com/gke-accelerator"), ""),
    }


def test_what_the_chart_makes_for_a_pool_is_used_unless_the_pool_names_another() -> None:
    pools = placements(rendered("all"))["kubernetes"].pools
    assert {name: (pool.queue, pool.priority_class) for name, pool in pools.items()} == {
        "cpu-spot": ("batch", "whenever"),
        "gpu-train": ("gpu-train", "eo-batch-gpu-train"),
        "gpu-spot": ("gpu-spot", "eo-batch-gpu-spot"),
        "large": (None, None),
    }
    assert pools["gpu-train"].node_selector == {"eo-batch.io/pool": "gpu-train"}
    assert pools["large"].node_selector == {"node.kubernetes.io/instance-type": "r7i.4xlarge"}
    assert all(pool.queue is None for pool in placements(rendered("default"))["kubernetes"].pools.values())


@pytest.mark.parametrize("values", ["eks", "all"])
def test_karpenter_brings_nodes_that_take_the_pods(values: str) -> None:
    objects = rendered(values)
    placement = placements(objects)["kubernetes"]
    for pool in ("cpu-spot", "gpu-train", "gpu-spot"):
        spec = named(objects, "NodePool", f"eo-batch-{pool}")["spec"]
        template = spec["template"]
        selector = placement.pools[pool].node_selector
        assert selector.items() <= template["metadata"]["labels"].items()
        assert all(tolerates(placement.pools[pool].tolerations, taint) for taint in template["spec"]["taints"])
        assert spec["disruption"]["consolidationPolicy"] == "WhenEmpty"
        # Pods that ask for no GPU never start a GPU node.
        guarded = any(taint["key"] == "nvidia.com/gpu" for taint in template["spec"]["taints"])
        assert guarded == (placement.pools[pool].gpus > 0)
        assert tolerates(placement.pools["cpu-spot"].tolerations, template["spec"]["taints"][0]) != guarded


@pytest.mark.parametrize("values", ["eks", "all"])
def test_kueue_can_admit_what_the_pods_ask_for(values: str) -> None:
    """A pod that asks for something that a queue does not cover waits for ever."""
    objects = rendered(values)
    placement = placements(objects)["kubernetes"]
    queues = {found["metadata"]["name"]: found for found in of_kind(objects, "LocalQueue")}
    asked = set()
    for stage, spec in pod_specs(placement).items():
        pool = placement.at(stage).pool
        queue = placement.pools[pool].queue
        if queue is None:
            continue
        asked.add(queue)
        target = queues[queue]["spec"]["clusterQueue"]
        (group,) = named(objects, "ClusterQueue", target)["spec"]["resourceGroups"]
        (flavor,) = group["flavors"]
        resources = spec["containers"][0]["resources"]
        assert set(group["coveredResources"]) >= resources["requests"].keys() | resources["limits"].keys(), stage
        assert [entry["name"] for entry in flavor["resources"]] == group["coveredResources"]
        labels = named(objects, "ResourceFlavor", flavor["name"])["spec"].get("nodeLabels", {})
        assert labels == spec.get("nodeSelector", {})
        selector = named(objects, "ClusterQueue", target)["spec"]["namespaceSelector"]
        assert selector == {"matchLabels": {"kubernetes.io/metadata.name": "eo-batch"}}
    assert asked == set(queues)


def test_priorities_are_those_of_the_pools() -> None:
    values = {found["metadata"]["name"]: found["value"] for found in of_kind(rendered("all"), "PriorityClass")}
    assert values == {"eo-batch-cpu-spot": -100, "eo-batch-gpu-spot": -100, "eo-batch-gpu-train": -10}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_profiles_of_the_repository_place_every_stage(path: Path) -> None:
    placement = parse_placement(path.read_text(), path.name)
    if placement.cluster is not None:
        for spec in pod_specs(placement).values():
            assert spec["serviceAccountName"] == "eo-batch-runner"


def test_there_is_a_profile_for_each_kind_of_place() -> None:
    assert {path.stem for path in FILES} == {"local", "dask-local", "kind", "kubernetes", "eks", "gke", "aks"}


@pytest.mark.parametrize(
    ("profile", "values"), [("kubernetes", "default"), ("eks", "eks"), ("gke", "gke"), ("aks", "aks")]
)
def test_profiles_of_the_repository_are_what_the_chart_makes(profile: str, values: str) -> None:
    """So a run from a laptop, and one from within the cluster, place pods alike."""
    here = parse_placement((ROOT / "profiles" / f"{profile}.yaml").read_text())
    chart = placements(rendered(values))["kubernetes"]
    assert here.pools == chart.pools
    assert here.stages == chart.stages
    assert here.cluster is not None
    assert chart.cluster is not None
    assert here.cluster.pod_labels == chart.cluster.pod_labels
    assert here.cluster.env == chart.cluster.env
    assert here.runner == chart.runner
