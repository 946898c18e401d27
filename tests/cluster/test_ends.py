"""However a run's driver ends, nothing of the run is left in the cluster beyond the stated time (docs/clusters.md)."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest

from eo_batch.core.errors import Interrupted
from eo_batch.io.store import parse_store
from tests.cluster.given import S3
from tests.cluster.kube import get, kubectl, wait_for
from tests.cluster.place import Place
from tests.cluster.runs import Reference, start
from tests.cluster.ways import ByFlow, profile_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LEASE_S = 15
"""The chart's is 600 s, which only makes the test longer."""
GONE_S = 60.0
"""Longest time from the end of a driver, or from the sweeper's visit, until nothing is left."""


def sweep(space: str) -> None:
    """What the chart's sweeper does every five minutes, now."""
    kubectl("create", "job", "-n", space, "sweep-now", "--from=cronjob/eo-batch-sweeper")
    try:
        kubectl("wait", "-n", space, "job/sweep-now", "--for=condition=complete", "--timeout=90s")
    finally:
        kubectl("delete", "job", "-n", space, "sweep-now")


def begun(store: str) -> bool:
    """Whether the chips of a run have been begun."""
    return any("/chips-" in key for key in parse_store(store).list())


@pytest.mark.parametrize("runner", ["kubernetes", "argo", "dask"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_a_driver_that_ends_leaves_nothing(
    place: Place, reference: Reference, s3_here: S3, runner: str, end: signal.Signals
) -> None:
    store = s3_here.server.new_bucket()
    with profile_of(runner, place.release, cluster={"lease_s": LEASE_S}) as profile:
        driver = start(["run", str(reference.spec), "--store", store, "--on", str(profile)])
        try:
            wait_for(lambda: begun(store) or driver.poll() is not None, "chips are begun", 180)
            assert place.left()
            driver.send_signal(end)
            driver.wait(GONE_S)
        finally:
            driver.kill()
            said, _ = driver.communicate()
    if end == signal.SIGKILL:
        time.sleep(LEASE_S)
        assert place.left(), "somebody has to sweep"
        sweep(place.release.namespace)
    else:
        assert driver.returncode == Interrupted.exit_code, said
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)


def ask_to_cancel(flow: ByFlow, run: str) -> None:
    flow.server.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}}).raise_for_status()


def kill(flow: ByFlow, run: str) -> None:
    labels = f"prefect.io/flow-run-id={run}"
    kubectl("delete", "pod", "-n", flow.space, "-l", labels, "--grace-period=0", "--force")


@pytest.mark.parametrize("engine", ["prefect", "argo"])
@pytest.mark.parametrize("end", [ask_to_cancel, kill])
def test_a_flow_run_that_ends_leaves_nothing(
    place: Place, reference: Reference, s3_here: S3, engine: str, end: Callable[[ByFlow, str], None]
) -> None:
    store = s3_here.server.new_bucket()
    flow = ByFlow(place.release, place.prefect, engine)
    run = flow.start(reference, store)
    wait_for(lambda: begun(store), "chips are begun", 180)
    assert place.left()
    end(flow, run)
    ended = ("CANCELLED", "CRASHED", "FAILED")
    wait_for(lambda: flow.server.state(run)["type"] in ended, "the flow run's end", 120)
    if end is kill:
        (lease,) = get(flow.space, "leases", "-l", "eo-batch.io/run")
        long_ago = json.dumps({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}})
        kubectl("patch", "lease", "-n", flow.space, lease["metadata"]["name"], "--type=merge", "-p", long_ago)
        sweep(flow.space)
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)
    assert get(flow.space, "jobs", "-l", f"prefect.io/flow-run-id={run}") == []
