"""The chart, rendered without a cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "eo-batch"
VALUES = {path.stem: path for path in sorted((Path(__file__).parent / "values").glob("*.yaml"))}
"""Sets of values, by name."""
NAMESPACE = "eo-batch"
APIS = {
    "argo": "argoproj.io/v1alpha1/WorkflowTemplate",
    "jobset": "jobset.x-k8s.io/v1alpha2/JobSet",
    "dask": "kubernetes.dask.org/v1/DaskCluster",
    "kueue": "kueue.x-k8s.io/v1beta2/ClusterQueue",
    "karpenter": "karpenter.sh/v1/NodePool",
}
"""What the cluster has to have, by the section of values that needs it."""


def helm(*argv: str) -> subprocess.CompletedProcess[str]:
    """What helm made of it. Skips the test where there is none."""
    if shutil.which("helm") is None:
        pytest.skip("helm is not on the PATH")
    return subprocess.run(["helm", *argv], capture_output=True, text=True, check=False, timeout=120)


def template(values: str, *argv: str, without: str | None = None, name: str = "eo-batch") -> Any:
    """`helm template` of a set of values in a cluster that has everything but the API `without`."""
    apis = [f"--api-versions={api}" for section, api in APIS.items() if section != without]
    return helm("template", name, str(CHART), "-n", NAMESPACE, "-f", str(VALUES[values]), *apis, *argv)


@cache
def rendered(values: str, *argv: str) -> tuple[Manifest, ...]:
    """Objects of the chart with a set of values. Raises AssertionError with what helm complained about."""
    done = template(values, *argv)
    assert done.returncode == 0, done.stderr
    return tuple(found for found in yaml.safe_load_all(done.stdout) if found)


def of_kind(objects: tuple[Manifest, ...], *kinds: str) -> list[Manifest]:
    """Objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def named(objects: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    """The object of a kind and name."""
    (found,) = [found for found in of_kind(objects, kind) if found["metadata"]["name"] == name]
    return found


def profiles(objects: tuple[Manifest, ...]) -> Mapping[str, str]:
    """Texts of the profiles, by runner."""
    data = named(objects, "ConfigMap", "eo-batch-profiles")["data"]
    return {name.removesuffix(".yaml"): text for name, text in data.items()}


def work_pool(objects: tuple[Manifest, ...]) -> Manifest | None:
    """The base job template of the work pool, if there is one."""
    for found in of_kind(objects, "ConfigMap"):
        if "base-job-template.json" in found["data"]:
            loaded: Manifest = yaml.safe_load(found["data"]["base-job-template.json"])
            return loaded
    return None


def pods(objects: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    """Where, and what, all pods are that the chart makes or has made: metadata and spec."""
    for found in objects:
        where = f"{found['kind']} {found['metadata']['name']}"
        match found["kind"]:
            case "Deployment":
                yield where, found["spec"]["template"]
            case "CronJob":
                yield where, found["spec"]["jobTemplate"]["spec"]["template"]
            case "Pod":
                yield where, found
    pool = work_pool(objects)
    if pool is not None:
        yield "work pool", pool["job_configuration"]["job_manifest"]["spec"]["template"]
