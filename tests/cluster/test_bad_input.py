"""Mistakes in what a run is given, or in what the cluster gives it: the command says one line that names the mistake,
ends with a code that tells its kind, and leaves nothing. What lasts is told by `eo-batch status` meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eo_batch.core.errors import CatalogError, ClusterRefused, StoreMissing
from eo_batch.core.placement import Cluster
from eo_batch.runners.kube import connect
from eo_batch.runners.waits import Wait, run_waits
from tests.cluster.chart import Installed, installed
from tests.cluster.dask_operator import dask_operator
from tests.cluster.given import S3, Images
from tests.cluster.kube import CONTAINER_SECURITY, POD_SECURITY, apply, get, kubectl, namespace, wait_for
from tests.cluster.lines import kubeconfig
from tests.cluster.runs import ASSETS_SIGNED
from tests.cluster.ways import profile_of
from tests.servers.objects import ObjectServer

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RUNNERS = ("kubernetes", "argo", "dask")
SPEC = """
name: {name}
time: {{start: 2023-06-01, end: 2023-07-01}}
grid: {{chip_px: 32, gsd_m: 10, block_chips: 4}}
sensors:
  s2: {{kind: s2-l2a, bands: [B02]}}
catalog: {catalog}
area: {{bbox: [11.98, 47.98, 12.02, 48.02]}}
"""
_BEFORE_ANY_RUNNER = ("store", "catalog")
"""Mistakes of which runners know nothing, so that two of them are enough."""
AT_ONCE_S = 90.0
"""What can be known when a run is submitted is said within this time, by a dozen processes that start at once."""
IN_TIME_S = 300.0
"""The same for what has to last for two minutes before anybody can be sure that nobody mends it."""
IMAGE = "registry.invalid/no-such:1"


_SPACE = "eo-batch-test-bad"


@dataclass(frozen=True)
class Mistake:
    """A mistake, and what is said of it."""

    line: str
    """A pattern of the error, as a whole."""
    exit_code: int
    within_s: float = AT_ONCE_S
    waits: str = ""
    """A pattern of what `eo-batch status` says meanwhile."""


REFUSED = ClusterRefused.exit_code
_SINCE = r"( \(no pod has run for \d+ s\))?"
"""Dask's workers are not waited for where nobody but a person can help."""
MISTAKES = {
    "permission": Mistake(
        r"the cluster refuses to create leases/permission-\S+ in namespace \S+: leases\.\S+ is forbidden: .*; bind us "
        r"to the chart's role for drivers",
        REFUSED,
    ),
    "queue": Mistake(
        r"queue nowhere \(pools\.cpu-spot\.queue\) is not there in namespace \S+: create the LocalQueue"
        r"|pools\.cpu-spot\.queue=nowhere needs Kueue, which the cluster does not have: install it"
        r"|dask\.pool=cpu-spot waits in queue nowhere \(pools\.cpu-spot\.queue\), which does not admit Dask's workers: "
        r"name a pool without a queue, and limit it by dask\.workers_max",
        REFUSED,
    ),
    "image": Mistake(
        rf"image {IMAGE} can't be pulled \(\w+\).*; check cluster\.image{_SINCE}",
        REFUSED,
        IN_TIME_S,
        rf"image {IMAGE} can't be pulled \(\w+\).*; check cluster\.image",
    ),
    "store": Mistake(
        r"s3://no-such-bucket: could not write \S+: the bucket is not there; create it with `eo-batch store init "
        r"s3://no-such-bucket`",
        StoreMissing.exit_code,
    ),
    "catalog": Mistake(
        r"plan: catalogue s3://no-such-catalog/items\.json is not there; check the address",
        CatalogError.exit_code,
        IN_TIME_S,
    ),
    "quota": Mistake(
        r"the pods are not admitted: pods are forbidden: exceeded quota: eo-batch, .*" + _SINCE,
        REFUSED,
        IN_TIME_S,
        r"the pods are not admitted: pods are forbidden: exceeded quota: eo-batch, .*",
    ),
}


@dataclass(frozen=True)
class Asked:
    """A run that was asked for."""

    space: str
    store: str
    profile: Path
    process: subprocess.Popen[str]
    begun: float

    def ended(self, within_s: float) -> list[str]:
        """All that it said, line by line."""
        _, said = self.process.communicate(timeout=max(within_s - (time.monotonic() - self.begun), 0.1))
        return said.splitlines()


@pytest.fixture(scope="module")
def releases(images: Images, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installed, Installed]]:
    """The chart, and the same with a quota that no pod fits in."""
    more: dict[str, Any] = {"dask": {"enabled": True, "operatorNamespace": f"{_SPACE}-operator"}}
    tight: dict[str, Any] = {"resourceQuota": {"enabled": True, "hard": {"requests.memory": "50M"}}}
    folders = [tmp_path_factory.mktemp(name) for name in ("wide", "tight")]
    with (
        namespace(f"{_SPACE}-operator") as operator,
        dask_operator(operator, images.cpu, f"{_SPACE}*"),
        installed(_SPACE, images, s3, folders[0], more) as wide,
        installed(f"{_SPACE}-quota", images, s3, folders[1], more | tight) as narrow,
    ):
        yield wide, narrow


