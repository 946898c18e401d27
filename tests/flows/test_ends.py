"""Flow runs that are cancelled, killed, or whose server restarts: nothing runs on, and nothing that is done is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core.spec import RunSpec
from tests.bad_input.test_interrupts import end, members
from tests.io.web import Web, slow
from tests.io.worlds import WEST, spec_of
from tests.servers.prefect import ROOT, PrefectServer, clients_env, processes, serve, stop, workers_of
from tests.servers.shared import Home, free_ports

SHARDS = 8
"""Shards of chips of the spec."""
GRACE_S = 30.0
"""How long a cancelled flow run may take to end (`flows/README.md`)."""
KILLED_S = 5.0
"""How long the workers of a flow run that was killed may go on."""


def wait_for(what: str, holds: Callable[[], bool], limit_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline_s, f"{what} did not happen in {limit_s:g} s"
        time.sleep(0.1)


def receipts(store: Path) -> dict[Path, bytes]:
    """Receipts of chips so far."""
    return {path: path.read_bytes() for path in store.glob("*/chips-*/receipts/**/*.json")}


def parameters(web: Web, store: Path, **more: Any) -> dict[str, Any]:
    """A run up to its cube."""
    spec: RunSpec = spec_of(f"{web.url}/items.json", WEST)
    return {"spec": spec.model_dump(mode="json", exclude_unset=True), "store": str(store), "until": "publish", **more}


def in_the_middle(prefect: PrefectServer, web: Web, store: Path) -> str:
    """A flow run whose workers are making chips."""
    web.fault(r"\.tif", slow(1.0))
    run = prefect.run("continental-run/process", parameters(web, store))
    wait_for("a first receipt", lambda: bool(receipts(store)))
    assert len(workers_of(processes(run))) == 2
    return run


def finished(prefect: PrefectServer, web: Web, store: Path) -> None:
    """The next flow run does what is left."""
    before = receipts(store)
    assert 0 < len(before) < SHARDS, "it was to be stopped in the middle"
    web.mend()
    run = prefect.run("continental-run/process", parameters(web, store))
    state = prefect.wait(run)
    assert state["type"] == "COMPLETED", state
    assert f"chips {SHARDS - len(before)} ran and {len(before)} kept" in state["message"]
    after = receipts(store)
    assert len(after) == SHARDS
    assert {path: after[path] for path in before} == before


@pytest.mark.slow
def test_cancelling_ends_everything(prefect: PrefectServer, web: Web, tmp_path: Path) -> None:
    run = in_the_middle(prefect, web, tmp_path)
    said = prefect.command("flow-run", "cancel", run)
    assert said.code == 0, said.text
    wait_for("the end of all processes", lambda: not processes(run), GRACE_S)
    assert prefect.wait(run)["type"] == "CANCELLED"
    finished(prefect, web, tmp_path)


@pytest.mark.slow
def test_killing_the_flow_ends_its_workers(prefect: PrefectServer, web: Web, tmp_path: Path) -> None:
    run = in_the_middle(prefect, web, tmp_path)
    (flow,) = [pid for pid, line in processes(run).items() if "prefect" in line]
    os.kill(flow, signal.SIGKILL)
    wait_for("the end of all workers", lambda: not workers_of(processes(run)), KILLED_S)
    state = prefect.wait(run)
    assert state["type"] == "CRASHED"
    assert "-9" in state["message"]
    finished(prefect, web, tmp_path)


@pytest.mark.slow
def test_one_flow_run_at_a_time_for_a_run(prefect: PrefectServer, web: Web, tmp_path: Path) -> None:
    first = in_the_middle(prefect, web, tmp_path)
    web.mend()
    web.fault(r"\.tif", slow(5.0))  # so that it is still at it when the others have begun
    second = prefect.run("continental-run/process", parameters(web, tmp_path))
    elsewhere = prefect.run("continental-run/process", parameters(web, tmp_path / "elsewhere", until="plan"))
    state = prefect.wait(second)
    assert (state["type"], state["name"]) == ("CANCELLED", "Skipped")
    assert f"end it: prefect flow-run cancel {first}" in state["message"]
    assert prefect.wait(elsewhere)["type"] == "COMPLETED", "the same name in another store is another run"
    assert prefect.state(first)["type"] == "RUNNING"
    web.mend()
    assert prefect.wait(first)["type"] == "COMPLETED"


def begun(env: dict[str, str], given: dict[str, Any], before: str = "") -> subprocess.Popen[str]:
    """A flow run in a process that no worker knows, after some more code."""
    code = f"import json, sys; {before}from flows.continental_run import continental_run as run; "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}run(**json.load(sys.stdin))"],
        cwd=ROOT,
        env={**os.environ, **env, "EO_BATCH_WORKERS": "2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.slow
def test_cancelling_needs_no_worker(deployed: PrefectServer, web: Web, tmp_path: Path) -> None:
    web.fault(r"\.tif", slow(2.0))
    hasty = "import flows.cancelling as c; c.LOOK_EVERY_S, c.WORKER_S = 0.5, 1.0; "
    given = parameters(web, tmp_path)
    given["spec"]["name"] = "orphan"
    flow = begun(dict(deployed.env), given, hasty)
    try:
        wait_for("a first receipt", lambda: bool(receipts(tmp_path)) or flow.poll() is not None)
        (run,) = deployed.find("flow_runs", flow_runs={"tags": {"all_": ["run:orphan"]}})
        assert len(members(flow.pid)) >= 3, "a flow and two workers"
        cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        assert deployed.ask("POST", f"/flow_runs/{run['id']}/set_state", cancelling).ok
        _, said = flow.communicate(timeout=60)
        wait_for("the end of all workers", lambda: not members(flow.pid), KILLED_S)
    finally:
        end(flow)
    assert "no worker ends it; it ends itself" in said
    assert deployed.state(run["id"])["type"] == "CRASHED"
    assert 0 < len(receipts(tmp_path)) < SHARDS


@pytest.mark.slow
def test_the_server_may_restart(home: Home, web: Web, tmp_path: Path) -> None:
    """A flow run goes on without its server, and tells it all once it is back; no bar is missing in the end."""
    data = home.folder / "prefect-restarted"
    data.mkdir()
    env = clients_env(data, free_ports(1)[0])
    server = PrefectServer(env["PREFECT_API_URL"], env)
    first = serve(home, env, "prefect-restarted")
    web.fault(r"\.tif", slow(2.0))
    flow = begun(env, parameters(web, tmp_path))
    try:
        wait_for("a first receipt", lambda: bool(receipts(tmp_path)) or flow.poll() is not None)
        stop(first)
        done = len(receipts(tmp_path))
        wait_for("more receipts without a server", lambda: len(receipts(tmp_path)) > done)
        assert flow.poll() is None
        second = serve(home, env, "prefect-restarted")
        web.mend()
        _, said = flow.communicate(timeout=240)
    finally:
        end(flow)
    assert flow.returncode == 0, said
    (run,) = server.find("flow_runs")
    assert run["state_type"] == "COMPLETED"
    found = server.artifacts(run["id"])
    assert set(found) == {"t-plan", "t-chips", "t-publish", "t-coverage", "t-cost"}
    assert {found[f"t-{stage}"]["data"] for stage in ("plan", "chips", "publish")} == {100.0}
    assert len(re.findall("Prefect's API does not take", said)) <= 1, "it is said once an outage"
    stop(second)
