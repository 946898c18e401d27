"""`recipes/continental.yaml` plans as its own comment says: over a simulated stac-geoparquet catalogue, without a
network, and nothing is written. The recipe is cut to a small country on both sides of the meridian where two UTM zones
meet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.europe import RECIPE, write_catalog
from eo_batch.core.specfile import parse_spec

ROOT = Path(__file__).resolve().parents[2]
LUXEMBOURG = ["area={bbox: [5.7, 49.4, 6.6, 50.2]}", "time={start: 2023-05-01, end: 2023-07-01, step: month}"]
MONTHS = 2
OFFLINE = ["unshare", "--map-root-user", "--net", "--"]
"""Runs a command where there is no network at all, not even the loopback."""
COMMAND = [sys.executable, "-m", "eo_batch.cli"]
REFUSED = """
import socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=5)
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """The beginning of a command's words that takes the network away. Skips where the kernel does not allow it."""
    tried = subprocess.run([*OFFLINE, sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"can't take the network away from a process: {tried.stderr.strip()}")
    assert tried.stdout == "Network is unreachable\n"
    return OFFLINE


def test_the_continental_recipe_plans_without_a_network(offline: list[str], tmp_path: Path) -> None:
    catalog, folder = tmp_path / "catalog.parquet", tmp_path / "here"
    folder.mkdir()
    overrides = [f"catalog={catalog}", *LUXEMBOURG]
    spec = parse_spec(RECIPE.read_text(), overrides, str(RECIPE))
    assert write_catalog(spec, catalog) > 0
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*offline, *COMMAND, "plan", str(RECIPE), *overrides, "--json"],
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    sensors = {row["sensor"]: row for row in plan["sensors"]}
    assert list(sensors) == list(spec.sensors)
    assert len(sensors) == 5
    for name, row in sensors.items():
        bins = 1 if spec.sensors[name].info.static else MONTHS
        assert row["shards"] == bins * plan["blocks"], name
        assert row["scenes"] > 0, name
        assert row["read_bytes"] > 0, name
    assert plan["zones"].keys() == {"32631", "32632"}
    assert sum(plan["zones"].values()) == plan["chips"]
    assert min(plan["zones"].values()) > 100
    assert list(folder.iterdir()) == []
