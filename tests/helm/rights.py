"""What each service account may do in Kubernetes, in the chart's own namespace: all of it."""

from __future__ import annotations

from collections.abc import Iterable

Right = tuple[str, str, str]
"""API group (empty for the core), resource (with the object's name where it is one), verb."""


def _rights(group: str, resource: str, verbs: str) -> set[Right]:
    return {(group, resource, verb) for verb in verbs.split()}


RUNNER: set[Right] = set()
WEB: set[Right] = set()
SWEEPER = _rights("coordination.k8s.io", "leases", "list delete")
SWEEPER_WITH = {"argo": _rights("argoproj.io", "workflows", "list patch")}
DRIVER = (
    _rights("coordination.k8s.io", "leases", "get list create update delete")
    | _rights("batch", "jobs", "get list watch create delete")
    | _rights("", "pods", "get list watch")
    | _rights("", "pods/log", "get")
    | _rights("", "events", "list")
    | _rights("", "serviceaccounts/eo-batch-runner", "get")
)
DRIVER_WITH = {
    "argo": _rights("argoproj.io", "workflows", "get list create patch delete")
    | _rights("argoproj.io", "workflowtemplates", "get")
    | _rights("", "serviceaccounts/eo-batch-workflow", "get"),
    "jobset": _rights("jobset.x-k8s.io", "jobsets", "get list watch create delete"),
    "dask": _rights("kubernetes.dask.org", "daskclusters", "get list create delete")
    | _rights("kubernetes.dask.org", "daskautoscalers", "get create update delete")
    | _rights("apps", "deployments", "list"),
    "kueue": _rights("kueue.x-k8s.io", "localqueues", "get list") | _rights("kueue.x-k8s.io", "workloads", "get list"),
}
WORKFLOW = _rights("argoproj.io", "workflowtaskresults", "create patch") | _rights("batch", "jobs", "get create patch")
WORKFLOW_WITH = {"jobset": _rights("jobset.x-k8s.io", "jobsets", "get create patch")}


def rights(account: str, sections: Iterable[str]) -> set[Right]:
    """Rights of an account, with some sections of values enabled."""
    have = set(sections)
    match account:
        case "runner":
            return RUNNER
        case "web":
            return WEB
        case "sweeper":
            return SWEEPER.union(*(SWEEPER_WITH.get(section, set()) for section in have))
        case "driver":
            return DRIVER.union(*(DRIVER_WITH.get(section, set()) for section in have))
        case "workflow" if "argo" in have:
            return WORKFLOW.union(*(WORKFLOW_WITH.get(section, set()) for section in have))
        case _:
            return set()