@pytest.fixture(scope="module")
def asked(
    releases: tuple[Installed, Installed], s3: S3, moto: ObjectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[tuple[str, str], Asked]]:
    """All mistakes through all runners, all at once."""
    folder, found = tmp_path_factory.mktemp("asked"), dict[tuple[str, str], Asked]()
    account = kubeconfig(releases[0].namespace, "eo-batch-runner", folder)
    with ExitStack() as stack:
        for mistake in MISTAKES:
            release = releases[mistake == "quota"]
            # SeaweedFS makes buckets that somebody writes to; S3 does not, and moto does as S3.
            env = moto.env if mistake == "store" else s3.server.env
            env = env | ({"KUBECONFIG": str(account)} if mistake == "permission" else {})
            for runner in runners_of(mistake):
                profile = stack.enter_context(profile_of(runner, release, **changes(mistake)))
                name = f"{mistake}-{runner}"
                profile = profile.rename(folder / f"{name}-profile.yaml")
                spec = folder / f"{name}.yaml"
                spec.write_text(SPEC.format(name=name, catalog=f"s3://no-such-{mistake}/items.json"))
                store = "s3://no-such-bucket" if mistake == "store" else s3.server.new_bucket()
                argv = ["run", str(spec), "--store", store, "--on", str(profile), "--until", "plan"]
                process = stack.enter_context(start(argv, env))
                stack.callback(process.kill)
                found[mistake, runner] = Asked(release.namespace, store, profile, process, time.monotonic())
        yield found


def runners_of(mistake: str) -> tuple[str, ...]:
    return RUNNERS[:2] if mistake in _BEFORE_ANY_RUNNER else RUNNERS


def changes(mistake: str) -> dict[str, Any]:
    """Sections of a profile with a mistake."""
    pool = {"cpu": "20m", "memory_mb": 400}
    match mistake:
        case "queue":
            return {"pools": {"cpu-spot": pool | {"queue": "nowhere"}}}
        case "image":
            return {"pools": {"cpu-spot": pool}, "cluster": {"image": IMAGE}}
        case _:
            return {"pools": {"cpu-spot": pool}}


def start(argv: list[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from eo_batch.cli import main; main()", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | ASSETS_SIGNED | env,
    )


@pytest.mark.parametrize("runner", RUNNERS[:2])
@pytest.mark.parametrize("mistake", [name for name, mistake in MISTAKES.items() if mistake.waits])
def test_status_tells_what_is_waited_for(
    mistake: str, runner: str, asked: Mapping[tuple[str, str], Asked], s3_here: S3
) -> None:
    one = asked[mistake, runner]
    waits: list[str] = []

    def told() -> bool:
        argv = [sys.executable, "-c", "from eo_batch.cli import main; main()"]
        argv += ["status", "--store", one.store, "--on", str(one.profile), "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        waits[:] = json.loads(done.stdout)["waits"]
        return bool(waits)

    wait_for(told, "status tells of it", 120, every_s=2)
    assert all(re.fullmatch(MISTAKES[mistake].waits, wait) for wait in waits), waits


@pytest.mark.parametrize(
    ("mistake", "runner"), [(mistake, runner) for mistake in MISTAKES for runner in runners_of(mistake)]
)
def test_a_mistake_is_one_line(mistake: str, runner: str, asked: Mapping[tuple[str, str], Asked]) -> None:
    expected, one = MISTAKES[mistake], asked[mistake, runner]
    *progress, last = one.ended(expected.within_s)
    print(*progress, last, sep="\n")
    assert re.fullmatch(f"error: ({expected.line})", last), last
    assert one.process.returncode == expected.exit_code
    assert all(line.startswith(("plan: ", "plan plan: ")) for line in progress), progress


def test_status_tells_what_keeps_a_deployment_from_its_pods(releases: tuple[Installed, Installed]) -> None:
    """Those of Dask clusters; the runner itself does not wait for what no pod will ever fit in."""
    space = releases[1].namespace
    labels = {"eo-batch.io/run": "deployed"}
    container = {"name": "one", "image": "none", "resources": {"requests": {"memory": "60M"}}}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
    spec["template"]["spec"] = {
        "securityContext": POD_SECURITY,
        "containers": [container | {"securityContext": CONTAINER_SECURITY}],
    }
    apply(
        space,
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one", "labels": labels}, "spec": spec},
    )
    kube, found = connect(Cluster(namespace=space, image="none")), list[Wait]()

    def told() -> bool:
        found[:] = run_waits(kube, "eo-batch.io/run=deployed")
        return bool(found)

    wait_for(told, "status tells of it", 60)
    (wait,) = found
    assert re.fullmatch(MISTAKES["quota"].waits, wait.message), wait
    assert not wait.mends
    kubectl("delete", "deployment", "-n", space, "one")


def test_nothing_is_left(asked: Mapping[tuple[str, str], Asked]) -> None:
    for one in asked.values():
        assert one.process.poll() is not None
    for space in {one.space for one in asked.values()}:
        for kind in ("workflows.argoproj.io", "jobs", "leases", "daskclusters", "pods"):
            left = get(space, kind, "-l", "eo-batch.io/run")
            assert left == [], f"{kind}: {[thing['metadata']['name'] for thing in left]}"
