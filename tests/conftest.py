"""What every test can ask for: real servers, fresh stores, and the shared test data.

A server starts when the first test asks for it and is skipped, with the reason, where a part it needs is missing.
`.ci/run` installs all parts, and `.ci/skips.py` fails on a skip that nobody allowed.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import hypothesis
import pytest

from tests.servers import azurite as azurite_server
from tests.servers import gcs as gcs_server
from tests.servers import moto as moto_server
from tests.servers import seaweed as seaweed_server
from tests.servers import stac_api as stac_api_server
from tests.servers.objects import ObjectServer
from tests.servers.shared import Home, shared
from tests.servers.stac_api import StacServer

ROOT = Path(__file__).resolve().parents[1]
_HOME_VARIABLE = "EO_BATCH_TEST_HOME"
CLUSTER_VARIABLES = {
    "EO_BATCH_IMAGE",
    "EO_BATCH_GPU_IMAGE",
    "EO_BATCH_SERVERS_IMAGE",
    "EO_BATCH_CLUSTER_ADAPTER",
}
"""What tests on a cluster are told (tests/cluster/conftest.py)."""
hypothesis.settings.register_profile("shared", deadline=None)  # machines are shared: a slow example shows nothing
hypothesis.settings.load_profile("shared")
_CLOUD_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST", "EO_BATCH_")


LONGEST = (
    "cluster/test_whole_runs.py",
    "entry/test_same_bytes.py",
    "flows/test_ends.py",
    "io/test_faults.py",
    "docs/test_readme.py",
    "flows/test_whole_run.py",
    "bad_input/test_broken_items.py",
    "stages/test_distributed.py",
    "io/test_tokens.py",
    "real/test_sahara.py",
    "runners/test_dask.py",
    "truth/test_geolocation.py",
    "truth/test_composites.py",
    "real/test_flanders.py",
    "real/test_croatia.py",
    "flows/test_deployments.py",
    "serve/test_pages.py",
    "flows/test_calls.py",
    "truth/test_planet.py",
    "stages/test_learning.py",
    "flows/test_update.py",
)
"""Files that take minutes. They come first, so that several workers end at about the same time."""


def pytest_configure(config: pytest.Config) -> None:
    """In the process that was started by hand, make the folder that it shares with xdist's workers."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        # A shell without job control starts what runs in its background deaf to Ctrl-C, which tests want to press.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        os.environ[_HOME_VARIABLE] = tempfile.mkdtemp(prefix="eo-batch-tests-")
        os.environ[f"{_HOME_VARIABLE}_PID"] = str(os.getpid())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    order = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers."""
    if not hasattr(config, "workerinput") and _HOME_VARIABLE in os.environ:
        home = _home()
        home.stop()
        stac_api_server.remove_folders(home)
        shutil.rmtree(home.folder, ignore_errors=True)


def _home() -> Home:
    return Home(Path(os.environ[_HOME_VARIABLE]), int(os.environ[f"{_HOME_VARIABLE}_PID"]))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the cloud credentials or settings of whoever runs it."""
    keep = {_HOME_VARIABLE, f"{_HOME_VARIABLE}_PID", "EO_BATCH_SHARED", "EO_BATCH_NODE_MODULES"} | CLUSTER_VARIABLES
    for name in list(os.environ):
        if name.startswith(_CLOUD_PREFIXES) and name not in keep:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture(scope="session")
def home() -> Home:
    """Where the session's servers live."""
    return _home()


@pytest.fixture(scope="session")
def seaweed() -> ObjectServer:
    """A SeaweedFS S3 server."""
    return ObjectServer.of("s3", shared(_home(), "seaweed", seaweed_server.start))


@pytest.fixture(scope="session")
def moto() -> ObjectServer:
    """moto's S3 server: it imitates more of S3's bucket settings than SeaweedFS has."""
    return ObjectServer.of("s3", shared(_home(), "moto", moto_server.start))


@pytest.fixture(scope="session")
def azurite() -> ObjectServer:
    """An Azure Blob Storage emulator."""
    return ObjectServer.of("az", shared(_home(), "azurite", azurite_server.start))


@pytest.fixture(scope="session")
def gcs() -> ObjectServer:
    """A Google Cloud Storage emulator."""
    return ObjectServer.of("gs", shared(_home(), "gcs", gcs_server.start))


@pytest.fixture(scope="session")
def stac_api() -> StacServer:
    """A STAC API; `stac_api.load(collection, items)` fills it."""
    note = shared(_home(), "stac_api", stac_api_server.start)
    return StacServer(note.url, note.env["dsn"])


@pytest.fixture
def s3_url(seaweed: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh bucket, with the environment set so that eo-batch reaches it."""
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    return seaweed.new_bucket()


@pytest.fixture
def moto_url(moto: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh bucket, with the environment set so that eo-batch reaches it."""
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    return moto.new_bucket()


@pytest.fixture
def az_url(azurite: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh container, with the environment set so that eo-batch reaches it."""
    for name, value in azurite.env.items():
        monkeypatch.setenv(name, value)
    return azurite.new_bucket()


@pytest.fixture
def gs_url(gcs: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a fresh bucket, with the environment set so that eo-batch reaches it."""
    for name, value in gcs.env.items():
        monkeypatch.setenv(name, value)
    return gcs.new_bucket()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test scenes: EO_BATCH_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("EO_BATCH_SHARED") or ROOT.parent / "shared")
    if not (folder / "data" / "catalog.json").is_file():
        pytest.skip(f"real test data is missing: set EO_BATCH_SHARED to its folder ({folder} has no data/catalog.json)")
    return folder
