"""A store with runs in every state, and the server that shows it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import requests

from eo_batch.core import layout
from eo_batch.core.identity import Identity
from eo_batch.core.specfile import dump_spec
from eo_batch.core.work import GivenUp
from eo_batch.io.store import Store, parse_store
from tests.cluster.kube import wait_for
from tests.report.conftest import Made, make_spec, planet, published, whole
from tests.report.pages import do
from tests.servers.shared import free_ports

__all__ = ["make_spec", "planet", "published", "whole"]

WHY = "<b>no file</b> of it can be read & more"


@pytest.fixture(scope="module")
def store(whole: Made, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`tiny` is done; of `half` a shard of embeddings was given up; `begun` has no plan; `odd` is no spec."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(Path(unquote(urlsplit(whole.store.url).path)), folder, dirs_exist_ok=True)
    store = parse_store(str(folder))
    half = whole.spec.model_copy(update={"name": "half"})
    do(half, store, "embed")
    embed = Identity(half).prefix("embed")
    lost = sorted(store.list(f"{embed}/receipts"))[0]
    store.delete(lost)
    shard = lost.removeprefix(f"{embed}/receipts/").removesuffix(".json")
    note = GivenUp(message=WHY, tries=3, trace="", exit_code=5)
    store.put(layout.work_failure(embed, "job", shard), note.to_bytes())
    for spec in (whole.spec, half, whole.spec.model_copy(update={"name": "begun"})):
        store.put(f"{spec.name}/run.yaml", dump_spec(spec).encode())
    store.put("odd/run.yaml", b"name: odd\n")
    return store


@contextmanager
def served(store: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of `eo-batch serve`, which ends well when it is asked to."""
    (port,) = free_ports(1)
    argv = [sys.executable, "-c", "from eo_batch.cli import main; main()", "serve", "--store", store, f"--port={port}"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=os.environ | dict(env or {}))
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: process.poll() is not None or answers(url), "the server answers", 60, every_s=0.2)
        assert process.poll() is None, process.communicate()[1]
        yield url
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM), said
        assert "Traceback" not in said, said
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=5).text == "ok\n"
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def url(store: Store) -> Iterator[str]:
    with served(store.url) as found:
        yield found
