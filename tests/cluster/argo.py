"""Argo Workflows as the cluster has it: wherever it is installed, with TLS or without."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.cluster.kube import forwarded, kubectl, wait_for

_NAMES = ("argo-server", "argo-workflows-server")
"""What Argo's own manifests and its Helm chart call the server's Service."""
_PORT = 2746
_CONTROLLER = "app=workflow-controller"


@dataclass(frozen=True)
class Argo:
    """An installation."""

    namespace: str
    service: str
    """Name of its server's Service."""
    scheme: str
    """`https` where the server speaks TLS."""

    @property
    def inside(self) -> str:
        """Address of its server for pods."""
        return f"{self.scheme}://{self.service}.{self.namespace}:{_PORT}"

    @contextmanager
    def outside(self) -> Iterator[str]:
        """The same for this process."""
        with forwarded(self.namespace, f"service/{self.service}", _PORT) as address:
            wait_for(lambda: _speaks(f"{self.scheme}://{address}"), "Argo's server answers")
            yield f"{self.scheme}://{address}"

    def controllers(self) -> list[dict[str, Any]]:
        """Pods of its controller."""
        found: list[dict[str, Any]] = json.loads(kubectl("get", "pods", "-A", "-l", _CONTROLLER, "-o", "json"))["items"]
        assert found, f"Argo's controller is a pod with the label {_CONTROLLER}"
        return found

    def restart(self) -> None:
        """End its controller, which Kubernetes starts again."""
        for pod in self.controllers():
            kubectl("delete", "pod", "-n", pod["metadata"]["namespace"], pod["metadata"]["name"], "--wait=false")

    def executor(self) -> str:
        """The image of its own containers in the pods of workflows, as its controller was told."""
        (container,) = self.controllers()[0]["spec"]["containers"]
        args = container.get("args", [])
        if "--executor-image" in args:
            return str(args[args.index("--executor-image") + 1])
        return str(container["image"]).replace("workflow-controller", "argoexec")


@cache
def argo_here() -> Argo:
    """The cluster's. Skips where it has none."""
    services = json.loads(kubectl("get", "services", "-A", "-o", "json"))["items"]
    found = [service["metadata"] for service in services if service["metadata"]["name"] in _NAMES]
    if not found:
        pytest.skip(f"the cluster has no Argo Workflows: no Service is called {' or '.join(_NAMES)}")
    space, name = found[0]["namespace"], found[0]["name"]
    with forwarded(space, f"service/{name}", _PORT) as address:
        wait_for(lambda: _speaks(f"https://{address}") or _speaks(f"http://{address}"), "Argo's server answers")
        return Argo(space, name, "https" if _speaks(f"https://{address}") else "http")


def _speaks(url: str) -> bool:
    """Whether a server answers at an address, by whatever code but that it wants TLS."""
    argv = ["curl", "--silent", "--insecure", "--max-time", "5", "--write-out", "%{http_code}", f"{url}/api/v1/info"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return not said.endswith("000") and "HTTP request to an HTTPS server" not in said
