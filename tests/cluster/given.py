"""What tests on a cluster are given: images and an S3 server."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster.kube import get
from tests.servers.objects import ObjectServer


@dataclass(frozen=True)
class Images:
    """Images that the nodes have."""

    cpu: str
    gpu: str
    servers: str


@dataclass(frozen=True)
class S3:
    """The S3 server that pods and the tests share."""

    server: ObjectServer
    """As it is reached from here."""
    inside: str
    """Its endpoint as pods reach it."""
    namespace: str

    @property
    def nodes(self) -> frozenset[str]:
        """Where it runs."""
        return frozenset(pod["spec"]["nodeName"] for pod in get(self.namespace, "pods"))
