"""Looks for the store's keys where they must not be: objects of the API, logs of pods, what a run writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from eo_batch.io.store import parse_store
from tests.cluster.kube import kubectl
from tests.servers.seaweed import SECRET_KEY

_KINDS = "pods,jobs,configmaps,leases,events,deployments,serviceaccounts,services"
_OWN_KINDS = ("workflows.argoproj.io", "jobsets.jobset.x-k8s.io", "daskclusters.kubernetes.dask.org")


@contextmanager
def no_secret_shown(space: str) -> Iterator[None]:
    """Look at a namespace while the block runs. Raises AssertionError if a manifest or a log held the secret key."""
    kinds = ",".join([_KINDS, *(kind for kind in _OWN_KINDS if kind in _served())])
    ended = threading.Event()
    found: list[str] = []
    read = 0

    def look() -> None:
        nonlocal read
        while True:
            last = ended.wait(5.0)
            manifests = kubectl("get", kinds, "-n", space, "-o", "yaml", "--show-managed-fields")
            selector = ("-l", "eo-batch.io/run", "--all-containers", "--tail=-1", "--ignore-errors", "--prefix")
            logs = kubectl("logs", "-n", space, *selector, "--max-log-requests=50")
            read += len(logs)
            for text in (manifests, logs):
                found.extend(line for line in text.splitlines() if SECRET_KEY in line)
            if last:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=60)
    assert not thread.is_alive()
    assert read, "nobody saw a log"
    assert found == []


def check_store(url: str) -> None:
    """Raises AssertionError if an object of a store holds the secret key."""
    store = parse_store(url)
    assert [key for key in store.list() if SECRET_KEY.encode() in store.get(key)] == []


def _served() -> str:
    return kubectl("api-resources", "-o", "name")
