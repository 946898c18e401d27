"""A Lease owns what a run starts: all of it is gone when the run ends, and what a killed one leaves is swept."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eo_batch.core.errors import ClusterError, ClusterRefused
from eo_batch.core.placement import Placement, dump_placement
from eo_batch.runners.kube import JOB, LEASE, POD, Kube, connect
from eo_batch.runners.lease import Lease, held_lease
from eo_batch.runners.manifests import Manifest, object_name, work_manifest
from eo_batch.runners.states import end_of
from eo_batch.runners.sweep import expired_at, sweep
from tests.cluster.given import Images
from tests.cluster.kube import apply, namespace, wait_for
from tests.cluster.lines import as_account

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def space(images: Images) -> Iterator[str]:
    with namespace("eo-batch-test-leases") as found:
        apply(found, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "eo-batch-runner"}})
        yield found


@pytest.fixture
def placement(space: str, images: Images) -> Placement:
    return Placement.model_validate(
        {
            "runner": "kubernetes",
            "cluster": {"namespace": space, "image": images.cpu, "lease_s": 5},
            "pools": {"small": {"cpu": "20m", "memory_mb": 50}},
            "stages": {"default": {"pool": "small"}},
        }
    )


@pytest.fixture
def kube(placement: Placement) -> Kube:
    assert placement.cluster is not None
    return connect(placement.cluster)


def sleeping(placement: Placement, lease: Lease) -> Manifest:
    """A Job of two pods that never end, but do when they are asked to."""
    argv = ("python3", "-c", "import time; time.sleep(600)")
    name = object_name(lease.run, "test", lease.name[-4:])
    return work_manifest(placement, "test", name, argv, 2, 1, lease.labels, owner=lease.owner)


def start(placement: Placement, lease: Lease) -> None:
    """Start that Job, and wait until its pods run."""
    lease.kube.create(JOB, sleeping(placement, lease))
    wait_for(lambda: len(lease.kube.list(POD, fields="status.phase=Running")) == 2, "two pods run")


def test_a_job_that_reaches_its_deadline_is_ended_by_kubernetes(placement: Placement, kube: Kube) -> None:
    """Whoever watches it or not."""
    assert placement.cluster is not None
    cluster = placement.cluster.model_copy(update={"deadline_s": 8})
    with held_lease(placement, "late") as lease:
        start(placement.model_copy(update={"cluster": cluster}), lease)
        wait_for(lambda: kube.list(POD) == [], "its pods are gone", 60)
        wait_for(lambda: end_of(*kube.list(JOB)) is not None, "it has ended", 30)
        ended = end_of(*kube.list(JOB))
        assert ended is not None
        assert (ended[0], ended[1]) == (False, "DeadlineExceeded")


def left(kube: Kube) -> list[str]:
    """Leases, Jobs and pods that are left."""
    return [found["metadata"]["name"] for kind in (LEASE, JOB, POD) for found in kube.list(kind)]


def test_what_a_lease_owns_is_gone_with_it(placement: Placement, kube: Kube) -> None:
    with held_lease(placement, "My_run") as lease:
        start(placement, lease)
        (held,) = kube.list(LEASE, "eo-batch.io/run=My_run")
        assert held["metadata"]["name"] == lease.name
        assert held["spec"]["leaseDurationSeconds"] == 5
        lease.check()
    assert left(kube) == []


def test_what_a_lease_owns_is_gone_after_an_error(placement: Placement, kube: Kube) -> None:
    def interrupted() -> None:
        with held_lease(placement, "run") as lease:
            start(placement, lease)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert left(kube) == []


def test_a_lease_is_renewed_while_it_is_held(placement: Placement, kube: Kube) -> None:
    with held_lease(placement, "run") as lease:
        time.sleep(7)
        lease.check()
        (held,) = kube.list(LEASE)
        expires = expired_at(held)
        assert expires is not None
        assert expires > kube.now()
        assert sweep(placement) == []
    assert left(kube) == []


def test_the_holder_learns_that_its_lease_was_deleted(placement: Placement, kube: Kube) -> None:
    with held_lease(placement, "run") as lease:
        kube.delete(LEASE, lease.name)
        with pytest.raises(ClusterError, match=r"is lost: somebody deleted it; .*run it again"):
            wait_for(lambda: bool(lease.check()), "the holder learns", 10)


def test_an_expired_lease_is_swept_with_all_that_it_owns(placement: Placement, kube: Kube, tmp_path: Path) -> None:
    """The holder is killed with -9."""
    profile = tmp_path / "profile.yaml"
    profile.write_text(dump_placement(placement))
    program = """
        import sys, time
        from pathlib import Path
        from eo_batch.core.placement import parse_placement
        from eo_batch.runners.lease import held_lease
        from tests.cluster.test_lease import start
        placement = parse_placement(Path(sys.argv[1]).read_text())
        with held_lease(placement, "killed") as lease:
            start(placement, lease)
            print("holds", flush=True)
            time.sleep(600)
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(profile)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds\n"
    assert sweep(placement) == [], "its holder lives"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with held_lease(placement, "alive") as alive:
        took_s = wait_for(lambda: bool(sweep(placement, dry_run=True)), "the lease expires", 20)
        assert took_s <= 5 + 5, "it expires when it was not renewed for so long"
        assert len(left(kube)) == 2 + 1 + 2, "a dry run deletes nothing"
        (line,) = sweep(placement)
        assert line.startswith("deleted lease killed-")
        assert " of run killed, expired at " in line
        wait_for(lambda: left(kube) == [alive.name], "what it owned is gone", 60)
        assert sweep(placement) == []


def test_a_holder_whose_clock_is_slow_is_not_swept(placement: Placement, kube: Kube) -> None:
    """The API server notes by its own clock when it saw a change."""
    with held_lease(placement, "slow") as lease:
        lease._released.set()  # no renewals but this one
        held = kube.get(LEASE, lease.name)
        assert held is not None
        held["spec"]["renewTime"] = "2020-01-01T00:00:00.000000Z"
        assert kube.replace(LEASE, held) is not None
        assert sweep(placement) == []
        wait_for(lambda: bool(sweep(placement, dry_run=True)), "it expires by the server's clock", 10)


def test_a_lease_that_is_renewed_in_between_is_not_deleted(placement: Placement, kube: Kube) -> None:
    with held_lease(placement, "run") as lease:
        held = kube.get(LEASE, lease.name)
        assert held is not None
        seen = {"uid": lease.uid, "resourceVersion": held["metadata"]["resourceVersion"]}
        time.sleep(2.5)
        assert not kube.delete(LEASE, lease.name, **seen)
        lease.check()


def test_a_permission_that_is_missing_is_named(
    placement: Placement, space: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with as_account(space, "eo-batch-runner", tmp_path, monkeypatch), pytest.raises(ClusterRefused) as caught:
        held_lease(placement, "run").__enter__()
    assert "refuses to create leases/" in str(caught.value)
    assert f'cannot create resource "leases" in API group "coordination.k8s.io" in the namespace "{space}"' in str(
        caught.value
    )


def test_a_namespace_that_is_not_there_is_named(placement: Placement) -> None:
    assert placement.cluster is not None
    nowhere = placement.model_copy(update={"cluster": placement.cluster.model_copy(update={"namespace": "nowhere"})})
    with pytest.raises(ClusterRefused, match='namespaces "nowhere" not found'), held_lease(nowhere, "run"):
        pass
