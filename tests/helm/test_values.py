"""What values may be: the schema refuses typos, the chart refuses what can't work, and both say what to do."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from tests.helm.render import APIS, CHART, ROOT, VALUES, helm, template

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_no_fault(values: str) -> None:
    apis = [f"--api-versions={api}" for api in APIS.values()]
    done = helm("lint", "--strict", str(CHART), "-f", str(VALUES[values]))
    assert done.returncode == 0, done.stdout + done.stderr
    # Rendered YAML has to be YAML to the last object.
    objects = template(values, *apis)
    assert objects.returncode == 0, objects.stderr
    assert all(found is None or found["kind"] for found in yaml.safe_load_all(objects.stdout))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("nonsense=1", "additional properties 'nonsense' not allowed"),
        ("store.secretKey=abc", "at '/store': additional properties 'secretKey' not allowed"),
        ("store.url=ftp://host/runs", "at '/store/url': 'ftp://host/runs' does not match pattern"),
        ("pools.cpu-spot.memory=2Gi", "at '/pools/cpu-spot': additional properties 'memory' not allowed"),
        ("pools.cpu-spot.memory_mb=2Gi", "at '/pools/cpu-spot/memory_mb': got string, want integer"),
        ("stages.bake.pool=cpu-spot", "at '/stages': additional properties 'bake' not allowed"),
        ("prefect.type=docker", "at '/prefect/type': value must be one of 'kubernetes', 'process'"),
        ("leaseSeconds=5", "at '/leaseSeconds': minimum: got 5, want 30"),
        ("stages.embed.pool=gpu", "stages.embed.pool=gpu is not in pools (known: cpu-spot, gpu-spot, gpu-train)"),
        ("kueue.quotas.gpu.cpu=1", "kueue.quotas.gpu is not in pools (known: cpu-spot, gpu-spot, gpu-train)"),
        ("stages.pretrain.nodes=2", "stages.pretrain.nodes=2: pods that start together are a JobSet; set jobset.ena"),
        (
            "kueue.enabled=true,pools.gpu-spot.queue=cpu-spot",
            "pools.gpu-spot.queue=cpu-spot is the queue of pool cpu-spot",
        ),
        ("stages.embed.nodes=2", "stages.embed.nodes=2: only pretrain works on one shard in several pods"),
        ("serviceAccounts.workflow.podLabels.a=b", "serviceAccounts.workflow.podLabels differs from serviceAccounts.r"),
        ("prefect.enabled=true", "prefect.apiUrl is missing: name the URL of Prefect's API"),
        ("resourceQuota.enabled=true", "resourceQuota.hard is empty: say how much of what"),
        ("image.cpu=", "image.cpu is missing: name the image without torch"),
        ("store.url=", "store.url is missing: name where runs are kept, such as s3://bucket/prefix"),
    ],
)
def test_what_can_not_work_is_refused(wrong: str, says: str) -> None:
    done = template("default", "--set", wrong)
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize("section", APIS)
def test_what_the_cluster_lacks_is_named_with_the_remedy(section: str) -> None:
    done = template("default", "--set", f"{section}.enabled=true", without=section)
    assert done.returncode != 0
    assert f"{section}.enabled needs " in done.stderr
    assert "(tested: " in done.stderr
    assert f"Install it first, or set {section}.enabled=false" in done.stderr
    assert template("default", "--set", f"{section}.enabled=false", without=section).returncode == 0


def test_defaults_are_what_the_schema_wants() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


def test_every_value_has_a_default_and_is_described() -> None:
    """Neither list can be longer than the other, so that no value is a secret to whoever reads either."""
    _compare("", SCHEMA, DEFAULTS)


def _compare(where: str, schema: dict[str, Any], default: Any) -> None:
    for part in schema.get("allOf", [schema] if "$ref" in schema else []):
        schema = schema | SCHEMA["definitions"][part["$ref"].rsplit("/", 1)[-1]]
    properties = schema.get("properties")
    assert where == "" or schema.get("description"), f"{where} is not described"
    if properties is None or "items" in schema:
        return
    assert schema["additionalProperties"] is False, f"{where} takes anything"
    known = set(properties) - ({"global"} if where == "" else set()) - _OPTIONAL.get(where, set())
    assert known == set(default), f"{where}: schema and values.yaml differ"
    for name in known:
        _compare(f"{where}.{name}".lstrip("."), properties[name], default[name])


_OPTIONAL = {"stages": {"plan", "chips", "publish", "probe", "report"}}
"""Stages that run where `default` says."""


def test_versions_agree() -> None:
    """What the chart says it was tested with is what its refusals and its README say, and what infra installs."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    checks = (CHART / "templates" / "_checks.tpl").read_text()
    readme = (CHART / "README.md").read_text()
    releases = yaml.safe_load((ROOT / "infra" / "releases.yaml").read_text())
    releases["dask-operator"] = releases["dask-kubernetes-operator"]
    for part in ("argo-workflows", "jobset", "kueue", "dask-operator", "karpenter"):
        version = chart["annotations"][f"eo-batch.io/tested-{part}"]
        assert f"(tested: {version})" in checks, part
        assert f"| {version} |" in readme, part
        assert releases[part]["app"].removeprefix("v") == version, part
        if part != "karpenter":
            assert f"--version {releases[part]['version']} " in readme, part
    assert f"tested with {chart['annotations']['eo-batch.io/tested-kubernetes']}" in readme
    assert f"| {chart['annotations']['eo-batch.io/tested-prefect']} |" in readme
