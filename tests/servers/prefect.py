"""Prefect: its server with the deployments of `prefect.yaml`, and a worker whose flow runs are processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.servers import seaweed
from tests.servers.shared import Home, Note, Unavailable, free_ports, shared

ROOT = Path(__file__).resolve().parents[2]
PROCESS_POOL, KUBERNETES_POOL = "eo-batch-process", "eo-batch"
CATALOG, STORE = "s3://bucket/europe.parquet", "s3://bucket/runs"
"""What `prefect.yaml` finds in the environment as the catalogue and store of Europe."""

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_LOGGING_COLORS": "false",
}
_PROMPT = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
}
"""What makes tests wait less."""

Json = dict[str, Any]


@dataclass(frozen=True)
class PrefectServer:
    """A running server."""

    url: str
    """Root of its API."""
    env: Mapping[str, str]
    """Environment of its clients."""

    @property
    def home(self) -> Path:
        """The folder with its database."""
        return Path(self.env["PREFECT_HOME"])

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        """One request to the API, repeated while its database is busy, as Prefect's own client does."""
        deadline_s = time.monotonic() + 120
        while True:
            try:
                answer = requests.request(method, f"{self.url}{path}", json=body, timeout=60)
            except requests.ReadTimeout:
                if method != "GET" or time.monotonic() > deadline_s:
                    raise
                continue
            if answer.status_code != requests.codes.unavailable or time.monotonic() > deadline_s:
                return answer
            time.sleep(1)

    def get(self, path: str) -> Json:
        """An object of the API."""
        answer = self.ask("GET", path)
        answer.raise_for_status()
        return dict(answer.json())

    def find(self, what: str, **filters: Json) -> list[Json]:
        """Objects of the API that pass its filters."""
        answer = self.ask("POST", f"/{what}/filter", filters)
        answer.raise_for_status()
        return list(answer.json())

    def command(self, *words: str, given: str = "", env: Mapping[str, str] | None = None) -> Said:
        """Run Prefect's command line in the project's folder."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            input=given,
            cwd=ROOT,
            env={**os.environ, **self.env, **(env or {}), "COLUMNS": "1000"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Said(done.returncode, done.stdout + done.stderr)

    def run(self, deployment: str, parameters: Json) -> str:
        """Ask for a flow run of `flow/deployment`; returns its id."""
        named = self.get(f"/deployments/name/{deployment}")
        answer = self.ask("POST", f"/deployments/{named['id']}/create_flow_run", {"parameters": parameters})
        assert answer.ok, answer.text
        return str(answer.json()["id"])

    def state(self, run_id: str) -> Json:
        """State of a flow run."""
        return dict(self.get(f"/flow_runs/{run_id}")["state"])

    def wait(self, run_id: str, limit_s: float = 180.0) -> Json:
        """The state that a flow run ends in."""
        deadline_s = time.monotonic() + limit_s
        while (state := self.state(run_id))["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < deadline_s, f"flow run {run_id} is {state['name']} after {limit_s:.0f} s"
            time.sleep(0.5)
        return state

    def log_of(self, run_id: str) -> list[str]:
        """Lines of a flow run's log that have reached the server."""
        rows = self.find("logs", logs={"flow_run_id": {"any_": [run_id]}})
        return [row["message"] for row in sorted(rows, key=lambda row: row["timestamp"])]

    def artifacts(self, run_id: str) -> dict[str, Json]:
        """Artifacts of a flow run by key."""
        return {row["key"]: row for row in self.find("artifacts", artifacts={"flow_run_id": {"any_": [run_id]}})}


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    text: str


def clients_env(home: Path, port: int) -> dict[str, str]:
    """Environment of a server with its database in `home`, and of its clients."""
    return {**_QUIET, **_PROMPT, "PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}


def serve(home: Home, env: Mapping[str, str], name: str = "prefect") -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers; the guard that owns it."""
    url = env["PREFECT_API_URL"]
    port = url.rsplit(":", 1)[1].removesuffix("/api")
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    process = home.spawn(name, argv, env)
    home.wait(name, process, lambda: requests.get(f"{url}/health", timeout=5).ok)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End what `serve` or `work` started, and wait for it."""
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def start(home: Home, data: Path) -> Note:
    """Start the server, make the work pools, and deploy all that `prefect.yaml` has."""
    _check_packages()
    env = clients_env(data, free_ports(1)[0])
    serve(home, env)
    server = PrefectServer(env["PREFECT_API_URL"], env)
    for pool, kind in ((PROCESS_POOL, "process"), (KUBERNETES_POOL, "kubernetes")):
        server.ask("POST", "/work_pools/", {"name": pool, "type": kind}).raise_for_status()
    said = server.command("--no-prompt", "deploy", "--all", env={"EO_BATCH_CATALOG": CATALOG, "EO_BATCH_STORE": STORE})
    if said.code != 0:
        raise RuntimeError(said.text[-3000:])
    return Note(server.url, env)


def work(home: Home, data: Path) -> Note:
    """Start a worker of the process pool, which reaches the S3 server."""
    server = shared(home, "prefect", start)
    objects = shared(home, "seaweed", seaweed.start)
    strange = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
    env = {
        **{name: "" for name in os.environ if name.startswith(strange)},
        **server.env,
        **objects.env,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "EO_BATCH_WORKERS": "2",
        "OMP_NUM_THREADS": "1",
    }
    argv = [sys.executable, "-m", "prefect", "worker", "start", "--pool", PROCESS_POOL, "--name", "tests"]
    process = home.spawn("prefect_worker", argv, env)
    pool = f"{server.url}/work_pools/{PROCESS_POOL}"
    home.wait("prefect_worker", process, lambda: requests.get(pool, timeout=5).json()["status"] == "READY")
    return Note(server.url, server.env)


def _check_packages() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        prefect = version("prefect")
        version("prefect-kubernetes")
    except PackageNotFoundError as error:
        raise Unavailable(f"Prefect is missing: pip install {error.name}") from None
    sqlalchemy = version("sqlalchemy")
    if prefect.startswith("3.8.") and not sqlalchemy.startswith("2.0."):
        raise RuntimeError(
            f"the server of Prefect {prefect} makes no scheduled flow runs and loses events with SQLAlchemy "
            f"{sqlalchemy}: pip install 'sqlalchemy<2.1'"
        )


def processes(run_id: str) -> dict[int, str]:
    """Processes of a flow run, workers of its runner included, by pid: their command lines."""
    found = {}
    mark = f"PREFECT__FLOW_RUN_ID={run_id}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended meanwhile
    return found


def workers_of(run: Mapping[int, str]) -> Sequence[int]:
    """Those of a flow run's processes that run shards."""
    return [pid for pid, line in run.items() if "spawn_main" in line]
