"""The one door to the Kubernetes API: objects go in and come out as plain JSON, errors are those of `core.errors`."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar

import kubernetes
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from eo_batch.core.errors import ClusterDown, ClusterRefused
from eo_batch.core.placement import Cluster
from eo_batch.runners.manifests import Manifest

T = TypeVar("T")

# Which of its functions have types, and which, differs between the client's versions.
client: Any = kubernetes.client
config: Any = kubernetes.config

_TIMEOUT_S = (5.0, 30.0)
"""Seconds to connect, and between two bytes of an answer."""
_PAGE = 500
"""Objects in one answer to a listing."""
_MAY_NOT = re.compile(r'User ".*" cannot ')
"""What the API server says where a role is missing; it answers with the same code where a quota is exceeded."""


@dataclass(frozen=True)
class Kind:
    """A kind of object in a namespace."""

    group: str
    """API group; empty for the core."""
    version: str
    plural: str
    """As in the API's paths."""
    of: str
    """What brings it."""
    name: str = ""
    """As the client names it; only for the core."""


JOB = Kind("batch", "v1", "jobs", "Kubernetes")
JOBSET = Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
WORKFLOW = Kind("argoproj.io", "v1alpha1", "workflows", "Argo Workflows")
DASK_CLUSTER = Kind("kubernetes.dask.org", "v1", "daskclusters", "the Dask operator")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Kubernetes")
QUEUES = tuple(Kind("kueue.x-k8s.io", version, "localqueues", "Kueue") for version in ("v1beta2", "v1beta1"))
WORKLOADS = tuple(Kind("kueue.x-k8s.io", version, "workloads", "Kueue") for version in ("v1beta2", "v1beta1"))
POD = Kind("", "v1", "pods", "Kubernetes", "pod")
EVENT = Kind("", "v1", "events", "Kubernetes", "event")
SECRET = Kind("", "v1", "secrets", "Kubernetes", "secret")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "Kubernetes", "service_account")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Kubernetes")
CONFIG_MAP = Kind("", "v1", "configmaps", "Kubernetes", "config_map")

STARTED = (WORKFLOW, DASK_CLUSTER, JOBSET, JOB, CONFIG_MAP, POD)
"""Everything that a run starts, owners before what they own."""


