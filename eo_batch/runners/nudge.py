"""Argo looks at a workflow when something happens to it, and else every twenty minutes. Of a pod that is deleted before
it could report, as when its node is lost, it notes the loss at one look and starts another pod at the next (3.7.3).
Any change of the object makes it look.
"""

from collections.abc import Mapping

from eo_batch.runners.kube import WORKFLOW, Kube
from eo_batch.runners.manifests import Manifest

LOOK = "eo-batch.io/look-again"
"""Annotation that is changed."""


def overlooked(nodes: Mapping[str, Manifest]) -> bool:
    """Whether a lost pod of a workflow, by its nodes, still waits for Argo's next look."""
    return any(node.get("phase") == "Error" and node.get("taskResultSynced") is False for node in nodes.values())


def nudge(kube: Kube, workflow: str) -> None:
    """Make Argo look at a workflow. Raises ClusterError."""
    kube.annotate(WORKFLOW, workflow, LOOK, kube.now().isoformat())
