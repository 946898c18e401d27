"""All that the ways to run a spec need: the chart, beside it a Prefect server and the Dask operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import prefect_server
from tests.cluster.argo import argo_here
from tests.cluster.chart import SMALL, Installed, installed
from tests.cluster.dask_operator import dask_operator
from tests.cluster.given import S3, Images
from tests.cluster.kube import get, namespace
from tests.servers.prefect import PrefectServer

_DEPLOYMENTS = "*/kubernetes"
"""Those of `prefect.yaml` that the tests ask for flow runs."""
_KINDS = ("jobs", "leases", "pods", "workflows.argoproj.io", "jobsets", "daskclusters.kubernetes.dask.org")


@dataclass(frozen=True)
class Place:
    """A release of the chart with all that the ways need."""

    release: Installed
    prefect: PrefectServer
    prefect_space: str
    """Its namespace."""
    dask_space: str
    """That of the Dask operator."""

    @property
    def beside(self) -> set[str]:
        """Namespaces of all that works for the release elsewhere."""
        argo = {pod["metadata"]["namespace"] for pod in argo_here().controllers()}
        return {self.prefect_space, self.dask_space, *argo}

    def left(self) -> list[str]:
        """What runs have in the namespace."""
        found = {kind: get(self.release.namespace, kind, "-l", "eo-batch.io/run") for kind in _KINDS}
        return [f"{kind} {thing['metadata']['name']}" for kind, things in found.items() for thing in things]


@contextmanager
def place_of(
    name: str,
    images: Images,
    s3: S3,
    folder: Path,
    pool: dict[str, Any] | None = None,
    control: dict[str, Any] | None = None,
) -> Iterator[Place]:
    """In a fresh namespace. `pool` is what all pools have beside their size, `control` where all but shards runs."""
    with ExitStack() as stack:
        operator = stack.enter_context(namespace(f"{name}-dask"))
        stack.enter_context(dask_operator(operator, images.cpu, name))  # the chart asks for its kinds
        space = stack.enter_context(namespace(f"{name}-prefect"))
        server = stack.enter_context(prefect_server.prefect_server(space, images.cpu, str(folder / "prefect")))
        small = {"requests": {"cpu": "20m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
        prefect = {"apiUrl": prefect_server.inside(space), "resources": small, "flowRun": {"resources": small}}
        more: dict[str, Any] = {
            "argo": {"enabled": True},
            "dask": {"enabled": True, "operatorNamespace": operator, "workers_min": 1, "workers_max": 2},
            "prefect": {"enabled": True, **prefect},
            "pools": {name: SMALL | (pool or {}) for name in ("cpu-spot", "gpu-train", "gpu-spot")},
            "control": control or {},
        }
        release = stack.enter_context(installed(name, images, s3, folder, more))
        said = server.command("--no-prompt", "deploy", "--name", _DEPLOYMENTS)
        assert said.code == 0, said.text
        yield Place(release, server, space, operator)
