"""SeaweedFS as a pod: what pods and the tests reach as one S3 server."""

from __future__ import annotations

import json
import time
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
    wait_for,
)
from tests.servers.objects import ObjectServer
from tests.servers.seaweed import ACCESS_KEY, SECRET_KEY, users

_PORT = 8333


@contextmanager
def s3_server(space: str, image: str) -> Iterator[ObjectServer]:
    """Start it in a namespace; the address that it has here is that of a forwarded port."""
    apply(space, *_manifests(image))
    kubectl("rollout", "status", "-n", space, "deployment/s3", "--timeout=120s", timeout_s=150)
    with forwarded(space, "service/s3", _PORT) as address:
        url = f"http://{address}"
        env = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }
        server = ObjectServer("s3", url, env)
        wait_for(lambda: _stores(server), "the S3 server stores an object")
        yield server


def inside(space: str) -> str:
    """The server's address for pods, in any namespace."""
    return f"http://s3.{space}.svc:{_PORT}"


def secret(name: str) -> Manifest:
    """A Secret with the keys to the server, as its owner would make it."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys}


def restart(space: str, server: ObjectServer) -> float:
    """Kill the server, which starts again over the same data; seconds until it stores again."""
    begun = time.monotonic()
    kill_program(space, "deployment/s3")
    wait_for(lambda: _stores(server), "the S3 server stores an object again")
    return time.monotonic() - begun


def _stores(server: ObjectServer) -> bool:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.boto(Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}))
    try:
        client.create_bucket(Bucket="ready")
    except client.exceptions.BucketAlreadyOwnedByYou:
        pass
    except (BotoCoreError, ClientError):
        return False
    try:
        client.put_object(Bucket="ready", Key="ready", Body=b"ready")
    except (BotoCoreError, ClientError):
        return False
    return True


def _manifests(image: str) -> list[Manifest]:
    labels = {"app": "s3"}
    argv = ["weed", "server", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-dir=/data", "-s3", f"-s3.port={_PORT}"]
    argv += ["-s3.config=/config/users.json", "-volume.max=1000", "-master.volumeSizeLimitMB=64"]
    argv += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.port.https=0"]
    container = {
        "name": "weed",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        **starting_again(*argv),
        "env": [{"name": "WEED_MASTER_VOLUME_GROWTH_COPY_1", "value": "1"}],
        "ports": [{"containerPort": _PORT}],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
        "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": "/config"},
        ],
    }
    pod = {
        "enableServiceLinks": False,  # S3_PORT=tcp://… would be read as a setting
        "automountServiceAccountToken": False,
        "securityContext": {**POD_SECURITY, "runAsUser": 10001, "fsGroup": 10001},
        # A node that a test kills must not be the one that holds the data.
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": _FIRST_NODE}},
        "containers": [container],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "config", "configMap": {"name": "s3"}},
        ],
    }
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "s3"},
            "data": {"users.json": json.dumps(users())},
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "s3"}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s3"},
            "spec": {"selector": labels, "ports": [{"port": _PORT}]},
        },
    ]


_FIRST_NODE = [
    {
        "weight": 100,
        "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-a"]}]},
    }
]
