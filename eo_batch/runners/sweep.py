"""Delete what runs left behind whose flow or command died: everything that an expired Lease owns. And remind Argo of
pods that were lost by runs that nobody follows.
"""

from datetime import datetime, timedelta

from eo_batch.core.errors import UsageError
from eo_batch.core.placement import Placement
from eo_batch.runners.kube import LEASE, WORKFLOW, Kube, connect
from eo_batch.runners.manifests import RUN_LABEL, Manifest
from eo_batch.runners.nudge import nudge, overlooked


def sweep(placement: Placement, dry_run: bool = False) -> list[str]:
    """Delete the expired Leases of runs in the placement's namespace; Kubernetes deletes what they own. Make Argo look
    at workflows of which it has overlooked a lost pod. Returns a line for each. With `dry_run` it only says so.

    Raises UsageError where the placement has no cluster, ClusterError where it can't be reached or refuses.
    """
    if placement.cluster is None:
        raise UsageError("the profile names no cluster to sweep; give one with a section `cluster`")
    kube = connect(placement.cluster)
    return [*sweep_leases(kube, dry_run), *nudge_workflows(kube, dry_run)]


def sweep_leases(kube: Kube, dry_run: bool = False) -> list[str]:
    """See `sweep`."""
    now = kube.now()
    lines = []
    for lease in kube.list(LEASE, RUN_LABEL):
        expired = expired_at(lease)
        if expired is None or expired >= now:
            continue
        metadata = lease["metadata"]
        line = (
            f"lease {metadata['name']} of run {metadata['labels'][RUN_LABEL]}, "
            f"expired at {expired:%Y-%m-%dT%H:%M:%SZ}, held by {lease['spec'].get('holderIdentity', 'nobody')}"
        )
        # One that was renewed since it was listed stays.
        seen = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        if dry_run:
            lines.append(f"would delete {line}")
        elif kube.delete(LEASE, metadata["name"], **seen):
            lines.append(f"deleted {line}")
    return lines


def nudge_workflows(kube: Kube, dry_run: bool = False) -> list[str]:
    """See `sweep`. A cluster without Argo, or an account that may not list workflows, has none."""
    lines = []
    for workflow in kube.list(WORKFLOW, RUN_LABEL, absent_ok=True):
        if overlooked(workflow.get("status", {}).get("nodes") or {}):
            name = workflow["metadata"]["name"]
            if not dry_run:
                nudge(kube, name)
            lines.append(f"{'would remind' if dry_run else 'reminded'} Argo of a lost pod of workflow {name}")
    return lines


def expired_at(lease: Manifest) -> datetime | None:
    """When a Lease expires, UTC; None for one that does not say.

    The API server notes when it saw a change, by its own clock. The holder's can be wrong, and must not make a run that
    lives look dead.
    """
    spec = lease["spec"]
    if "renewTime" not in spec or "leaseDurationSeconds" not in spec:
        return None
    times = [spec["renewTime"], *(entry.get("time") for entry in lease["metadata"].get("managedFields") or ())]
    renewed = max(datetime.fromisoformat(time) for time in times if time)
    return renewed + timedelta(seconds=spec["leaseDurationSeconds"])
