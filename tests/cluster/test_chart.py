"""The chart on a cluster: what it installs is admitted by Pod Security `restricted`, has the rights of the table in
`tests/helm/rights.py` and no others, works, and leaves nothing behind.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from eo_batch.core.placement import parse_placement
from eo_batch.core.specfile import parse_spec
from eo_batch.entry.run import Run
from eo_batch.entry.status import status_json, status_of
from eo_batch.io.store import parse_store
from eo_batch.runners.manifests import labels_of, work_manifest
from eo_batch.settings import Settings
from tests.cluster.chart import CHART, SECRET, Installed, helm, installed, values
from tests.cluster.dask_operator import dask_kinds
from tests.cluster.given import S3, Images
from tests.cluster.kube import Manifest, apply, forwarded, get, kubectl, names, namespace, wait_for
from tests.cluster.runs import SPEC
from tests.cluster.s3 import secret
from tests.helm.render import APIS, named, rendered
from tests.helm.rights import Right, rights
from tests.serve.server import answers
from tests.servers.seaweed import SECRET_KEY

pytestmark = pytest.mark.cluster

ACCOUNTS = ("runner", "driver", "workflow", "sweeper", "web")
OPTIONAL = ("jobset", "dask", "kueue")
"""Sections that the chart is installed with where the cluster has what they need."""
CLUSTER_WIDE = {"ClusterQueue": "kueue", "ResourceFlavor": "kueue", "LocalQueue": "kueue", "NodePool": "karpenter"}
"""Kinds that need something that a cluster may not have, and what."""


def served(section: str) -> bool:
    """Whether the cluster has what a section of values needs."""
    version = APIS[section].rpartition("/")[0]
    return version in kubectl("api-versions").split()


@pytest.fixture(scope="module")
def sections(images: Images) -> list[str]:
    """Sections that this cluster can have enabled. Dask's kinds come with the package, whoever has installed them."""
    dask_kinds()
    wait_for(lambda: served("dask"), "the cluster has the kinds of the Dask operator")
    return ["argo", *(section for section in OPTIONAL if served(section))]


@pytest.fixture(scope="module")
def release(
    images: Images, s3: S3, sections: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    more = {section: {"enabled": True} for section in (*sections, "priorityClasses", "web")}
    with installed("eo-batch-test-chart", images, s3, tmp_path_factory.mktemp("chart"), more) as found:
        yield found


def may(space: str, account: str) -> set[Right]:
    """All that an account may do in the namespace, by `kubectl auth can-i --list`; other paths of the API as a group
    `URL`."""
    said = kubectl("auth", "can-i", "--list", "-n", space, f"--as=system:serviceaccount:{space}:{account}")
    found: set[Right] = set()
    for line in said.splitlines()[1:]:
        row = re.fullmatch(r"(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]", line)
        assert row is not None, line
        resource, urls, names, verbs = row.groups()
        plural, _, group = resource.partition(".")
        plural, _, part = plural.partition("/")
        group, _, after = group.partition("/")
        part = part or after
        what = f"{plural}/{part}" if part else plural
        for verb in verbs.split():
            if urls:
                found |= {("URL", url, verb) for url in urls.split()}
            else:
                found |= {(group, f"{what}/{name}" if name else what, verb) for name in names.split() or [""]}
    return found


@pytest.mark.parametrize("account", ACCOUNTS)
def test_accounts_may_do_what_they_have_to_and_nothing_else(
    release: Installed, sections: list[str], account: str
) -> None:
    assert "dask" in sections
    everybody = may(release.namespace, "default")
    assert ("authorization.k8s.io", "selfsubjectaccessreviews", "create") in everybody
    assert may(release.namespace, f"eo-batch-{account}") - everybody == rights(account, sections)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_nobody_may_do_anything_elsewhere(release: Installed, account: str) -> None:
    name = f"system:serviceaccount:{release.namespace}:eo-batch-{account}"
    for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "jobs"), ("list", "nodes")):
        argv = ["kubectl", "auth", "can-i", verb, what, f"--as={name}", "-n", "default"]
        assert subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() == "no", (verb, what)
    argv = ["kubectl", "auth", "can-i", "get", "secrets", f"--as={name}", "-n", release.namespace]
    assert subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() == "no"