@dataclass(frozen=True)
class Kube:
    """A namespace of a cluster. Every method raises ClusterDown where the API does not answer, and ClusterRefused
    where it says no."""

    namespace: str
    _client: Any

    def get(self, kind: Kind, name: str) -> Manifest | None:
        """An object; None if it, or its kind, is not there."""
        with self._errors("get", kind, name):
            try:
                if kind.group:
                    return _object(self._custom.get_namespaced_custom_object(*self._path(kind), name, **_limits()))
                return self._core("read", kind, name)
            except ApiException as error:
                if error.status == 404:
                    return None
                raise

    def list(
        self, kind: Kind, labels: str = "", fields: str = "", most: int | None = None, absent_ok: bool = False
    ) -> list[Manifest]:
        """Objects by label and field selector, `most` of them at most. With `absent_ok` a kind that the cluster does
        not have, or that we may not list, has no objects."""
        found: list[Manifest] = []
        token = ""
        with self._errors("list", kind):
            while most is None or len(found) < most:
                size = _PAGE if most is None else min(_PAGE, most - len(found))
                query = {"label_selector": labels, "field_selector": fields, "limit": size, "_continue": token}
                asked = {key: value for key, value in query.items() if value}
                try:
                    page = self._page(kind, asked)
                except ApiException as error:
                    if absent_ok and error.status in (403, 404):
                        return []
                    if error.status == 410 and token:  # the list is too old to go on with
                        found, token = [], ""
                        continue
                    raise
                found += page.get("items") or []
                token = page.get("metadata", {}).get("continue") or ""
                if not token:
                    break
        return found

    def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Create an object; names are unique, so that one that is there was made by this call before its answer was
        lost."""
        name = manifest["metadata"]["name"]
        with self._errors("create", kind, name):
            try:
                if kind.group:
                    return _object(
                        self._custom.create_namespaced_custom_object(*self._path(kind), manifest, **_limits())
                    )
                return self._core("create", kind, manifest)
            except ApiException as error:
                there = self.get(kind, name) if error.status == 409 else None
                if there is None:
                    raise
                return there

    def replace(self, kind: Kind, manifest: Manifest) -> Manifest | None:
        """Write an object of a named group over itself; None if it has changed since it was read."""
        with self._errors("update", kind, manifest["metadata"]["name"]):
            try:
                name = manifest["metadata"]["name"]
                answer = self._custom.replace_namespaced_custom_object(*self._path(kind), name, manifest, **_limits())
            except ApiException as error:
                if error.status == 409:
                    return None
                raise
            return _object(answer)

    def annotate(self, kind: Kind, name: str, key: str, value: str) -> None:
        """Set an annotation of an object of a named group; one that is not there any more is no error."""
        change = {"metadata": {"annotations": {key: value}}}
        with self._errors("annotate", kind, name):
            try:
                self._custom.patch_namespaced_custom_object(*self._path(kind), name, change, **_limits())
            except ApiException as error:
                if error.status != 404:
                    raise

    def delete(
        self,
        kind: Kind,
        name: str,
        propagation: Literal["Background", "Foreground"] = "Background",
        **preconditions: str,
    ) -> bool:
        """Delete an object, and all that it owns; False if it is not there, or does not meet a precondition (`uid`,
        `resourceVersion`) any more."""
        body: Manifest = {"propagationPolicy": propagation}
        if preconditions:
            body["preconditions"] = preconditions
        with self._errors("delete", kind, name):
            try:
                if kind.group:
                    self._custom.delete_namespaced_custom_object(*self._path(kind), name, body=body, **_limits())
                else:
                    self._core("delete", kind, name, body=body)
            except ApiException as error:
                if error.status == 404 or (error.status == 409 and preconditions):
                    return False
                raise
        return True

    def may(self, verb: str, kind: Kind) -> bool:
        """Whether we may do something with all objects of a kind in this namespace."""
        attributes = {"namespace": self.namespace, "verb": verb, "group": kind.group, "resource": kind.plural}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        with self._errors("ask for permissions on", kind):
            answer = self._custom.create_cluster_custom_object(
                "authorization.k8s.io", "v1", "selfsubjectaccessreviews", review, **_limits()
            )
        return bool(_object(answer)["status"]["allowed"])

    def now(self) -> datetime:
        """The API server's clock: those of drivers need not agree with it."""
        with self._errors("ask for the version of", None):
            answer = client.VersionApi(self._client).get_code(_preload_content=False, **_limits())
        return parsedate_to_datetime(answer.headers["Date"])

    def served(self, *kinds: Kind) -> Kind | None:
        """The first of these kinds that the cluster has, None if it has none."""
        for kind in kinds:
            with self._errors("look for", kind):
                try:
                    found = self._custom.get_api_resources(
                        kind.group, kind.version, _preload_content=False, **_limits()
                    )
                except ApiException as error:
                    if error.status == 404:
                        continue
                    raise
            if kind.plural in {resource["name"] for resource in json.loads(found.data)["resources"]}:
                return kind
        return None

    def token(self, account: str) -> str:
        """A bearer token for servers beside the API that ask it who we are: our own, or, where a certificate says who
        we are, an hour's token of a service account of this namespace."""
        found = self._client.configuration.get_api_key_with_prefix("BearerToken") or (
            self._client.configuration.get_api_key_with_prefix("authorization")  # as clients before 36 call it
        )
        if found is not None:
            return str(found).split()[-1]
        with self._errors("create a token of", SERVICE_ACCOUNT, account):
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
            answer = client.CoreV1Api(self._client).create_namespaced_service_account_token(
                account, self.namespace, review, _preload_content=False, **_limits()
            )
        return str(json.loads(answer.data)["status"]["token"])

    @property
    def _custom(self) -> Any:
        return client.CustomObjectsApi(self._client)

    def _path(self, kind: Kind) -> tuple[str, str, str, str]:
        return kind.group, kind.version, self.namespace, kind.plural

    def _page(self, kind: Kind, asked: dict[str, Any]) -> Manifest:
        if kind.group:
            return _object(self._custom.list_namespaced_custom_object(*self._path(kind), **asked, **_limits()))
        call = getattr(client.CoreV1Api(self._client), f"list_namespaced_{kind.name}")
        return _object(json.loads(call(self.namespace, _preload_content=False, **asked, **_limits()).data))

    def _core(self, verb: str, kind: Kind, what: Any, **more: Any) -> Manifest:
        call = getattr(client.CoreV1Api(self._client), f"{verb}_namespaced_{kind.name}")
        arguments = (self.namespace, what) if verb == "create" else (what, self.namespace)
        return _object(json.loads(call(*arguments, _preload_content=False, **more, **_limits()).data))

    @contextmanager
    def _errors(self, verb: str, kind: Kind | None, name: str = "") -> Iterator[None]:
        what = f"{verb} {kind.plural if kind else 'the cluster'}{f'/{name}' if name else ''}"
        where = f"in namespace {self.namespace}"
        try:
            yield
        except ApiException as error:
            said = _said(error)
            if error.status == 401:
                raise ClusterRefused(
                    f"the cluster does not know us: can't {what} {where}: {said}; renew the kube config's credentials"
                ) from error
            if error.status == 404 and kind is not None and not name:
                raise ClusterRefused(f"the cluster has no {kind.plural}.{kind.group}: install {kind.of}") from error
            if error.status is not None and 400 <= error.status < 500 and error.status not in (408, 410, 429):
                hint = "; bind us to the chart's role for drivers" if _MAY_NOT.search(said) else ""
                raise ClusterRefused(f"the cluster refuses to {what} {where}: {said}{hint}") from error
            raise ClusterDown(f"the cluster failed to {what} {where}: {error.status} {said}; try again") from error
        except (HTTPError, OSError) as error:
            host = self._client.configuration.host
            raise ClusterDown(
                f"the cluster at {host} does not answer ({type(error).__name__}); can't {what} {where}: check the "
                "connection, or `kubectl get nodes`"
            ) from error


