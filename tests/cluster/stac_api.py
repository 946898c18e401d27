"""A STAC API as a pod: stac-fastapi over pgstac, with a PostgreSQL of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.kube import CONTAINER_SECURITY, POD_SECURITY, Manifest, apply, forwarded, kubectl
from tests.servers.stac_api import StacServer

_PORT = 8080
_DATABASE_PORT = 5432
_DATABASE = """
initdb -D /data/pg -U postgres -A trust -E UTF8 --no-sync
exec postgres -D /data/pg -k /tmp -h 127.0.0.1 -c fsync=off
"""
_API = f"""
until pg_isready -q -h 127.0.0.1; do sleep 0.2; done
createdb -h 127.0.0.1 -U postgres pgstac
pypgstac migrate --dsn postgresql://postgres@127.0.0.1:{_DATABASE_PORT}/pgstac
exec uvicorn stac_fastapi.pgstac.app:create_app --factory --host 0.0.0.0 --port {_PORT} --log-level warning
"""


@contextmanager
def stac_server(space: str, image: str) -> Iterator[StacServer]:
    """Start it in a namespace; the addresses that it has here are those of forwarded ports."""
    apply(space, *_manifests(image))
    kubectl("rollout", "status", "-n", space, "deployment/stac", "--timeout=180s", timeout_s=200)
    with forwarded(space, "service/stac", _PORT) as api, forwarded(space, "service/stac", _DATABASE_PORT) as database:
        yield StacServer(f"http://{api}", f"postgresql://postgres@{database}/pgstac")


def inside(space: str) -> str:
    """Its root for pods, in any namespace."""
    return f"http://stac.{space}.svc:{_PORT}"


def _manifests(image: str) -> list[Manifest]:
    database = {"PGHOST": "127.0.0.1", "PGPORT": str(_DATABASE_PORT), "PGUSER": "postgres", "PGPASSWORD": "none"}
    settings = {**database, "PGDATABASE": "pgstac", "ENABLE_TRANSACTIONS_EXTENSIONS": "FALSE"}
    labels = {"app": "stac"}
    pod = {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {**POD_SECURITY, "runAsUser": 10001, "fsGroup": 10001},
        "containers": [_container("database", image, _DATABASE, {}), _container("api", image, _API, settings)],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }
    pod["containers"][1]["readinessProbe"] = {"httpGet": {"path": "/collections", "port": _PORT}, "periodSeconds": 2}
    ports = [{"name": "api", "port": _PORT}, {"name": "database", "port": _DATABASE_PORT}]
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "stac"}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "stac"},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def _container(name: str, image: str, script: str, env: dict[str, str]) -> dict[str, object]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["sh", "-ec", script],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
