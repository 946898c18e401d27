"""`engine: argo`: one task submits a workflow and follows it by receipts; what is cancelled leaves the cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core.layout import STAGES
from eo_batch.core.specfile import parse_spec
from eo_batch.io.store import parse_store
from tests.cluster.chart import Installed, installed
from tests.cluster.conftest import S3, Images, images, s3, s3_here  # noqa: F401  # fixtures
from tests.cluster.kube import forwarded, get
from tests.cluster.runs import ASSETS_SIGNED, Reference, make_reference, objects
from tests.flows.test_ends import begun, wait_for
from tests.servers.prefect import PrefectServer

pytestmark = pytest.mark.cluster

SPACE = "eo-batch-test-flows"
GONE_S = 120.0
"""How long a cancelled flow run may leave things in a cluster (`flows/README.md`)."""


@pytest.fixture(scope="module")
def release(images: Images, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:  # noqa: F811
    if not get("argo", "services", "--field-selector=metadata.name=argo-server"):
        pytest.skip("the cluster has no Argo Workflows: no Service argo-server in the namespace argo")
    folder = tmp_path_factory.mktemp("release")
    with installed(SPACE, images, s3, folder, {"argo": {"enabled": True}}) as found:
        yield found


@pytest.fixture(scope="module")
def reference(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.server.env.items():
            patch.setenv(name, value)
        yield make_reference(s3.server, tmp_path_factory.mktemp("reference"))


@pytest.fixture
def given(release: Installed, reference: Reference, s3_here: S3) -> Iterator[dict[str, Any]]:  # noqa: F811
    """Parameters of the reference's run in a store of its own, on Argo."""
    spec = parse_spec(reference.spec.read_text()).model_dump(mode="json", exclude_unset=True)
    with forwarded("argo", "service/argo-server", 2746) as address:
        profile: Path = release.changed("argo", argo={"url": f"https://{address}", "verify_tls": False})
        yield {"spec": spec, "store": s3_here.server.new_bucket(), "profile": str(profile), "engine": "argo"}


def left() -> list[str]:
    """What runs have in the namespace."""
    kinds = ("workflows.argoproj.io", "jobs", "pods", "leases")
    found = {kind: get(SPACE, kind, "-l", "eo-batch.io/run") for kind in kinds}
    return [f"{kind} {thing['metadata']['name']}" for kind, things in found.items() for thing in things]


def flow_run(server: PrefectServer, given: dict[str, Any]) -> dict[str, Any]:
    """The flow run that works on a store."""
    found = [run for run in server.find("flow_runs") if run["parameters"].get("store") == given["store"]]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
def test_one_task_follows_a_workflow(deployed: PrefectServer, given: dict[str, Any], reference: Reference) -> None:
    flow = begun({**deployed.env, **ASSETS_SIGNED}, given)
    _, said = flow.communicate(timeout=900)
    assert flow.returncode == 0, said
    assert objects(given["store"]) == reference.objects
    run = flow_run(deployed, given)
    assert run["state_type"] == "COMPLETED"
    tasks = deployed.find("task_runs", task_runs={"flow_run_id": {"any_": [run["id"]]}})
    assert [task["name"] for task in tasks] == ["workflow"]
    found = deployed.artifacts(run["id"])
    assert {found[f"same-{stage}"]["data"] for stage in STAGES} == {100.0}
    assert found["same-workflow"]["type"] == "markdown"
    assert "/workflows/" in found["same-workflow"]["data"]
    assert {"same-coverage", "same-cost"} <= set(found)
    assert left() == []


@pytest.mark.slow
def test_cancelling_leaves_nothing_in_the_cluster(deployed: PrefectServer, given: dict[str, Any]) -> None:
    store = parse_store(given["store"])
    hasty = "import flows.cancelling as c; c.LOOK_EVERY_S, c.WORKER_S = 0.5, 1.0; "
    flow = begun({**deployed.env, **ASSETS_SIGNED}, given, hasty)
    try:
        wait_for("chips", lambda: any("/chips-" in key for key in store.list()) or flow.poll() is not None, 300)
        assert left()
        run = flow_run(deployed, given)
        began_s = time.monotonic()
        deployed.ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}}).raise_for_status()
        wait_for("the end of everything", lambda: flow.poll() is not None and not left(), GONE_S)
        assert time.monotonic() - began_s < GONE_S
    finally:
        flow.kill()
        flow.communicate()
