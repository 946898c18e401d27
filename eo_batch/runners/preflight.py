"""What has to be there before pods are asked for, looked at in a second: so that what is missing is one clear line at
submit, and not a Job that never starts."""

from eo_batch.core.errors import ClusterRefused
from eo_batch.core.placement import Placement
from eo_batch.runners.kube import JOB, JOBSET, POD, QUEUES, SERVICE_ACCOUNT, Kind, Kube


def preflight(kube: Kube, placement: Placement, stage: str) -> None:
    """Raise ClusterRefused naming everything that a stage needs and the cluster does not have, with its remedy;
    ClusterError where the cluster can't be asked."""
    assert placement.cluster is not None
    placed = placement.at(stage)
    queue = placement.pools[placed.pool].queue
    where = f"in namespace {kube.namespace}"
    kind = JOB if placed.nodes == 1 else JOBSET
    problems = []
    if kind is JOBSET and kube.served(JOBSET) is None:
        problems.append(
            f"stages.{stage}.nodes={placed.nodes} needs JobSet, which the cluster does not have: install it"
        )
    else:
        wanted = [(verb, kind) for verb in ("create", "get", "list", "delete")] + [("list", POD)]
        denied = [f"{verb} {what.plural}" for verb, what in wanted if not kube.may(verb, what)]
        if denied:
            problems.append(f"we may not {', '.join(denied)} {where}: bind us to the chart's role for drivers")
    account = placement.cluster.service_account
    if not _is_there(kube, SERVICE_ACCOUNT, account):
        problems.append(f"service account {account} is not there {where}: install the chart, or name another")
    if queue is not None:
        queues = kube.served(*QUEUES)
        if queues is None:
            problems.append(
                f"pools.{placed.pool}.queue={queue} needs Kueue, which the cluster does not have: install it"
            )
        elif not _is_there(kube, queues, queue):
            problems.append(f"queue {queue} (pools.{placed.pool}.queue) is not there {where}: create the LocalQueue")
    if problems:
        raise ClusterRefused("; ".join(problems))


def _is_there(kube: Kube, kind: Kind, name: str) -> bool:
    """Whether an object is there, as far as we may know."""
    try:
        return kube.get(kind, name) is not None
    except ClusterRefused:
        return True  # we may not look: what happens to the pods will tell
