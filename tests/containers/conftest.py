"""The images under test, and a pod of each. They come from the environment (tests/cluster/conftest.py), so that the
tests run on any cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.kube import namespace


@pytest.fixture(scope="session")
def space() -> Iterator[str]:
    """A fresh namespace that admits restricted pods only."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    answers = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, check=False, timeout=60)
    if answers.returncode != 0:
        pytest.skip("no Kubernetes answers: choose one with KUBECONFIG and kubectl config use-context")
    with namespace("eo-batch-test-images") as found:
        yield found


def image(variable: str) -> str:
    """An image's name. Skips where the environment names none."""
    name = os.environ.get(variable)
    if not name:
        pytest.skip(f"{variable} is not set: build the image and name it (containers/README.md)")
    return name
