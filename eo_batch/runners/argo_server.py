"""The one door to Argo's server: workflows are submitted, looked at and ended through its Python client."""

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import argo_workflows
import urllib3
from argo_workflows.api.workflow_service_api import WorkflowServiceApi
from argo_workflows.exceptions import ApiException
from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_create_request import (
    IoArgoprojWorkflowV1alpha1WorkflowCreateRequest as CreateRequest,
)
from urllib3.exceptions import HTTPError, InsecureRequestWarning, MaxRetryError, SSLError

from eo_batch.core.errors import ClusterDown, ClusterRefused
from eo_batch.core.placement import ArgoServer
from eo_batch.runners.book import one_line
from eo_batch.runners.kube import Kube
from eo_batch.runners.manifests import Manifest

_TIMEOUT_S = (5.0, 30.0)
"""Seconds to connect, and between two bytes of an answer."""


@dataclass
class Server:
    """Argo's server, for the workflows of one namespace. Every method raises ClusterDown where it does not answer, and
    ClusterRefused where it says no."""

    kube: Kube
    argo: ArgoServer
    _token: str = field(default="", repr=False)

    def submit(self, workflow: Manifest) -> str:
        """Submit a workflow; its uid. Names are unique: one that is there was submitted by this call, before its answer
        was lost."""
        name = workflow["metadata"]["name"]
        body = CreateRequest(workflow=workflow, _check_type=False)
        try:
            answer = self._ask("submit", name, lambda api, **how: api.create_workflow(self.kube.namespace, body, **how))
        except ClusterRefused as error:
            if _status(error) != 409:
                raise
            there = self.look(name, "metadata")
            if there is None:
                raise
            return str(there["metadata"]["uid"])
        return str(answer["metadata"]["uid"])

    def look(self, name: str, fields: str) -> Manifest | None:
        """Some fields of a workflow, named with dots and commas; None if it is not there."""
        with suppress(_NotThere):
            return self._ask(
                "get", name, lambda api, **how: api.get_workflow(self.kube.namespace, name, fields=fields, **how)
            )
        return None

    def delete(self, name: str) -> None:
        """Cancel a workflow: delete it, and all that it owns. One that is not there is no error."""
        with suppress(_NotThere):
            self._ask("delete", name, lambda api, **how: api.delete_workflow(self.kube.namespace, name, **how))

    def url(self, name: str) -> str:
        """Where people see a workflow."""
        return f"{(self.argo.ui or self.argo.url).rstrip('/')}/workflows/{self.kube.namespace}/{name}"

    def _ask(self, verb: str, name: str, call: Callable[..., Any]) -> Manifest:
        what = f"can't {verb} workflow {self.kube.namespace}/{name}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InsecureRequestWarning)  # verify_tls says that it is meant
                try:
                    return self._call(call)
                except ApiException as error:
                    if error.status != 401 or not self._token:
                        raise
                    self._token = ""  # it may have expired
                    return self._call(call)
        except ApiException as error:
            raise self._refusal(what, error) from error
        except (HTTPError, OSError) as error:
            raise self._silence(what, error) from error

    def _call(self, call: Callable[..., Any]) -> Manifest:
        self._token = self._token or self.kube.token(self.argo.client_account)
        settings = argo_workflows.Configuration(host=self.argo.url.rstrip("/"), api_key={"BearerToken": self._token})
        settings.api_key_prefix["BearerToken"] = "Bearer"
        settings.verify_ssl = self.argo.verify_tls
        settings.retries = urllib3.Retry(connect=1, read=0, redirect=0, status=0)
        with argo_workflows.ApiClient(settings) as client:
            answer = call(WorkflowServiceApi(client), _preload_content=False, _request_timeout=_TIMEOUT_S)
            found = json.loads(answer.data or "{}")
        assert isinstance(found, dict)
        return found

    def _refusal(self, what: str, error: Any) -> Exception:
        said = _said(error)
        if error.status == 404:
            return _NotThere(f"{what}: {said}")
        if error.status == 401:
            return ClusterRefused(
                f"Argo's server at {self.argo.url} does not know us: {what}; log in to the cluster again"
            )
        if error.status is None or error.status >= 500 or error.status in (408, 429):
            return ClusterDown(f"Argo's server at {self.argo.url} failed: {what}: {error.status} {said}")
        hint = "; use https:// in argo.url" if "HTTP request to an HTTPS server" in said else ""
        return ClusterRefused(f"Argo's server at {self.argo.url} refuses: {what}: {said}{hint}")

    def _silence(self, what: str, error: Exception) -> Exception:
        reason = error.reason if isinstance(error, MaxRetryError) else error
        if isinstance(reason, SSLError):
            return ClusterRefused(
                f"the certificate of Argo's server at {self.argo.url} is not valid ({one_line(str(reason))}): {what}; "
                "where it is meant to be so, say argo.verify_tls: false, and if it speaks no TLS, http:// in argo.url"
            )
        return ClusterDown(
            f"Argo's server at {self.argo.url} does not answer ({type(reason).__name__}): {what}; from outside of the "
            "cluster, `kubectl -n argo port-forward service/argo-server 2746` and argo.url: https://127.0.0.1:2746"
        )


class _NotThere(ClusterRefused):
    """The workflow is not there."""


def _status(error: BaseException) -> int | None:
    return getattr(error.__cause__, "status", None)


def _said(error: Any) -> str:
    """What the server said, in one line."""
    try:
        text = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        text = error.body or error.reason or "no reason given"
    return one_line(text.decode() if isinstance(text, bytes) else str(text))
