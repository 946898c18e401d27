"""However a run's driver ends, nothing of the run is left in the cluster beyond the stated time (docs/clusters.md)."""

from __future__ import annotations

import json
import signal
import time

import pytest

from eo_batch.core.errors import Interrupted
from eo_batch.io.store import parse_store
from tests.cluster.given import S3
from tests.cluster.kube import get, kill_program, kubectl, wait_for
from tests.cluster.place import Place
from tests.cluster.runs import Reference, check_same, start
from tests.cluster.ways import ByFlow, profile_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LEASE_S = 15
"""The chart's is 600 s, which only makes the test longer."""
GONE_S = 60.0
"""Longest time from the end of a driver, or from the sweeper's visit, until nothing is left."""


@pytest.fixture(autouse=True)
def _nothing_of_others(place: Place) -> None:
    """A test that fails may leave what would fail the next."""
    for thing in place.left():
        kubectl("delete", "-n", place.release.namespace, *thing.split(), "--ignore-not-found", "--wait=false")
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)


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
        assert place.left(), "somebody has to sweep"
        time.sleep(LEASE_S)
        sweep(place.release.namespace)
    else:
        assert driver.returncode == Interrupted.exit_code, said
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)


def in_chips(place: Place, reference: Reference, store: str, engine: str) -> ByFlow:
    """A flow run that has come to its chips."""
    flow = ByFlow(place.release, place.prefect, engine)
    flow.start(reference, store)
    wait_for(lambda: begun(store), "chips are begun", 180)
    assert place.left()
    return flow


def wait_for_state(flow: ByFlow, wanted: str, timeout_s: float) -> None:
    wait_for(lambda: flow.server.state(flow.flow_run)["type"] == wanted, f"the flow run is {wanted}", timeout_s)


@pytest.mark.parametrize("engine", ["prefect", "argo"])
def test_a_flow_run_that_is_cancelled_leaves_nothing(
    place: Place, reference: Reference, s3_here: S3, engine: str
) -> None:
    flow = in_chips(place, reference, s3_here.server.new_bucket(), engine)
    state = {"state": {"type": "CANCELLING"}}
    flow.server.ask("POST", f"/flow_runs/{flow.flow_run}/set_state", state).raise_for_status()
    wait_for_state(flow, "CANCELLED", GONE_S)
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)
    wait_for(lambda: flow.active() == [], "the end of its pods", GONE_S)


@pytest.mark.parametrize("engine", ["prefect", "argo"])
def test_a_flow_run_that_is_killed_leaves_nothing(place: Place, reference: Reference, s3_here: S3, engine: str) -> None:
    flow = in_chips(place, reference, s3_here.server.new_bucket(), engine)
    [pod] = flow.active()
    kill_program(flow.space, pod)
    wait_for_state(flow, "CRASHED", 120)
    (lease,) = get(flow.space, "leases", "-l", "eo-batch.io/run")
    shorter = json.dumps({"spec": {"leaseDurationSeconds": 1}})
    kubectl("patch", "lease", "-n", flow.space, lease["metadata"]["name"], "--type=merge", "-p", shorter)
    time.sleep(3)
    sweep(flow.space)
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)
    wait_for(lambda: flow.active() == [], "the end of its pods", GONE_S)


def test_a_flow_run_that_is_evicted_goes_on_elsewhere(place: Place, reference: Reference, s3_here: S3) -> None:
    store = s3_here.server.new_bucket()
    flow = in_chips(place, reference, store, "prefect")
    [pod] = flow.active()
    kubectl("delete", "pod", "-n", flow.space, pod, "--wait=false")
    wait_for_state(flow, "COMPLETED", 600)
    check_same(store, reference, flow.runner)
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)