def insist(act: Callable[[], T], most_s: float = 30.0) -> T:
    """Do something again while the cluster does not answer, as an API server that restarts; for `most_s` at most."""
    deadline = time.monotonic() + most_s
    while True:
        try:
            return act()
        except ClusterDown:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def connect(cluster: Cluster) -> Kube:
    """The namespace of a placement: by the kube config, or from within a pod by its service account.

    Raises ClusterRefused where there is neither.
    """
    found = client.Configuration()
    try:
        config.load_kube_config(context=cluster.context, client_configuration=found)
    except (ConfigException, OSError) as error:
        if cluster.context is not None:
            raise ClusterRefused(
                f"cluster.context={cluster.context}: {_line(error)}; `kubectl config get-contexts`"
            ) from error
        try:
            config.load_incluster_config(client_configuration=found)
        except ConfigException:
            raise ClusterRefused(
                f"no cluster to talk to: {_line(error)}; set KUBECONFIG, or check with `kubectl config current-context`"
            ) from error
    return Kube(cluster.namespace, client.ApiClient(found))


def _limits() -> dict[str, Any]:
    return {"_request_timeout": _TIMEOUT_S}


def _object(answer: Any) -> Manifest:
    assert isinstance(answer, dict)
    return answer


def _said(error: ApiException) -> str:
    """What the API server said, in one line."""
    try:
        text = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        text = error.body or error.reason or "no reason given"
    return _line(text)


def _line(text: object) -> str:
    return " ".join(str(text).split())[:1000]
