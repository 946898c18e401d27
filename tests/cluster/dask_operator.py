"""The Dask operator, by its own chart and from our image, as the chart's README has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask_kubernetes

from tests.cluster.chart import helm
from tests.cluster.kube import kubectl

CHART = Path(dask_kubernetes.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator"
_OPERATOR = ["tini", "--", "kopf", "run", "-m", "dask_kubernetes.operator.controller"]
_TEMPORARY = {"volumes": [{"name": "tmp", "emptyDir": {}}], "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}


def dask_kinds() -> None:
    """Make the cluster know the operator's kinds, as its chart does when it is installed."""
    folder = CHART / "crds"
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder))
    kubectl("wait", "--for=condition=established", "-f", str(folder), "--timeout=60s")


@contextmanager
def dask_operator(space: str, image: str, watched: str) -> Iterator[None]:
    """The operator in a namespace, for clusters in `watched`, which need not be there yet; `*` stands for anything."""
    name, _, tag = image.rpartition(":")
    values: dict[str, Any] = {
        "image": {"name": name, "tag": tag},
        "kopfArgs": [f"--namespace={watched}"],
        "podSecurityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        **_TEMPORARY,
    }
    argv = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    helm("upgrade", "--install", space, str(CHART), "-n", space, *argv)
    try:
        container = "/spec/template/spec/containers/0"
        # The rollout is to wait until it works, and its liveness probe is too quick for a busy machine.
        patch = [
            {"op": "add", "path": f"{container}/command", "value": _OPERATOR},
            {
                "op": "add",
                "path": f"{container}/readinessProbe",
                "value": {"httpGet": {"path": "/healthz", "port": 8080}},
            },
            {"op": "add", "path": f"{container}/livenessProbe/initialDelaySeconds", "value": 120},
        ]
        deployment = f"deployment/{space}-dask-kubernetes-operator"
        kubectl("patch", deployment, "-n", space, "--type=json", "-p", json.dumps(patch))
        kubectl("rollout", "status", deployment, "-n", space, "--timeout=120s", timeout_s=150)
        yield
    finally:
        helm("uninstall", space, "-n", space, "--wait", "--timeout", "2m")
