"""Other ways to the API server: a line that can be cut, as when the server restarts, and other people's credentials."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.kube import kubectl


class Line:
    """Passes bytes on from a loopback port to a server, unless it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._is_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port

    def cut(self) -> None:
        """End all connections; new ones end at once."""
        self._is_cut.set()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut.clear()

    def close(self) -> None:
        """End all of it."""
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:
                return
            if self._is_cut.is_set():
                here.close()
                continue
            there = socket.create_connection(self._target)
            self._open += [here, there]
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def cuttable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """A line to the current context's API server, through which every client leads that is made in the block."""
    config = _config()
    cluster = config["clusters"][0]["cluster"]
    server = urlsplit(cluster["server"])
    assert server.hostname is not None
    line = Line(server.hostname, server.port or 443)
    cluster |= {"server": f"https://127.0.0.1:{line.port}", "tls-server-name": server.hostname}
    try:
        with _used(config, folder, monkeypatch):
            yield line
    finally:
        line.close()


@contextmanager
def as_account(space: str, account: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every client that is made in the block is a service account of a namespace."""
    with _used(_config_of(space, account), folder, monkeypatch):
        yield


def kubeconfig(space: str, account: str, folder: Path) -> Path:
    """A kube config that is a service account of a namespace."""
    path = folder / f"{account}.json"
    path.write_text(json.dumps(_config_of(space, account)))
    return path


def _config_of(space: str, account: str) -> dict[str, Any]:
    config = _config()
    config["users"][0]["user"] = {"token": kubectl("create", "token", account, "-n", space).strip()}
    return config


def _config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json"))
    return found


@contextmanager
def _used(config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    with monkeypatch.context() as patch:
        # The client looks at KUBECONFIG once, when it is imported.
        patch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        yield
