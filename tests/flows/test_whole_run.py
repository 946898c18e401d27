"""A whole run by a deployment: the bytes of a run by the command line, and what people see of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core.specfile import parse_spec
from tests.entry.whole import Whole, objects
from tests.servers.objects import ObjectServer
from tests.servers.prefect import PrefectServer
from tests.servers.seaweed import SECRET_KEY
from tests.servers.shared import Home

STAGES = ("plan", "chips", "publish", "pretrain", "embed", "probe", "report")
CATALOG_TOKEN = "a-token-that-nobody-may-see"


class Done:
    """A whole run by a flow, on S3, twice."""

    def __init__(self, prefect: PrefectServer, seaweed: ObjectServer, whole: Whole) -> None:
        self.server, self.store = prefect, seaweed.new_bucket()
        spec = parse_spec(whole.spec.read_text()).model_dump(mode="json", exclude_unset=True)
        self.parameters = parameters = {"spec": spec, "store": self.store}
        words = ["deployment", "run", "continental-run/process", "--watch", "--params", "-"]
        self.said = prefect.command(*words, given=json.dumps(parameters | {"cpu_hour_price": 3.6}))
        (self.first,) = (
            str(run["id"]) for run in prefect.find("flow_runs") if run["parameters"].get("store") == self.store
        )
        self.second = prefect.run("continental-run/process", parameters)
        prefect.wait(self.second)

    def table(self, run: str, what: str) -> list[dict[str, Any]]:
        """Rows of a table artifact."""
        return list(json.loads(self.server.artifacts(run)[f"killed-{what}"]["data"]))


@pytest.fixture(scope="module")
def whole(home: Home) -> Whole:
    return Whole(home)


@pytest.fixture(scope="module")
def done(prefect: PrefectServer, seaweed: ObjectServer, whole: Whole) -> Done:
    return Done(prefect, seaweed, whole)


@pytest.fixture
def _reach(seaweed: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_the_deployment_runs_to_its_end(done: Done) -> None:
    assert done.said.code == 0, done.said.text
    assert done.server.state(done.first)["type"] == "COMPLETED"
    tasks = done.server.find("task_runs", task_runs={"flow_run_id": {"any_": [done.first]}})
    assert {task["name"]: task["state"]["type"] for task in tasks} == dict.fromkeys(STAGES, "COMPLETED")


@pytest.mark.usefixtures("_reach")
def test_the_bytes_are_those_of_the_command_line(done: Done, whole: Whole) -> None:
    assert objects(done.store) == whole.objects


def test_each_stage_has_a_bar_that_is_full(done: Done) -> None:
    found = done.server.artifacts(done.first)
    tasks = done.server.find("task_runs", task_runs={"flow_run_id": {"any_": [done.first]}})
    of_task = {task["name"]: task["id"] for task in tasks}
    for stage in STAGES:
        bar = found[f"killed-{stage}"]
        assert (bar["type"], bar["data"]) == ("progress", 100.0)
        assert bar["task_run_id"] == of_task[stage]
    assert found["killed-chips"]["description"] == "killed, chips: 96 of 96 shards, 0 from before"


def test_coverage_counts_every_chip(done: Done, whole: Whole) -> None:
    rows = {row.pop("sensor"): row for row in done.table(done.first, "coverage")}
    assert set(rows) == {"s2", "s1", "labels"}
    for row in rows.values():
        assert row.pop("shards") == row.pop("done") == 32
    states: Mapping[str, int] = {name: sum(row.values()) for name, row in rows.items()}
    assert len(set(states.values())) == 1, "each sensor has the same chips"
    assert rows["labels"]["ok"] == states["labels"] > 0


def test_cost_is_cpu_time_times_the_price(done: Done) -> None:
    rows = done.table(done.first, "cost")
    assert [row["stage"] for row in rows] == [*STAGES, "all"]
    for row in rows:
        assert row["ran"] == row["shards"]
        assert row["kept"] == 0
        assert row["cost"] == pytest.approx(row["CPU s"] * 3.6 / 3600, abs=1e-3)
    assert rows[-1]["shards"] == sum(row["shards"] for row in rows[:-1])
    assert rows[-1]["cost"] > 0
    chips = rows[STAGES.index("chips")]
    assert min(chips["bytes read"], chips["requests"], chips["bytes written"]) > 0


def test_a_second_run_keeps_everything_and_says_that_it_has_no_price(done: Done) -> None:
    rows = done.table(done.second, "cost")
    assert {(row["ran"], row["kept"] - row["shards"]) for row in rows} == {(0, 0)}
    assert all("cost" not in row for row in rows)
    assert "no price of a CPU hour" in done.server.artifacts(done.second)["killed-cost"]["description"]
    assert "chips 0 ran and 96 kept" in done.server.state(done.second)["message"]


@pytest.mark.slow
def test_deployments_of_other_flows_keep_what_is_done(done: Done) -> None:
    embedding = {"name": "killed", "store": done.store}
    for flow, last, parameters in (
        ("pretrain-model", "pretrain", done.parameters),
        ("generate-embeddings", "embed", embedding),
    ):
        run = done.server.run(f"{flow}/process", parameters)
        done.server.wait(run)
        state = done.server.state(run)
        assert state["type"] == "COMPLETED", state
        assert "chips 0 ran and 96 kept" in state["message"]
        assert re.search(rf"{last} 0 ran and \d+ kept$", state["message"]), state["message"]


def test_a_run_that_costs_too_much_is_not_begun(done: Done) -> None:
    prices, store = Path(__file__).parents[2] / "prices" / "example.yaml", f"{done.store}/dear"
    spec = done.server.get(f"/flow_runs/{done.first}")["parameters"]["spec"]
    run = done.server.run(
        "continental-run/process", {"spec": spec, "store": store, "prices": str(prices), "max_cost": 1e-9}
    )
    done.server.wait(run)
    state = done.server.state(run)
    assert state["type"] == "FAILED"
    assert "USD, over max_cost=1e-09; " in state["message"]
    assert done.server.find("task_runs", task_runs={"flow_run_id": {"any_": [run]}}) == []


def test_no_secret_reached_prefect(done: Done, home: Home) -> None:
    """Parameters, logs, artifacts, states and events are all in the server's database."""
    row = done.server.get("/deployments/name/continental-run/process")
    spec = {"name": "secret", "catalog": f"https://stac.example/?token={CATALOG_TOKEN}"}
    path = f"/deployments/{row['id']}/create_flow_run"
    assert not done.server.ask("POST", path, {"parameters": {"spec": spec, "store": done.store}}).ok
    files = [path for path in done.server.home.rglob("*") if path.is_file()] + list(home.folder.glob("prefect*.log"))

    def holders(text: str) -> set[str]:
        return {file.name for file in files if text.encode() in file.read_bytes()}

    assert holders(done.store) & {"prefect.db", "prefect.db-wal"}, "what is not secret is found there"
    assert holders("Finished in state Completed") & {"prefect_worker.log"}
    assert holders(SECRET_KEY) | holders(CATALOG_TOKEN) == set()
