"""The work pool: what a real Prefect makes of the chart's template. No cluster is needed for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.helm.render import CHART, named, rendered, work_pool
from tests.servers.prefect import PrefectServer, clients_env, serve
from tests.servers.shared import Home, free_ports

SCRIPT = CHART / "files" / "work_pool.py"


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A fresh Prefect server, without deployments."""
    pytest.importorskip("prefect_kubernetes", reason="Prefect is missing: pip install prefect-kubernetes")
    home = Home(tmp_path_factory.mktemp("prefect"), os.getpid())
    env = clients_env(home.folder, free_ports(1)[0])
    try:
        serve(home, env)
        yield PrefectServer(env["PREFECT_API_URL"], env)
    finally:
        home.stop()


def python(env: Mapping[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], env=os.environ | env, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "base-job-template.json"
    path.write_text(json.dumps(work_pool(rendered("all"))))
    return path


@pytest.mark.slow
def test_the_pool_is_made_and_brought_up_to_date_and_keeps_its_limits(prefect: PrefectServer, template: Path) -> None:
    first = python(prefect.env, str(SCRIPT), "limits", str(template), "4")
    assert (first.returncode, first.stdout) == (0, "work pool limits: made\n"), first.stderr
    assert prefect.get("/work_pools/limits")["concurrency_limit"] == 4
    prefect.ask("PATCH", "/work_pools/limits", {"concurrency_limit": 3, "is_paused": True}).raise_for_status()
    wanted = json.loads(template.read_text())
    wanted["variables"]["properties"]["image"]["default"] = "registry.example.com/eo-batch-cpu:0.2.0"
    template.write_text(json.dumps(wanted))
    second = python(prefect.env, str(SCRIPT), "limits", str(template), "4")
    assert second.stdout == "work pool limits: up to date\n", second.stderr
    found = prefect.get("/work_pools/limits")
    assert found["base_job_template"] == wanted
    assert (found["type"], found["concurrency_limit"], found["is_paused"]) == ("kubernetes", 3, True)


@pytest.mark.slow
def test_a_pool_of_another_type_is_refused(prefect: PrefectServer, template: Path) -> None:
    prefect.ask("POST", "/work_pools/", {"name": "other", "type": "process"}).raise_for_status()
    done = python(prefect.env, str(SCRIPT), "other", str(template), "4")
    assert done.returncode == 1
    assert "work pool other is of type process; choose another prefect.workPool or" in done.stderr


@pytest.mark.slow
def test_a_flow_run_is_a_restricted_job_that_quotes_no_secret(prefect: PrefectServer, template: Path) -> None:
    assert python(prefect.env, str(SCRIPT), "jobs", str(template), "4").returncode == 0
    keys = {"PREFECT_API_KEY": "the-key-itself", "PREFECT_API_AUTH_STRING": "user:the-password-itself"}
    done = python({**prefect.env, **keys}, str(Path(__file__).with_name("flow_run_job.py")), "jobs")
    assert done.returncode == 0, done.stderr
    assert "itself" not in done.stdout
    job = json.loads(done.stdout)
    assert job["metadata"]["generateName"] == "a-flow-run-"
    assert job["metadata"]["namespace"] == "eo-batch"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 300
    assert job["spec"]["template"]["metadata"]["labels"]["eo-batch.io/account"] == "driver"
    spec = job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "eo-batch-driver"
    assert spec["securityContext"]["runAsNonRoot"] is True
    (container,) = spec["containers"]
    assert container["image"] == "registry.example.com/eo-batch-cpu:0.1.0"
    assert container["args"][:2] == ["prefect", "flow-run"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    env = {entry["name"]: entry for entry in container["env"]}
    assert len(env) == len(container["env"]), "a variable is set twice"
    assert env["EXTRA"]["value"] == "yes"
    assert env["EO_BATCH_STORE"]["value"] == "s3://my-bucket/eo-batch"
    assert env["AWS_ENDPOINT_URL_S3"]["value"] == "https://objects.example.com"
    assert env["PREFECT_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "prefect", "key": "api-key"}}
    # Evicted, it is put off, and Prefect starts it again.
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"]["value"] == "reschedule"


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said_to_be(template: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    env = {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    done = python(env, str(SCRIPT), "limits", str(template), "4")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Prefect's API did not do it (")


def test_the_worker_watches_its_namespace_and_hands_on_secrets_by_name() -> None:
    deployment = named(rendered("all"), "Deployment", "eo-batch-prefect-worker")["spec"]["template"]["spec"]
    (worker,) = deployment["containers"]
    env = {entry["name"]: entry.get("value") for entry in worker["env"]}
    assert env["PREFECT_API_URL"] == "https://api.prefect.cloud/api/accounts/a/workspaces/b"
    assert env["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"] == "eo-batch"
    assert env["PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_KEY_SECRET_NAME"] == "prefect"
    assert env["PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_KEY_SECRET_KEY"] == "api-key"
    assert "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME" not in env
    assert "--pool=eo-batch" in worker["args"]
    assert [arg for arg in worker["args"] if "queue" in arg] == ["--work-queue=urgent", "--work-queue=default"]


def test_a_worker_of_processes_has_no_pool_template() -> None:
    objects = rendered("keys")
    assert work_pool(objects) is None
    spec = named(objects, "Deployment", "eo-batch-prefect-worker")["spec"]["template"]["spec"]
    assert "initContainers" not in spec
    assert "--type=process" in spec["containers"][0]["args"]


def test_profiles_and_pool_restart_the_worker_when_they_change() -> None:
    annotations = [
        named(objects, "Deployment", "eo-batch-prefect-worker")["spec"]["template"]["metadata"]["annotations"]
        for objects in (
            rendered("all"),
            rendered("all", "--set", "leaseSeconds=60"),
            rendered("all", "--set", "env.A=b"),
        )
    ]
    same, lease, env = annotations
    assert lease["eo-batch.io/profiles"] != same["eo-batch.io/profiles"]
    assert lease["eo-batch.io/work-pool"] == same["eo-batch.io/work-pool"]
    assert env["eo-batch.io/work-pool"] != same["eo-batch.io/work-pool"]
