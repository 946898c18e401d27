"""The ways in which users run a spec on a cluster: by a profile of the chart, or by a deployment of Prefect."""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from eo_batch.core.layout import STAGES
from eo_batch.core.specfile import parse_spec
from tests.cluster.argo import argo_here
from tests.cluster.chart import Installed
from tests.cluster.disturbing import STAGE, Pod, ends
from tests.cluster.kube import get, kubectl, pods
from tests.cluster.place import Place
from tests.cluster.runs import Reference, start
from tests.cluster.secrets import shown
from tests.servers.prefect import PrefectServer

_FLOW = "continental-run/kubernetes"


class Way(ABC):
    """One of them, in the namespace of a release."""

    def __init__(self, release: Installed, runner: str) -> None:
        self.space, self.runner = release.namespace, runner
        """`runner` is what its receipts name."""

    @abstractmethod
    def run(self, reference: Reference, store: str, timeout_s: float) -> str:
        """Run the spec into a store; what people are told. Raises AssertionError if it does not end well."""

    def at_work(self) -> Sequence[tuple[str, Pod]]:
        """The run's pods that have not ended, with their stages."""
        found = pods(self.space, STAGE)
        return [(pod["metadata"]["labels"][STAGE], pod) for pod in found if not ends(pod)]


class ByCommand(Way):
    """`eo-batch run --on PROFILE`."""

    def __init__(self, release: Installed, runner: str, profile: Path) -> None:
        super().__init__(release, runner)
        self.profile, self.stage = profile, ""
        """`stage` is the one that it works on."""

    def run(self, reference: Reference, store: str, timeout_s: float) -> str:
        process = start(["run", str(reference.spec), "--store", store, "--on", str(self.profile)])
        assert process.stdout is not None
        said = []
        deadline_s = time.monotonic() + timeout_s
        for line in process.stdout:
            said.append(line)
            if begins := re.match(r"(\w+): \d+ of \d+ to do", line):
                self.stage = begins[1]
            elif re.match(r"\w+: done in", line):
                self.stage = ""
            assert time.monotonic() < deadline_s, "".join(said)
        assert process.wait(60) == 0, "".join(said)
        return "".join(said)


class ByDask(ByCommand):
    """The same on a cluster of the Dask operator, whose workers serve all stages."""

    def at_work(self) -> Sequence[tuple[str, Pod]]:
        stage = self.stage
        found = pods(self.space, "dask.org/component=worker") if stage else []
        return [(stage, pod) for pod in found if not ends(pod)]


def given_spec(reference: Reference) -> dict[str, Any]:
    """The spec as a parameter of flows."""
    return parse_spec(reference.spec.read_text()).model_dump(mode="json", exclude_unset=True)


class ByFlow(Way):
    """A flow run of a deployment, in a Job of its own."""

    def __init__(self, release: Installed, server: PrefectServer, engine: str = "prefect") -> None:
        super().__init__(release, "argo" if engine == "argo" else "kubernetes")
        self.server, self.engine = server, engine

    def run(self, reference: Reference, store: str, timeout_s: float) -> str:
        self.start(reference, store)
        return self.end(timeout_s)

    def end(self, timeout_s: float, wanted: str = "COMPLETED") -> str:
        """Wait for the end of the flow run; what people are told. Raises AssertionError if it ends in another state."""
        deadline_s = time.monotonic() + timeout_s
        state = {"type": "SCHEDULED"}
        while state["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < deadline_s, state
            time.sleep(1.0)
            with suppress(requests.RequestException):  # the server is restarted on purpose
                state = self.server.state(self.flow_run)
        said = json.dumps(state) + "\n".join(self.server.log_of(self.flow_run))
        assert state["type"] == wanted, said
        return said

    def start(self, reference: Reference, store: str) -> None:
        """Ask for a flow run of the spec."""
        self.ask(_FLOW, spec=given_spec(reference), store=store)

    def ask(self, deployment: str, **given: object) -> None:
        """Ask for a flow run of a deployment."""
        if self.engine == "argo":
            given = {"engine": "argo", "profile": "/etc/eo-batch/profiles/argo.yaml"} | given
        self.flow_run = self.server.run(deployment, given)

    def active(self) -> list[str]:
        """Names of the flow run's pods that have not ended; those that have are kept for a while, with their logs."""
        found = pods(self.space, f"prefect.io/flow-run-id={self.flow_run}")
        return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] in ("Pending", "Running")]


def check_flow(way: ByFlow) -> None:
    """The flow run had a Job of its own with no more rights than the driver's, and people see what it did."""
    (pod,) = get(way.space, "pods", "-l", f"prefect.io/flow-run-id={way.flow_run}")
    assert pod["spec"]["serviceAccountName"] == "eo-batch-driver"
    worker = kubectl("logs", "-n", way.space, "deployment/eo-batch-prefect-worker", "-c", "worker")
    assert "forbidden" not in worker.lower(), worker
    tasks = way.server.find("task_runs", task_runs={"flow_run_id": {"any_": [way.flow_run]}})
    assert {task["name"] for task in tasks} == ({"workflow"} if way.engine == "argo" else set(STAGES))
    artifacts = way.server.artifacts(way.flow_run)
    assert {"same-coverage", "same-cost"} <= artifacts.keys()
    if way.engine == "argo":
        assert f"/workflows/{way.space}/" in artifacts["same-workflow"]["data"]
    assert {artifacts[f"same-{stage}"]["data"] for stage in STAGES} == {100.0}
    run = way.server.get(f"/flow_runs/{way.flow_run}")
    assert shown(json.dumps([run, tasks, artifacts])) == []


@contextmanager
def profile_of(runner: str, release: Installed, **changes: Any) -> Iterator[Path]:
    """The chart's profile of a runner, with other sections. Argo's server, which has a name for pods, is forwarded."""
    if runner != "argo":
        yield release.changed(runner, **changes)
        return
    with argo_here().outside() as url:
        yield release.changed(runner, argo={"url": url}, **changes)


@contextmanager
def way_of(name: str, place: Place) -> Iterator[Way]:
    """A way by its name: that of a runner, `prefect`, or `prefect-argo` where Argo keeps the graph of stages."""
    if name.startswith("prefect"):
        yield ByFlow(place.release, place.prefect, name.removeprefix("prefect-"))
        return
    with profile_of(name, place.release) as profile:
        yield (ByDask if name == "dask" else ByCommand)(place.release, name, profile)
