"""A Prefect server as a pod."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.kube import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    Manifest,
    apply,
    forwarded,
    kill_program,
    kubectl,
    starting_again,
)
from tests.servers.prefect import PrefectServer

_PORT = 4200


@contextmanager
def prefect_server(space: str, image: str, home: str) -> Iterator[PrefectServer]:
    """Start it in a namespace, where it is `http://prefect:4200/api`. `home` is a folder for its clients here."""
    apply(space, *_manifests(image))
    kubectl("rollout", "status", "-n", space, "deployment/prefect", "--timeout=180s", timeout_s=200)
    with forwarded(space, "service/prefect", _PORT) as address:
        url = f"http://{address}/api"
        env = {"PREFECT_HOME": home, "PREFECT_API_URL": url, "PREFECT_CLI_PROMPT": "false", "DO_NOT_TRACK": "1"}
        yield PrefectServer(url, env)


def inside(space: str) -> str:
    """The address of its API for pods, in any namespace."""
    return f"http://prefect.{space}.svc:{_PORT}/api"


def restart(space: str) -> None:
    """Kill the server, which starts again over the same database."""
    kill_program(space, "deployment/prefect")


def _manifests(image: str) -> list[Manifest]:
    container = {
        "name": "server",
        "image": image,
        **starting_again("prefect", "server", "start", "--host", "0.0.0.0", "--no-ui"),
        "env": [
            {"name": "PREFECT_SERVER_ANALYTICS_ENABLED", "value": "false"},
            {"name": "PREFECT_API_URL", "value": f"http://127.0.0.1:{_PORT}/api"},
        ],
        "readinessProbe": {"httpGet": {"path": "/api/health", "port": _PORT}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
        "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {**POD_SECURITY, "runAsUser": 10001},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    labels = {"app": "prefect"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "prefect"},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "prefect"},
            "spec": {"selector": labels, "ports": [{"port": _PORT}]},
        },
    ]