@pytest.mark.slow
def test_helm_test_tells_whether_pods_reach_the_store(release: Installed) -> None:
    said = helm("test", "eo-batch", "-n", release.namespace, "--logs", "--timeout", "2m")
    assert "store: s3://runs can be written, read, listed, and deleted from" in said
    assert "profiles: " in said
    assert get(release.namespace, "pods", "-l", "app.kubernetes.io/component=check") == []
    wrong: dict[str, Any] = {**secret(SECRET), "stringData": {"AWS_SECRET_ACCESS_KEY": "of-somebody-else"}}
    apply(release.namespace, wrong)
    try:
        with pytest.raises(AssertionError, match="helm test"):
            helm("test", "eo-batch", "-n", release.namespace, "--timeout", "2m")
        said = kubectl("logs", "-n", release.namespace, "pod/eo-batch-check-store")
        assert said.splitlines()[-1].startswith("error: s3://runs: could not write helm-test/"), said
        assert "of-somebody-else" not in said
    finally:
        apply(release.namespace, secret(SECRET))
        kubectl("delete", "pod", "-n", release.namespace, "-l", "app.kubernetes.io/component=check")


def test_the_web_service_shows_the_runs_of_the_store(release: Installed, s3_here: S3) -> None:
    run = Run(
        parse_spec(SPEC, ["catalog=/items.json", "area.bbox=[11, 48, 11.01, 48.01]"]),
        parse_store("s3://runs"),
        Settings.from_env(),
    )
    run.submit()
    with forwarded(release.namespace, "service/eo-batch-web", 80) as address:
        wait_for(lambda: answers(f"http://{address}"), "the web service answers")
        page = requests.get(f"http://{address}/", timeout=60).text
        assert "plan 0 of 1" in page
        told = requests.get(f"http://{address}/runs/same/status.json", timeout=60).json()
    assert told == status_json("same", status_of(run))
    said = kubectl("logs", "-n", release.namespace, "deployment/eo-batch-web")
    assert SECRET_KEY not in page + said


@pytest.mark.slow
def test_the_sweeper_deletes_what_an_expired_lease_owns_and_no_more(release: Installed) -> None:
    space = release.namespace
    leases = {name: _lease(space, name, seconds) for name, seconds in (("dead", 1), ("alive", 3600))}
    apply(space, *(_owned(f"owned-{name}", name, uid) for name, uid in leases.items()))
    time.sleep(2)
    kubectl("create", "job", "-n", space, "sweep-now", "--from=cronjob/eo-batch-sweeper")
    kubectl("wait", "-n", space, "job/sweep-now", "--for=condition=complete", "--timeout=90s")
    said = kubectl("logs", "-n", space, "job/sweep-now")
    assert re.fullmatch(r"deleted lease dead of run swept, expired at .*, held by nobody\n", said), said
    wait_for(lambda: names(space, "leases") == ["alive"], "the lease is gone")
    wait_for(lambda: "owned-dead" not in names(space, "jobs"), "what it owned is gone")
    assert "owned-alive" in names(space, "jobs")
    kubectl("delete", "lease", "alive", "-n", space)
    kubectl("delete", "job", "sweep-now", "-n", space)


