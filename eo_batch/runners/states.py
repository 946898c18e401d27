"""What Kubernetes says of Jobs and pods, read without asking it."""

import re

from eo_batch.runners.base import POLITE_STOP
from eo_batch.runners.book import one_line
from eo_batch.runners.manifests import Manifest

KILLED = 137
"""Exit code of what got SIGKILL."""
_ADDED = re.compile(r'time=".*" level=|Error: exit status \d+$')
"""What Argo's executor prints below what a pod printed last."""
GONE = "Gone"
"""Reason of the end of what somebody deleted."""

End = tuple[bool, str, str]
"""How something ended: whether it went well, the reason in one word, and in a line."""


def end_of(work: Manifest) -> End | None:
    """How a Job or JobSet ended; None if it goes on."""
    for condition in work.get("status", {}).get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in ("Complete", "Completed", "Failed"):
            well = condition["type"] != "Failed"
            return well, condition.get("reason", ""), one_line(condition.get("message", ""))
    return None


def slice_number(pod: Manifest) -> int | None:
    """Number of the slice that a pod runs."""
    metadata = pod["metadata"]
    text = metadata.get("labels", {}).get("jobset.sigs.k8s.io/job-index")
    if text is None:
        text = metadata.get("annotations", {}).get("batch.kubernetes.io/job-completion-index")
    return None if text is None else int(text)


def death(pod: Manifest) -> tuple[str, int | None]:
    """Why a pod failed, in one line, and the exit code of what it ran, if it came to that."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        ended = container.get("state", {}).get("terminated")
        if not ended:
            continue
        code, said = ended.get("exitCode"), one_line(_last_line(ended.get("message") or ""))
        if ended.get("reason") == "OOMKilled":
            return "its pod was killed: out of memory; raise memory_mb of the pool", code
        if status.get("reason"):
            break
        if code in (KILLED, POLITE_STOP):
            return f"its pod was killed (exit code {code})", code
        return f"its pod ended with exit code {code}" + (f": {said}" if said else ""), code
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"its pod was disrupted: {one_line(condition.get('message') or condition.get('reason', ''))}", None
    reason, text = status.get("reason") or "no reason given", one_line(status.get("message") or "")
    return f"its pod failed: {reason}" + (f": {text}" if text else ""), None


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip() and not _ADDED.match(line)), "")
