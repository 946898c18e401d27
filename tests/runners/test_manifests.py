"""What Kubernetes is asked for: pods that may do nothing, and Jobs whose limits never come before a slice's own."""

from __future__ import annotations

from typing import Any

import pytest

from eo_batch.core.errors import SpecError, UsageError
from eo_batch.core.placement import Placement
from eo_batch.entry.work import ATTEMPTS
from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP, SLICE
from eo_batch.runners.manifests import labels_of, object_name, slicing, work_manifest

ARGV = ("eo-batch", "slice", "run/chips-1/work/2/list.json", SLICE, "--store", "s3://bucket")
OWNER = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": "run-1", "uid": "u"}


def placement(**stages: dict[str, Any]) -> Placement:
    return Placement.model_validate(
        {
            "runner": "kubernetes",
            "cluster": {
                "namespace": "batch",
                "image": "cpu:1",
                "gpu_image": "gpu:1",
                "env": {"AWS_REGION": "eu-central-1"},
                "secrets": ["keys"],
                "pod_labels": {"azure.workload.identity/use": "true"},
                "deadline_s": 7200,
                "ttl_s": 600,
            },
            "pools": {
                "cpu-spot": {
                    "cpu": "2",
                    "memory_mb": 4000,
                    "node_selector": {"pool": "spot"},
                    "tolerations": [{"key": "spot", "effect": "NoSchedule"}],
                },
                "gpu-train": {"gpus": 2, "queue": "gpus", "priority_class": "training"},
            },
            "stages": {"default": {"pool": "cpu-spot"}, **stages},
        }
    )


def manifest(stage: str = "chips", slices: int = 100, per_pod: int = 1, **stages: Any) -> dict[str, Any]:
    return work_manifest(
        placement(**stages), stage, "run-chips-1", ARGV, slices, per_pod, labels_of("run"), owner=OWNER
    )


def pod_spec(work: dict[str, Any]) -> dict[str, Any]:
    spec = work["spec"]
    if work["kind"] == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def test_a_slice_number_reaches_the_command() -> None:
    (container,) = pod_spec(manifest())["containers"]
    assert tuple(container["args"]) == ARGV
    assert container["env"][0] == {
        "name": "EO_BATCH_SLICE",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}},
    }
    assert "command" not in container, "the image's entry point passes signals on"


def test_pods_get_what_the_placement_says() -> None:
    work = manifest()
    spec = pod_spec(work)
    (container,) = spec["containers"]
    assert container["image"] == "cpu:1"
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert {"name": "AWS_REGION", "value": "eu-central-1"} in container["env"]
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    assert container["resources"]["requests"]["cpu"] == "2"
    assert "cpu" not in container["resources"]["limits"]
    assert spec["nodeSelector"] == {"pool": "spot"}
    assert spec["tolerations"] == [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["serviceAccountName"] == "eo-batch-runner"
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert work["spec"]["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert work["spec"]["activeDeadlineSeconds"] == 7200
    assert work["spec"]["ttlSecondsAfterFinished"] == 600
    assert work["metadata"]["ownerReferences"] == [OWNER]
    assert work["spec"]["suspend"] is False


def test_pods_have_no_rights() -> None:
    spec = pod_spec(manifest())
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


@pytest.mark.parametrize(("projected_mb", "asked"), [(0, "4000M"), (900, "4000M"), (9000, "9000M")])
def test_memory_is_the_larger_of_pool_and_plan_and_has_room_above_it(projected_mb: int, asked: str) -> None:
    work = work_manifest(placement(), "chips", "n", ARGV, 1, 1, labels_of("run"), projected_mb)
    resources = pod_spec(work)["containers"][0]["resources"]
    assert resources["requests"]["memory"] == asked
    limit_mb, asked_mb = (int(text.removesuffix("M")) for text in (resources["limits"]["memory"], asked))
    assert limit_mb >= 1.2 * asked_mb


def test_a_pool_of_gpus_asks_for_them_and_for_its_queue() -> None:
    work = manifest("embed", embed={"pool": "gpu-train"})
    spec = pod_spec(work)
    (container,) = spec["containers"]
    assert container["image"] == "gpu:1"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert spec["priorityClassName"] == "training"
    assert work["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert work["spec"]["suspend"] is True, "Kueue admits it"
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]


@pytest.mark.parametrize("per_pod", [1, 20])
def test_kubernetes_gives_up_a_slice_after_the_slice_has_given_up_each_shard(per_pod: int) -> None:
    spec = manifest(per_pod=per_pod)["spec"]
    assert spec["backoffLimitPerIndex"] > ATTEMPTS * per_pod
    assert "maxFailedIndexes" not in spec, "failures stop nobody"
    assert "backoffLimit" not in spec


def test_exit_codes_mean_what_the_slice_means() -> None:
    rules = manifest()["spec"]["podFailurePolicy"]["rules"]
    by_code = {
        code: rule["action"] for rule in rules if "onExitCodes" in rule for code in rule["onExitCodes"]["values"]
    }
    assert by_code == {
        POLITE_STOP: "Ignore",
        DO_NOT_RETRY: "FailIndex",
        UsageError.exit_code: "FailJob",
        126: "FailJob",
        127: "FailJob",
    }
    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_a_job_is_as_wide_as_it_may_be_and_as_it_needs() -> None:
    wide = manifest(slices=100, chips={"pool": "cpu-spot", "parallelism": 7})
    assert (wide["spec"]["completions"], wide["spec"]["parallelism"]) == (100, 7)
    narrow = manifest(slices=3, chips={"pool": "cpu-spot", "parallelism": 7})
    assert (narrow["spec"]["completions"], narrow["spec"]["parallelism"]) == (3, 3)


def test_labels_find_everything_of_a_run() -> None:
    work = manifest()
    for labels in (work["metadata"]["labels"], work["spec"]["template"]["metadata"]["labels"]):
        assert labels["app.kubernetes.io/name"] == "eo-batch"
        assert labels["app.kubernetes.io/managed-by"] == "eo-batch"
        assert labels["app.kubernetes.io/component"] == "chips"
        assert labels["eo-batch.io/run"] == "run"
        assert labels["eo-batch.io/stage"] == "chips"
        assert labels["eo-batch.io/work"] == "run-chips-1"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("My_run.v2", "chips", "0ab1"), "my-run-v2-chips-0ab1"),
        (("2024", "chips", "0ab1"), "x2024-chips-0ab1"),
        (("r" * 63, "pretrain", "0ab1"), f"{'r' * 42}-0ab1"),
        (("-_-", "0ab1"), "x0ab1"),
    ],
)
def test_names_are_those_of_kubernetes(parts: tuple[str, ...], name: str) -> None:
    assert object_name(*parts) == name
    assert len(name) + len("-gang-9999-9999") <= 63


