"""The current kube context, as tests use it: kubectl, manifests, forwarded ports."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from kubernetes.client import ApiException, CoreV1Api
from kubernetes.config import new_client_from_config
from kubernetes.stream import stream

from tests.servers.shared import free_ports

Manifest = Mapping[str, Any]

RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}
"""Labels of a namespace that admits restricted pods only."""
POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_AUTH = ["BearerToken"]
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def kubectl(*argv: str, manifests: Sequence[Manifest] = (), timeout_s: float = 120) -> str:
    """What kubectl printed. Raises AssertionError with what it complained about."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}) if manifests else None
    done = subprocess.run(
        ["kubectl", *argv], input=text, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, f"kubectl {' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


def get(namespace: str, kind: str, *argv: str) -> list[dict[str, Any]]:
    """Objects of a kind in a namespace."""
    found: list[dict[str, Any]] = json.loads(kubectl("get", kind, "-n", namespace, "-o", "json", *argv))["items"]
    return found


def names(namespace: str, *kinds: str) -> list[str]:
    """Names of the objects of some kinds."""
    return [found["metadata"]["name"] for kind in kinds for found in get(namespace, kind)]


def everything(namespace: str) -> set[str]:
    """Names of all objects in a namespace but pods, and the events that tell of them."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith(("events", "pods")))
    return set(kubectl("get", wanted, "-n", namespace, "-o", "name", "--ignore-not-found").split())


def pods(namespace: str, labels: str) -> list[dict[str, Any]]:
    """Pods, sooner than by `get`: kubectl takes its time to start, and some pods live for two seconds."""
    answer = _core().list_namespaced_pod(namespace, label_selector=labels, _preload_content=False)
    found: list[dict[str, Any]] = json.loads(answer.data)["items"]
    return found


def raw(path: str) -> str:
    """What the API server answers at a path, as quickly. A kind that is gone by now has no objects."""
    client = _core().api_client
    request = client.param_serialize("GET", path, header_params={"Accept": "application/json"}, auth_settings=_AUTH)
    answer = client.call_api(*request, _request_timeout=30)
    text: str = answer.read().decode()
    if answer.status in (404, 405):
        return '{"items": []}'
    assert answer.status == 200, f"{path}: {text}"
    return text


def delete_pod(namespace: str, name: str, grace_s: int | None) -> None:
    """Delete a pod, as quickly; `grace_s` None is its own grace period. One that is gone stays so."""
    try:
        _core().delete_namespaced_pod(name, namespace, grace_period_seconds=grace_s)
    except ApiException as error:
        if error.status != 404:
            raise


def said_in_pod(namespace: str, name: str, container: str, *argv: str) -> str:
    """What a command in a container said, as quickly; nothing where the container does not run, or not yet."""
    try:
        said: str = stream(
            _streaming().connect_get_namespaced_pod_exec,
            name,
            namespace,
            container=container,
            command=list(argv),
            stdout=True,
            stderr=True,
            _request_timeout=30,
        )
    except ApiException as error:
        if "Handshake status 403" in str(error.reason):
            raise
        return ""
    return said


def starting_again(*argv: str) -> Manifest:
    """Fields of a container whose program is started again at once however often it is killed: Kubernetes itself would
    wait longer each time.
    """
    script = """trap 'kill $!; wait; exit' TERM; while true; do "$@" & wait $!; sleep 1; done"""
    return {"command": ["sh", "-c", script, "sh"], "args": list(argv)}


def kill_program(namespace: str, target: str) -> None:
    """Kill all programs of such a container at once, sometimes with the shell that does it."""
    argv = ["kubectl", "exec", "-n", namespace, target, "--", "sh", "-c", "kill -9 -1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, 128 + signal.SIGKILL), f"{' '.join(argv)}: {done.stderr.strip()}"


@cache
def _core() -> CoreV1Api:
    return CoreV1Api(new_client_from_config())


@cache
def _streaming() -> CoreV1Api:
    """A client of its own: while one streams, it can do nothing else."""
    return CoreV1Api(new_client_from_config())


def nodes() -> set[str]:
    """Names of the nodes that take pods; simulated ones don't run them."""
    found = json.loads(kubectl("get", "nodes", "-l", "!kwok.x-k8s.io/node,type!=kwok", "-o", "json"))["items"]
    return {node["metadata"]["name"] for node in found}


def apply(namespace: str, *manifests: Manifest) -> None:
    """Create or change objects."""
    kubectl("apply", "-n", namespace, "-f", "-", manifests=manifests)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 120, every_s: float = 0.5) -> float:
    """Seconds until a condition held. Raises AssertionError if it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(every_s)
    return time.monotonic() - begun


@contextmanager
def namespace(name: str, labels: Mapping[str, str] = RESTRICTED) -> Iterator[str]:
    """A fresh namespace, which is deleted at the end. One that an aborted run left is deleted first."""
    _delete(name)
    kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=180s", timeout_s=200)
    metadata = {"name": name, "labels": dict(labels)}
    kubectl("create", "-f", "-", manifests=[{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
    try:
        yield name
    finally:
        _delete(name)


def _delete(name: str) -> None:
    """Delete a namespace, its Jobs first.

    Namespaces wait for their pods, and a Job with a limit for each index holds its last failed pods until it has
    created others, which no namespace admits that is being deleted: both would wait for ever.
    """
    kubectl("delete", "jobs", "-n", name, "--all", "--wait=false")
    kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@contextmanager
def forwarded(space: str, target: str, port: int) -> Iterator[str]:
    """A loopback address, `127.0.0.1:PORT`, that leads to a Service's port; a connection that breaks is made anew."""
    (here,) = free_ports(1)
    ended = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        while not ended.is_set():
            argv = ["kubectl", "port-forward", "-n", space, target, f"{here}:{port}"]
            running[:] = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
            running[0].wait()
            ended.wait(0.5)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{here}"
    finally:
        ended.set()
        for process in running:
            process.terminate()
        thread.join(timeout=10)
