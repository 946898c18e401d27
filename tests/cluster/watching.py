"""What becomes of the pods of a namespace, while a block runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_COLUMNS = {
    "name": ".metadata.name",
    "stage": r".metadata.labels.eo-batch\.io/stage",
    "node": ".spec.nodeName",
    "gpus": r".spec.containers[0].resources.limits.nvidia\.com/gpu",
    "phase": ".status.phase",
    "containers": ".spec.containers[*].name",
    "images": ".spec.containers[*].image",
    "before": ".spec.initContainers[*].image",
}
NONE = "<none>"


@dataclass(frozen=True)
class Seen:
    """A pod as it was at some moment; what it did not have is `<none>`."""

    name: str
    stage: str
    node: str
    gpus: str
    phase: str
    containers: str
    images: str
    before: str
    """Images of its containers that run before the others."""

    @property
    def all_images(self) -> set[str]:
        """Images of all its containers."""
        return {*self.images.split(","), *self.before.split(",")} - {NONE}

    @property
    def image(self) -> str:
        """Image of the container that works; Argo's pods have another one beside it."""
        images = dict(zip(self.containers.split(","), self.images.split(","), strict=True))
        return images.get("main") or next(iter(images.values()))


@contextmanager
def watching(space: str, path: Path, labels: str = "") -> Iterator[list[Seen]]:
    """Every state of the pods of a namespace, complete when the block ends. `path` is a file to keep them in."""
    columns = ",".join(f"{name}:{field}" for name, field in _COLUMNS.items())
    argv = ["kubectl", "get", "pods", "-n", space, "-l", labels, "--no-headers", "--watch"]
    seen: list[Seen] = []
    with path.open("w") as out:
        process = subprocess.Popen([*argv, "-o", f"custom-columns={columns}"], stdout=out)
        try:
            yield seen
            assert process.poll() is None, "kubectl stopped watching"
        finally:
            process.terminate()
            process.wait()
    seen += [Seen(*line.split()) for line in path.read_text().splitlines()]
