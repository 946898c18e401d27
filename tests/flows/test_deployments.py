"""What `prefect.yaml` deploys, and what a deployment takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from copy import deepcopy
from typing import Any

import pytest
import requests
import yaml

from eo_batch.core.specfile import parse_spec
from tests.servers.prefect import CATALOG, KUBERNETES_POOL, PROCESS_POOL, ROOT, STORE, PrefectServer

FLOWS = ("continental-run", "scheduled-update", "pretrain-model", "generate-embeddings")
SPEC = {
    "name": "wanted",
    "catalog": "items.json",
    "area": {"bbox": [12.0, 48.0, 12.1, 48.1]},
    "time": {"start": "2023-06-01", "end": "2023-07-01"},
    "sensors": {"s2": {"kind": "s2-l2a"}, "labels": {"kind": "classes", "assets": {"class": "map"}}},
}


def changed(field: str, value: object) -> dict[str, Any]:
    """Parameters of a run with one of them changed."""
    parameters: dict[str, Any] = {"spec": deepcopy(SPEC), "store": "runs"}
    *sections, last = field.split(".")
    here = parameters
    for name in sections:
        here = here.setdefault(name, {})
    here[last] = value
    return parameters


def test_every_flow_is_deployed_to_both_pools(deployed: PrefectServer) -> None:
    rows = deployed.find("deployments")
    flows = {row["id"]: row["name"] for row in deployed.find("flows")}
    found = {(flows[row["flow_id"]], row["name"]): row for row in rows}
    pools = {"process": PROCESS_POOL, "kubernetes": KUBERNETES_POOL}
    expected = {(flow, name) for flow in FLOWS for name in pools} | {("scheduled-update", "europe")}
    assert set(found) == expected
    for (_, name), row in found.items():
        assert row["work_pool_name"] == pools.get(name, KUBERNETES_POOL)
        assert row["tags"] == ["eo-batch"]
        assert row["enforce_parameter_schema"]
        assert row["concurrency_limit"] is None, "a flow that loses its slot is ended (prefect.yaml)"
        assert (ROOT / row["entrypoint"].partition(":")[0]).is_file()
        if name != "process":
            assert row["parameters"]["profile"] == "/etc/eo-batch/profiles/kubernetes.yaml"
            assert [next(iter(step.values()))["directory"] for step in row["pull_steps"]] == ["/opt/eo-batch"]


def test_europe_is_the_continental_recipe(deployed: PrefectServer) -> None:
    row = deployed.get("/deployments/name/scheduled-update/europe")
    recipe = parse_spec((ROOT / "recipes/continental.yaml").read_text(), [f"catalog={CATALOG}"])
    assert parse_spec(yaml.safe_dump(row["parameters"]["spec"])) == recipe
    assert row["parameters"]["store"] == STORE
    assert {sensor.kind for sensor in recipe.sensors.values()} == {"s2-l2a", "s1", "dem", "classes"}


def test_a_schedule_is_off_until_somebody_switches_it_on(deployed: PrefectServer) -> None:
    row = deployed.get("/deployments/name/scheduled-update/europe")
    mine = {"deployment_id": {"any_": [row["id"]]}}
    (schedule,) = row["schedules"]
    assert not schedule["active"]
    time.sleep(2)
    assert deployed.find("flow_runs", flow_runs=mine) == []
    deployed.ask("PATCH", f"/deployments/{row['id']}/schedules/{schedule['id']}", {"active": True}).raise_for_status()
    deadline_s = time.monotonic() + 60
    while not (runs := deployed.find("flow_runs", flow_runs=mine)):
        assert time.monotonic() < deadline_s, "nothing was scheduled"
        time.sleep(0.5)
    assert all(run["expected_start_time"][8:19] == "06T06:00:00" for run in runs), "the sixth of a month, UTC"
    deployed.ask("PATCH", f"/deployments/{row['id']}/schedules/{schedule['id']}", {"active": False}).raise_for_status()


WRONG = {
    "spec.name": ("Not A Name", "does not match"),
    "spec.area.bbox": ([1.0, 2.0], "too short"),
    "spec.time.start": ("yesterday", "does not match"),
    "spec.grid.chip_px": (2, "2 is less than the minimum of 4"),
    "spec.grid.chip_pixels": (256, "'chip_pixels' was unexpected"),
    "spec.sensors.s2.kind": ("s3", "'s3' is not one of ['s2-l2a',"),
    "spec.catalog": ("https://stac.example/search?token=hidden", "does not match"),
    "spec.sensors.s2.catalog": ("https://me:hidden@stac.example", "does not match"),
    "store": ("s3://key:hidden@bucket/runs", "does not match"),
    "engine": ("dask", "'dask' is not one of ['prefect', 'argo']"),
    "until": ("chip", "'chip' is not one of ['plan',"),
    "cpu_hour_price": (-1, "less than the minimum"),
    "max_cost": (-1, "less than the minimum"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_parameter_is_refused_by_name(deployed: PrefectServer, field: str) -> None:
    value, why = WRONG[field]
    row = deployed.get("/deployments/name/continental-run/process")
    answer = deployed.ask(
        "POST", f"/deployments/{row['id']}/create_flow_run", {"parameters": changed(field, value), "state": None}
    )
    assert answer.status_code == requests.codes.conflict, answer.text
    detail = answer.json()["detail"]
    # Of an unknown key, the section that does not have it is named.
    named = field if "unexpected" not in why else field.rpartition(".")[0]
    assert named in detail
    assert why in detail


def test_the_command_line_says_what_is_wrong(deployed: PrefectServer) -> None:
    given = json.dumps(changed("spec.grid.chip_px", 2))
    said = deployed.command("deployment", "run", "continental-run/process", "--params", "-", given=given)
    assert said.code == 1
    assert "Traceback" not in said.text
    assert (
        "Validation failed for field 'spec.grid.chip_px'. Failure reason: 2 is less than the minimum of 4" in said.text
    )


def test_the_command_line_knows_the_parameters(deployed: PrefectServer) -> None:
    given = json.dumps(changed("profil", "local.yaml"))
    said = deployed.command("deployment", "run", "continental-run/process", "--params", "-", given=given)
    assert said.code == 1
    assert "not found on the deployment: 'profil'" in said.text


def flows_parameters(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m flows …`."""
    return subprocess.run(
        [sys.executable, "-m", "flows", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_parameters_of_a_spec_are_checked_whole_before_they_are_sent() -> None:
    done = flows_parameters("recipes/continental.yaml", "catalog=a.parquet", "-s", "s3://bucket", "-p", "until=chips")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    recipe = parse_spec((ROOT / "recipes/continental.yaml").read_text(), ["catalog=a.parquet"])
    assert parse_spec(yaml.safe_dump(printed.pop("spec"))) == recipe
    assert printed == {"store": "s3://bucket", "until": "chips"}

    done = flows_parameters("recipes/continental.yaml", "grid.chip_px=250")
    assert done.returncode == 2
    assert done.stderr.startswith("error: recipes/continental.yaml: grid.chip_px=250")
    assert "Traceback" not in done.stderr