def test_a_run_whose_name_no_label_can_hold_is_labelled_with_what_it_can() -> None:
    assert labels_of("a" * 70 + "-")["eo-batch.io/run"] == "a" * 63
    assert labels_of("run-")["eo-batch.io/run"] == "run"


def test_shards_are_dealt_out() -> None:
    assert slicing(placement(), "chips", 10_000) == (1, 10_000)
    assert slicing(placement(chips={"pool": "cpu-spot", "shards_per_pod": 8}), "chips", 37) == (8, 5)


def test_more_pods_than_one_job_holds_are_refused() -> None:
    with pytest.raises(SpecError, match=r"chips\.shards_per_pod=3 or more"):
        slicing(placement(), "chips", 250_000)


def gang(parallelism: int = 50) -> Placement:
    return placement(pretrain={"pool": "gpu-train", "nodes": 4, "parallelism": parallelism})


def test_no_more_gangs_than_may_run_at_once() -> None:
    assert slicing(gang(), "pretrain", 3) == (1, 3)
    assert slicing(gang(parallelism=9), "pretrain", 3) == (2, 2)
    with pytest.raises(SpecError, match="use parallelism=4 or more"):
        slicing(gang(parallelism=3), "pretrain", 3)


def test_a_gang_meets_at_its_first_pod() -> None:
    work = work_manifest(gang(), "pretrain", "run-pretrain-1", ARGV, 3, 1, labels_of("run"), owner=OWNER)
    (group,) = work["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert (work["kind"], group["replicas"], job["completions"], job["parallelism"]) == ("JobSet", 3, 4, 4)
    args = pod_spec(work)["containers"][0]["args"]
    assert args[:3] == ["python3", "-m", "eo_batch.runners.together"]
    assert "--master-addr=run-pretrain-1-gang-$(EO_BATCH_SLICE)-0.run-pretrain-1" in args
    assert {"--nnodes=4", "--nproc-per-node=2", "--node-rank=$(EO_BATCH_RANK)"} <= set(args)
    assert tuple(args[-len(ARGV) :]) == ARGV
    assert work["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert work["spec"]["suspend"] is True


def test_the_pods_of_a_gang_prefer_one_zone() -> None:
    """Each gang its own: what draws a pod are pods of the same gang, not all of the stage's."""

    def terms(placement: Placement) -> list[dict[str, Any]]:
        work = work_manifest(placement, "pretrain", "run-pretrain-1", ARGV, 3, 1, labels_of("run"), owner=OWNER)
        affinity = pod_spec(work).get("affinity", {}).get("podAffinity", {})
        assert affinity.keys() <= {"preferredDuringSchedulingIgnoredDuringExecution"}
        return [term["podAffinityTerm"] for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])]

    (term,) = terms(gang())
    assert term["topologyKey"] == "topology.kubernetes.io/zone"
    assert term["labelSelector"] == {"matchLabels": {"eo-batch.io/work": "run-pretrain-1"}}
    assert term["matchLabelKeys"] == ["jobset.sigs.k8s.io/job-index"]
    (other,) = terms(changed(gang(), "gpu-train", gang_topology="cloud.provider.com/rack"))
    assert other["topologyKey"] == "cloud.provider.com/rack"
    assert terms(changed(gang(), "gpu-train", gang_topology="")) == []
    alone = placement(pretrain={"pool": "gpu-train"})
    assert "affinity" not in pod_spec(work_manifest(alone, "pretrain", "n", ARGV, 3, 1, labels_of("run")))


def test_pods_prefer_nodes_without_what_their_pool_avoids() -> None:
    assert "affinity" not in pod_spec(manifest())
    avoiding = changed(placement(), "cpu-spot", avoid_labels=["nvidia.com/gpu.present", "reserved"])
    affinity = pod_spec(work_manifest(avoiding, "chips", "n", ARGV, 3, 1, labels_of("run")))["affinity"]
    ((key, (term,)),) = affinity["nodeAffinity"].items()
    assert key == "preferredDuringSchedulingIgnoredDuringExecution"
    assert term["preference"]["matchExpressions"] == [
        {"key": "nvidia.com/gpu.present", "operator": "DoesNotExist"},
        {"key": "reserved", "operator": "DoesNotExist"},
    ]


def changed(placement: Placement, pool: str, **fields: Any) -> Placement:
    """The placement with other fields of a pool."""
    told = placement.model_dump(mode="json")
    told["pools"][pool] |= fields
    return Placement.model_validate(told)
