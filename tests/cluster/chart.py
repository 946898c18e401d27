"""The chart, installed for a test: eo-batch as users have it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.argo import argo_here
from tests.cluster.given import S3, Images
from tests.cluster.kube import apply, kubectl, namespace
from tests.cluster.s3 import secret

CHART = Path(__file__).resolve().parents[2] / "helm" / "eo-batch"
SECRET = "store-keys"
SMALL = {"nodeSelector": {}, "tolerations": [], "cpu": "50m", "memory_mb": 700, "gpus": 0}


@dataclass(frozen=True)
class Installed:
    """A release of the chart."""

    namespace: str
    folder: Path
    """Holds the profiles."""

    def profile(self, runner: str) -> Path:
        """The chart's profile of a runner, as a file."""
        data = json.loads(kubectl("get", "configmap", "eo-batch-profiles", "-n", self.namespace, "-o", "json"))["data"]
        path = self.folder / f"{runner}.yaml"
        path.write_text(data[f"{runner}.yaml"])
        return path

    def changed(self, runner: str, **changes: Any) -> Path:
        """A profile with other sections than the chart's."""
        profile = yaml.safe_load(self.profile(runner).read_text())
        for section, values in changes.items():
            profile[section] = profile.get(section, {}) | values
        path = self.folder / f"{runner}-changed.yaml"
        path.write_text(yaml.safe_dump(profile))
        return path


def values(images: Images, s3: S3) -> dict[str, Any]:
    """Values for small pods on any node, and a store that is reached by keys from a Secret."""
    placed = {"shards_per_pod": 1, "parallelism": 4, "nodes": 1}
    return {
        "image": {"cpu": images.cpu, "gpu": images.gpu},
        "store": {"url": "s3://runs", "endpoint": s3.inside, "region": "us-east-1", "existingSecret": SECRET},
        "env": {"EO_BATCH_ASSETS_ANONYMOUS": "0"},
        "argo": {"serverUrl": argo_here().inside, "verifyTls": False},
        "pools": {"cpu-spot": SMALL, "gpu-train": SMALL, "gpu-spot": SMALL},
        "stages": {
            "default": placed | {"pool": "cpu-spot"},
            "chips": placed | {"pool": "cpu-spot", "shards_per_pod": 8},
            "pretrain": placed | {"pool": "gpu-train"},
            "embed": placed | {"pool": "gpu-spot", "shards_per_pod": 7},
        },
    }


@contextmanager
def installed(
    name: str, images: Images, s3: S3, folder: Path, more: Mapping[str, Any] | None = None
) -> Iterator[Installed]:
    """The chart in a fresh namespace that admits restricted pods only; both are gone afterwards."""
    with namespace(name) as space:
        apply(space, secret(SECRET))
        path = folder / "values.yaml"
        path.write_text(yaml.safe_dump(_merged(values(images, s3), more or {})))
        helm("install", "eo-batch", str(CHART), "-n", space, "-f", str(path), "--wait", "--timeout", "3m")
        try:
            yield Installed(space, folder)
        finally:
            helm("uninstall", "eo-batch", "-n", space, "--wait", "--timeout", "2m")


def helm(*argv: str) -> str:
    """What helm printed. Raises AssertionError with what it complained about."""
    done = subprocess.run(["helm", *argv], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"helm {' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(base[key], more[key]) for key in base.keys() & more.keys() if isinstance(base[key], dict)}
    return {**base, **more, **both}
