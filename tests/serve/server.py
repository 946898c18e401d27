"""The server of `eo-batch serve`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests

from tests.cluster.kube import wait_for
from tests.servers.shared import free_ports


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
