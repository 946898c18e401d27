"""What tests on a cluster can ask for. They use the current kube context, and bring what they need as pods.

| variable | what it names |
|---|---|
| `EO_BATCH_IMAGE`, `EO_BATCH_GPU_IMAGE` | images built from `containers/`, which the nodes have or can pull |
| `EO_BATCH_SERVERS_IMAGE` | image built from `tests/cluster/servers.Dockerfile` |
| `EO_BATCH_CLUSTER_ADAPTER` | optional command: `gpu`, `node-kill`, `node-gone`, `node-start` |
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster.given import S3, Images
from tests.cluster.kube import namespace
from tests.cluster.place import Place, place_of
from tests.cluster.runs import Reference, make_reference
from tests.cluster.s3 import inside, s3_server


@pytest.fixture(scope="session")
def images() -> Images:
    """The images under test; whoever asks for them needs a cluster."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    answers = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, check=False, timeout=60)
    if answers.returncode != 0:
        pytest.skip("no Kubernetes answers: choose one with KUBECONFIG and kubectl config use-context")
    names = ("EO_BATCH_IMAGE", "EO_BATCH_GPU_IMAGE", "EO_BATCH_SERVERS_IMAGE")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not set: build the images and name them (tests/cluster/conftest.py)")
    return Images(*(os.environ[name] for name in names))


@pytest.fixture(scope="session")
def s3(images: Images) -> Iterator[S3]:
    """A SeaweedFS S3 server in a namespace of its own, that no other session of tests has."""
    with namespace(f"eo-batch-test-s3-{uuid.uuid4().hex[:6]}") as space, s3_server(space, images.servers) as server:
        yield S3(server, inside(space), space)


@pytest.fixture
def s3_here(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The same, with the environment set so that eo-batch reaches it from here."""
    for name, value in s3.server.env.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture(scope="session")
def reference(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """The run that all runners have to make, as this machine makes it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.server.env.items():
            patch.setenv(name, value)
        yield make_reference(s3.server, tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="package")
def place(images: Images, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The chart with all that it can have."""
    with place_of(f"eo-batch-test-{uuid.uuid4().hex[:6]}", images, s3, tmp_path_factory.mktemp("release")) as found:
        yield found


@pytest.fixture(scope="session")
def adapter() -> list[str]:
    """Argv of the command that does to a cluster what kubectl can't."""
    command = os.environ.get("EO_BATCH_CLUSTER_ADAPTER")
    if not command:
        pytest.skip("EO_BATCH_CLUSTER_ADAPTER is not set: losing nodes and simulating GPUs needs a command for it")
    return command.split()
