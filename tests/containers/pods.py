"""Pods as the strictest cluster wants them: no rights, no root, no disk but an empty folder at /tmp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.cluster.kube import CONTAINER_SECURITY, POD_SECURITY, apply, get, kubectl, wait_for


@contextmanager
def pod(space: str, name: str, image: str, **containers: Sequence[str]) -> Iterator[str]:
    """A pod whose containers are named with their `args`; it is deleted at the end."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": POD_SECURITY,
            "containers": [_container(image, key, args) for key, args in containers.items()],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    apply(space, manifest)
    try:
        yield name
    finally:
        kubectl("delete", "pod", "-n", space, name, "--ignore-not-found", "--wait=false", "--grace-period=1")


def _container(image: str, name: str, args: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(args),
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def status(space: str, name: str) -> dict[str, Any]:
    """What the cluster says about a pod."""
    found: dict[str, Any] = get(space, "pods", "--field-selector", f"metadata.name={name}")[0]["status"]
    return found


def running(space: str, name: str) -> None:
    """Wait until a pod runs. Raises AssertionError where it does not within five minutes."""
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", space, "--timeout=300s", timeout_s=330)


def ended(space: str, name: str) -> dict[str, dict[str, Any]]:
    """How each container of a pod ended, once all did: exitCode, finishedAt."""
    wait_for(lambda: status(space, name).get("phase") in {"Succeeded", "Failed"}, f"the end of pod {name}", 300)
    return {found["name"]: found["state"]["terminated"] for found in status(space, name)["containerStatuses"]}


def inside(space: str, name: str, *argv: str, timeout_s: float = 300) -> str:
    """What a program printed that runs beside a pod's own. Raises AssertionError where it fails."""
    return kubectl("exec", "-n", space, name, "--", *argv, timeout_s=timeout_s)
