"""The same spec through every runner, out of the installed chart, while pods are killed: the bytes of a run on this
machine, nothing lost, nothing done twice that was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eo_batch.core.layout import STAGES
from eo_batch.entry.run import open_run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from tests.cluster.chart import Installed, installed
from tests.cluster.conftest import S3, Images
from tests.cluster.killing import killing
from tests.cluster.kube import forwarded, get
from tests.cluster.runs import Reference, command, done, make_reference, nothing_done_twice, objects, runners

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def release(images: Images, s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed("eo-batch-test-runs", images, s3, tmp_path_factory.mktemp("release")) as found:
        yield found


@pytest.fixture(scope="module")
def reference(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.server.env.items():
            patch.setenv(name, value)
        yield make_reference(s3.server, tmp_path_factory.mktemp("reference"))


def check_same(store: str, reference: Reference, runner: str) -> None:
    """The run in a store is that of the reference, and was made by one runner."""
    assert objects(store) == reference.objects
    run = open_run(parse_store(store), "same", Settings.from_env())
    assert done(run) == reference.shards
    assert runners(run) == {stage: {runner} for stage in STAGES}


def check_nothing_left(release: Installed) -> None:
    """Neither Jobs nor pods nor Leases of any run are left."""
    for kind in ("jobs", "leases", "pods", "workflows.argoproj.io"):
        left = get(release.namespace, kind, "-l", "eo-batch.io/run")
        assert left == [], f"{kind}: {[thing['metadata']['name'] for thing in left]}"


@contextmanager
def profile_of(runner: str, release: Installed) -> Iterator[Path]:
    """The chart's profile of a runner. Argo's server, which pods reach by its name, is forwarded to here."""
    if runner != "argo":
        yield release.profile(runner)
        return
    with forwarded("argo", "service/argo-server", 2746) as address:
        yield release.changed(runner, argo={"url": f"https://{address}"})


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["kubernetes", "argo"])
def test_jobs_with_a_kill_in_every_stage(runner: str, release: Installed, reference: Reference, s3_here: S3) -> None:
    store = s3_here.server.new_bucket()
    with profile_of(runner, release) as profile:
        argv = ["run", str(reference.spec), "--store", store, "--on", str(profile)]
        with killing(release.namespace, STAGES, per_stage=1, seed=1) as killer, nothing_done_twice(store):
            said = command(argv)
        assert set(killer.by_stage) == set(STAGES), said
        check_same(store, reference, runner)
        check_nothing_left(release)
        again = command(argv)
    assert [line for line in again.splitlines() if "to do" in line] == [], "everything has a receipt"