@pytest.mark.slow
def test_queues_admit_what_fits_their_quota_and_hold_back_what_does_not(
    release: Installed, sections: list[str]
) -> None:
    if "kueue" not in sections:
        pytest.skip("the cluster has no Kueue")
    space = release.namespace
    placement = parse_placement(release.profile("kubernetes").read_text())
    fits, large = (
        work_manifest(placement, "chips", f"queued-{name}", ["true"], 1, 1, labels_of("queued"))
        for name in ("fits", "large")
    )
    large["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1001"
    apply(space, fits, large)
    kubectl("wait", "-n", space, "job/queued-fits", "--for=condition=complete", "--timeout=90s")
    (why,) = [
        condition["message"]
        for workload in get(space, "workloads.kueue.x-k8s.io")
        for condition in workload.get("status", {}).get("conditions", [])
        if workload["metadata"]["ownerReferences"][0]["name"] == "queued-large" and condition["type"] == "QuotaReserved"
    ]
    assert "insufficient quota for cpu in flavor" in why, why
    assert [job["spec"]["suspend"] for job in get(space, "jobs", "--field-selector=metadata.name=queued-large")] == [
        True
    ]
    kubectl("delete", "job", "-n", space, "queued-fits", "queued-large")


@pytest.mark.parametrize("kind", [*CLUSTER_WIDE, "PriorityClass", "ResourceQuota", "PodDisruptionBudget"])
def test_what_is_optional_is_what_the_cluster_takes(images: Images, kind: str) -> None:
    """The API server checks it against its schemas, and creates nothing."""
    if kind in CLUSTER_WIDE and not served(CLUSTER_WIDE[kind]):
        pytest.skip(f"the cluster has no {kind}: install {CLUSTER_WIDE[kind]}")
    objects = [found for found in rendered("all") if found["kind"] == kind]
    assert objects
    for found in objects:
        found["metadata"].pop("namespace", None)
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", manifests=objects)


@pytest.mark.slow
def test_an_upgrade_changes_what_it_says_and_an_uninstall_leaves_nothing(
    images: Images, s3: S3, tmp_path: Path
) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values(images, s3)))
    with namespace("eo-batch-test-chart-life") as space:
        apply(space, secret(SECRET))
        before = _everything(space)
        helm("install", "eo-batch", str(CHART), "-n", space, "-f", str(path), "--wait", "--timeout", "2m")
        argv = ["eo-batch", str(CHART), "-n", space, "-f", str(path), "--wait", "--timeout", "2m"]
        helm("upgrade", *argv, "--set", "leaseSeconds=77", "--set", "sweeper.schedule=7 * * * *")
        profile = Installed(space, tmp_path).profile("kubernetes").read_text()
        assert yaml.safe_load(profile)["cluster"]["lease_s"] == 77
        assert get(space, "cronjobs")[0]["spec"]["schedule"] == "7 * * * *"
        assert "eo-batch-runner" in names(space, "serviceaccounts")
        helm("uninstall", "eo-batch", "-n", space, "--wait", "--timeout", "2m")
        wait_for(lambda: _everything(space) == before, "all is gone", 60)


def _lease(space: str, name: str, seconds: int) -> str:
    """Make a Lease of a run that nobody renews; its uid."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    metadata = {"name": name, "labels": {"eo-batch.io/run": "swept"}}
    spec = {"leaseDurationSeconds": seconds, "acquireTime": now, "renewTime": now}
    manifest = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    made = kubectl("create", "-n", space, "-f", "-", "-o", "json", manifests=[manifest])
    uid: str = json.loads(made)["metadata"]["uid"]
    return uid


def _owned(name: str, owner: str, uid: str) -> Manifest:
    """A Job that a Lease owns. It is the chart's own idea of a sweeper's pod, never started."""
    job = named(rendered("default"), "CronJob", "eo-batch-sweeper")["spec"]["jobTemplate"]["spec"]
    owns = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": owner, "uid": uid}
    metadata = {"name": name, "ownerReferences": [owns]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**job, "suspend": True}}


def _everything(space: str) -> set[str]:
    """All objects of a namespace but events."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    wanted = [kind for kind in kinds if not kind.startswith("events")]
    return set(kubectl("get", ",".join(wanted), "-n", space, "-o", "name", "--ignore-not-found").split())
