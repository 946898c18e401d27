"""moto's server mode: an imitation of S3 with bucket settings, from the package `moto`."""

from __future__ import annotations

import importlib.util
import sys
import urllib.request
from pathlib import Path

from tests.servers.shared import Home, Note, Unavailable, free_ports


def start(home: Home, data: Path) -> Note:
    """Start it, with its data in memory. It accepts any credentials."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        raise Unavailable("moto's server is missing: pip install 'moto[s3,server]'")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    home.wait("moto", home.spawn("moto", argv), lambda: _answers(url))
    keys = {"AWS_ACCESS_KEY_ID": "moto", "AWS_SECRET_ACCESS_KEY": "moto-secret"}
    return Note(url, {"AWS_ENDPOINT_URL": url, "AWS_REGION": "eu-central-1", **keys})


def _answers(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/moto-api/", timeout=2) as answer:
        return bool(answer.status == 200)
