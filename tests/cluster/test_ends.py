"""However a run's driver ends, nothing of the run is left in the cluster beyond the stated time (docs/clusters.md)."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from eo_batch.core.errors import Interrupted
from eo_batch.io.store import parse_store
from tests.cluster.chart import CHART, helm
from tests.cluster.given import S3
from tests.cluster.kube import get, kill_program, kubectl, wait_for
from tests.cluster.place import Place
from tests.cluster.runs import Reference, check_same, start
from tests.cluster.ways import ByFlow, profile_of
from tests.servers.objects import ObjectServer

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LEASE_S, SWEPT_EVERY_S = 30, 60
"""The chart's are 600 and 300 s, which would only make the tests longer."""
GONE_S = 60.0
"""Longest time from the end of a driver, or from the sweeper's visit, until nothing is left."""
STATED_S = LEASE_S + SWEPT_EVERY_S + GONE_S
"""The same of a driver that is killed: nobody does anything then, but the sweeper when it is its turn."""
RUNNERS = ("kubernetes", "argo", "dask")
ENGINES = ("prefect", "argo")


@pytest.fixture(scope="module", autouse=True)
def _impatient(place: Place) -> Iterator[None]:
    """The release has other times while these tests run."""
    argv = ["eo-batch", "-n", place.release.namespace, "--wait", "--timeout", "2m"]
    times = ["--set", f"leaseSeconds={LEASE_S}", "--set", "sweeper.schedule=* * * * *"]
    helm("upgrade", *argv[:1], str(CHART), *argv[1:], "--reuse-values", *times)
    yield
    helm("rollback", *argv)


@pytest.fixture(autouse=True)
def _nothing_of_others(place: Place) -> None:
    """A test that fails may leave what would fail the next."""
    for thing in place.left():
        kubectl("delete", "-n", place.release.namespace, *thing.split(), "--ignore-not-found", "--wait=false")
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)


def begun(store: str) -> bool:
    """Whether the chips of a run have been begun."""
    return any("/chips-" in key for key in parse_store(store).list())


def gone(place: Place, within_s: float, what: str) -> None:
    """Wait until nothing is left of any run, and print how long that took."""
    took_s = wait_for(lambda: place.left() == [], f"the end of {place.left()}", within_s)
    print(f"{what}: nothing is left after {took_s:.0f} s")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_drivers_that_end_leave_nothing(place: Place, reference: Reference, s3_here: S3, end: signal.Signals) -> None:
    """One of each runner, all at once, in the middle of its chips."""
    stores = {runner: s3_here.server.new_bucket() for runner in RUNNERS}
    drivers: dict[str, subprocess.Popen[str]] = {}
    waiting = set(RUNNERS)

    def send() -> bool:
        for runner in sorted(waiting):
            if begun(stores[runner]):
                assert place.left()
                drivers[runner].send_signal(end)
                waiting.remove(runner)
            else:
                assert drivers[runner].poll() is None, drivers[runner].communicate()[0]
        return not waiting

    with ExitStack() as stack:
        for runner, store in stores.items():
            profile = stack.enter_context(profile_of(runner, place.release))
            drivers[runner] = start(["run", str(reference.spec), "--store", store, "--on", str(profile)])
            stack.callback(drivers[runner].kill)
        wait_for(send, "chips of all are begun", 240)
        for runner, driver in drivers.items():
            said, _ = driver.communicate(timeout=2 * GONE_S)
            assert driver.returncode == (Interrupted.exit_code if end == signal.SIGTERM else -end), (runner, said)
    if end == signal.SIGKILL:
        assert place.left(), "somebody has to sweep"
    gone(place, STATED_S if end == signal.SIGKILL else GONE_S, end.name)


def in_chips(place: Place, reference: Reference, server: ObjectServer) -> list[ByFlow]:
    """Flow runs of both engines that have come to their chips."""
    flows, stores = [ByFlow(place.release, place.prefect, engine) for engine in ENGINES], list[str]()
    for flow in flows:
        stores.append(server.new_bucket())
        flow.start(reference, stores[-1])
    wait_for(lambda: all(begun(store) for store in stores), "chips are begun", 240)
    assert len(get(place.release.namespace, "leases", "-l", "eo-batch.io/run")) == len(flows)
    return flows


def wait_for_state(flow: ByFlow, wanted: str, timeout_s: float) -> None:
    wait_for(lambda: flow.server.state(flow.flow_run)["type"] == wanted, f"the flow run is {wanted}", timeout_s)


def test_flow_runs_that_are_cancelled_leave_nothing(place: Place, reference: Reference, s3_here: S3) -> None:
    flows = in_chips(place, reference, s3_here.server)
    for flow in flows:
        state = {"state": {"type": "CANCELLING"}}
        flow.server.ask("POST", f"/flow_runs/{flow.flow_run}/set_state", state).raise_for_status()
    for flow in flows:
        wait_for_state(flow, "CANCELLED", GONE_S)
    gone(place, GONE_S, "cancelled")
    wait_for(lambda: not any(flow.active() for flow in flows), "the end of their pods", GONE_S)


def test_flow_runs_that_are_killed_leave_nothing(place: Place, reference: Reference, s3_here: S3) -> None:
    flows = in_chips(place, reference, s3_here.server)
    for flow in flows:
        [pod] = flow.active()
        kill_program(flow.space, pod)
    assert place.left(), "somebody has to sweep"
    gone(place, STATED_S, "killed with -9")
    for flow in flows:
        wait_for_state(flow, "CRASHED", 120)
    wait_for(lambda: not any(flow.active() for flow in flows), "the end of their pods", GONE_S)


def test_a_flow_run_that_is_evicted_goes_on_elsewhere(place: Place, reference: Reference, s3_here: S3) -> None:
    store, flow = s3_here.server.new_bucket(), ByFlow(place.release, place.prefect)
    flow.start(reference, store)
    wait_for(lambda: begun(store), "chips are begun", 180)
    [pod] = flow.active()
    kubectl("delete", "pod", "-n", flow.space, pod, "--wait=false")
    wait_for_state(flow, "COMPLETED", 600)
    check_same(store, reference, flow.runner)
    wait_for(lambda: place.left() == [], f"the end of {place.left()}", GONE_S)
