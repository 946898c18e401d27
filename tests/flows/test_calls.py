"""Flows as functions: which stages each of them does, and the line that a person's mistake is answered with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.io.worlds import WEST, go, spec_of
from tests.servers.prefect import ROOT, PrefectServer

TINY = (
    "pretrain.steps=2",
    "pretrain.warmup_steps=0",
    "pretrain.batch=4",
    "pretrain.encoder={patch_px: 8, dim: 16, depth: 1, heads: 1}",
    "pretrain.objective={kind: mae, decoder: {dim: 16, depth: 1, heads: 1}}",
)
CODE = """
import importlib, json, sys
for name, given in json.load(sys.stdin):
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    state = flow(**given, return_state=True)
    print(json.dumps([state.type, state.message]), flush=True)
"""


def call(server: PrefectServer, *calls: tuple[str, dict[str, Any]]) -> tuple[list[list[str]], str]:
    """Call flows one after the other in a process of their own; type and message of their states, and the log."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps(calls),
        cwd=ROOT,
        env={**os.environ, **server.env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
def test_each_flow_goes_as_far_as_it_says(deployed: PrefectServer, planet: Path, tmp_path: Path) -> None:
    spec = spec_of(planet / "items.json", WEST, "name=far", *TINY).model_dump(mode="json", exclude_unset=True)
    place = {"store": str(tmp_path)}
    (trained, embedded, again), said = call(
        deployed,
        ("pretrain_model", {"spec": spec, **place}),
        ("generate_embeddings", {"name": "far", **place}),
        ("continental_run", {"spec": spec, **place, "until": "embed"}),
    )
    begun = "far: shards: plan {0} ran and {1} kept, chips {2} ran and {3} kept, publish {0} ran and {1} kept, "
    begun += "pretrain {0} ran and {1} kept"
    assert trained == ["COMPLETED", begun.format(1, 0, 8, 0)], said
    assert embedded == ["COMPLETED", f"{begun.format(0, 1, 0, 8)}, embed 4 ran and 0 kept"], said
    assert again == ["COMPLETED", f"{begun.format(0, 1, 0, 8)}, embed 0 ran and 4 kept"], said


@pytest.mark.slow
def test_a_mistake_is_answered_in_one_line(deployed: PrefectServer, planet: Path, tmp_path: Path) -> None:
    def spec(*overrides: str, catalog: object = planet / "items.json") -> dict[str, Any]:
        return spec_of(catalog, WEST, "name=wrong", *overrides).model_dump(mode="json", exclude_unset=True)

    place = {"store": str(tmp_path)}
    local = tmp_path / "local.yaml"
    local.write_text("runner: lokal\n")
    uneven = spec()
    uneven["grid"]["chip_px"] = 36
    states, said = call(
        deployed,
        ("continental_run", {"spec": spec(catalog=tmp_path / "nothing.json"), **place}),
        ("continental_run", {"spec": spec(), **place, "until": "probe"}),
        ("continental_run", {"spec": spec(), **place, "engine": "argo"}),
        ("continental_run", {"spec": spec(), **place, "profile": str(local)}),
        ("continental_run", {"spec": spec(), "store": "ftp://somewhere"}),
        ("scheduled_update", {"spec": spec("time.step=all"), **place}),
        ("generate_embeddings", {"name": "nobody", **place}),
        ("continental_run", {"spec": uneven, **place}),
    )
    assert {kind for kind, _ in states} == {"FAILED"}
    expected = [
        f"plan: catalogue {tmp_path}/nothing.json is not there; check the address",
        "until=probe is no stage of this run; its stages are plan, chips, publish, pretrain, embed, report",
        "engine=argo needs a profile with a cluster and Argo's address; give its path as profile",
        f"{local}: runner: ",
        "store ftp:// is not known; use file, s3, gs, az or memory",
        "time.step=all is one bin over all dates, so later dates would make every chip again; use month, season",
        "nobody/run.yaml is not there; start the run with",
    ]
    for (_, message), line in zip(states, expected, strict=False):
        assert line in message
        assert "\n" not in message
    assert "grid.chip_px=36 is not a multiple of pretrain.encoder.patch_px=8; use grid.chip_px=40" in states[-1][1]
    assert "Traceback" not in said.partition("grid.chip_px=36")[0], "only Prefect's own refusal has one"


@pytest.mark.slow
def test_a_failure_shows_what_there_is(deployed: PrefectServer, planet: Path, tmp_path: Path) -> None:
    """A run that fails after its chips has tables nevertheless."""
    from eo_batch.io.store import parse_store

    wanted = spec_of(planet / "items.json", WEST, "name=broken")
    store = parse_store(str(tmp_path))
    run, _ = go(wanted, store, until="chips")
    for key in store.list(run.identity.prefix("chips")):
        if "/summaries/" in key:
            store.put(key, b"cut short")
    spec = wanted.model_dump(mode="json", exclude_unset=True)
    ((kind, message),), said = call(deployed, ("continental_run", {"spec": spec, "store": str(tmp_path)}))
    assert kind == "FAILED"
    assert "publish: " in message
    assert "Traceback" not in said
    (flow_run,) = deployed.find("flow_runs", flow_runs={"tags": {"all_": ["run:broken"]}})
    found = deployed.artifacts(flow_run["id"])
    assert (found["broken-chips"]["data"], found["broken-publish"]["data"]) == (100.0, 0.0)
    assert [row["done"] for row in json.loads(found["broken-coverage"]["data"])] == [4, 4]
    assert "broken-cost" in found
