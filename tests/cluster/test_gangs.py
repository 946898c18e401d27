"""Gangs: the pods of one slice find one another, go on together after a loss, and start together or not at all."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from eo_batch.core.errors import ClusterRefused
from eo_batch.core.placement import Placement
from eo_batch.runners import watch
from eo_batch.runners.base import DO_NOT_RETRY, SLICE, Event, Failure, Job, Outcome
from eo_batch.runners.kube import JOBSET, connect
from eo_batch.runners.kubernetes import KubernetesRunner
from eo_batch.runners.lease import Lease, held_lease
from tests.cluster.given import S3, Images
from tests.cluster.kube import apply, get, kubectl, namespace, wait_for
from tests.cluster.pods import PodRemote
from tests.cluster.queues import queue
from tests.cluster.s3 import secret
from tests.runners.calls import Fine, Shelf
from tests.runners.contract import agree

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_TOGETHER = """
import os, sys, time
import torch
import torch.distributed as dist
from eo_batch.io.store import parse_store
url, prefix, number = sys.argv[1:]
store = parse_store(url)
dist.init_process_group('gloo')
rank = dist.get_rank()
attempt = sum(f'/began/{number}.{rank}.' in key for key in store.list(f'{prefix}/began/'))
store.put(f'{prefix}/began/{number}.{rank}.{attempt}', str(attempt).encode())
total = torch.tensor(10 ** rank)
dist.all_reduce(total)
if store.exists(f'{prefix}/waits') and attempt == 0:
    time.sleep(600)
dist.barrier()
dist.destroy_process_group()
code = int(store.get(f'{prefix}/code').decode())
if rank == 0:
    index = store.get(f'{prefix}/list').decode().split()[int(number)]
    note = 'null' if code == 0 else '{"message": "no good", "attempts": 1}'
    store.put(f'{prefix}/ends/{index}', note.encode())
    store.put(f'{prefix}/sum/{index}', str(int(total)).encode())
sys.exit(code)
"""


@pytest.fixture(scope="module")
def space(images: Images) -> Iterator[str]:
    with namespace("eo-batch-test-gangs") as found:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "eo-batch-runner"}}
        apply(found, account, secret("store-keys"))
        yield found


@pytest.fixture
def placement(space: str, images: Images, s3_here: S3) -> Placement:
    env = {"AWS_ENDPOINT_URL": s3_here.inside, "AWS_REGION": "us-east-1"}
    cluster = {"namespace": space, "image": images.gpu, "secrets": ["store-keys"], "env": env}
    found = Placement.model_validate(
        {
            "runner": "kubernetes",
            "cluster": cluster,
            "pools": {"small": {"cpu": "20m", "memory_mb": 600}},
            "stages": {"pretrain": {"pool": "small", "nodes": 2}},
        }
    )
    if connect(found.cluster).served(JOBSET) is None:
        pytest.skip("the cluster has no JobSet")
    return found


@pytest.fixture
def lease(placement: Placement) -> Iterator[Lease]:
    with held_lease(placement, f"gangs-{uuid.uuid4().hex[:4]}") as lease:
        yield lease


class Together(PodRemote):
    """All ranks of a gang add up 10 to the power of their numbers."""

    def __init__(self, url: str, waits: bool = False, code: int = 0) -> None:
        super().__init__(url, Fine(Shelf(url, "none")), 1)
        if waits:
            self.store.put(f"{self.prefix}/waits", b"at first")
        self.store.put(f"{self.prefix}/code", str(code).encode())

    def freeze(self, indices: Any, shards_per_pod: int) -> tuple[str, ...]:
        assert shards_per_pod == 1
        self.store.put(f"{self.prefix}/list", " ".join(map(str, indices)).encode())
        return ("python3", "-c", _TOGETHER, self.url, self.prefix, SLICE)

    def forget(self) -> None:
        """The test looks at what is left."""

    def sums(self) -> dict[int, int]:
        """What each index's gang has come to."""
        keys = list(self.store.list(f"{self.prefix}/sum/"))
        return {int(key.rpartition("/")[2]): int(self.store.get(key)) for key in keys}

    def began(self) -> list[str]:
        """Slice, rank and number of each beginning."""
        return sorted(key.rpartition("/")[2] for key in self.store.list(f"{self.prefix}/began/"))


def run(placement: Placement, lease: Lease, remote: Together, indices: tuple[int, ...]) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    job = Job("pretrain", indices, remote.call, remote=remote)
    outcome = KubernetesRunner(placement, lease).run(job, events.append)
    agree(outcome, events, indices)
    return outcome, events


def test_the_pods_of_each_gang_work_together(placement: Placement, lease: Lease, s3_here: S3, space: str) -> None:
    remote = Together(s3_here.server.new_bucket())
    outcome, _ = run(placement, lease, remote, (4, 7))
    assert outcome.done == {4, 7}
    assert remote.sums() == {4: 11, 7: 11}
    assert remote.began() == ["0.0.0", "0.1.0", "1.0.0", "1.1.0"]
    assert get(space, "jobsets") + get(space, "jobs") + get(space, "pods") == []


def test_a_shard_that_fails_for_good_starts_no_gang_again(placement: Placement, lease: Lease, s3_here: S3) -> None:
    remote = Together(s3_here.server.new_bucket(), code=DO_NOT_RETRY)
    outcome, _ = run(placement, lease, remote, (0,))
    assert outcome.failed == {0: Failure("no good", 1)}
    assert remote.began() == ["0.0.0", "0.1.0"]


@pytest.mark.parametrize("polite", [True, False])
def test_a_gang_that_loses_a_pod_starts_again_whole(
    placement: Placement, lease: Lease, s3_here: S3, space: str, polite: bool
) -> None:
    remote = Together(s3_here.server.new_bucket(), waits=True)

    def kill() -> None:
        wait_for(lambda: len(remote.began()) == 2, "both have begun")
        pods = get(space, "pods", "-l", f"eo-batch.io/lease={lease.name}")
        grace = () if polite else ("--grace-period=0", "--force")
        kubectl("delete", "pod", "-n", space, pods[-1]["metadata"]["name"], "--wait=false", *grace)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome, _ = run(placement, lease, remote, (0,))
    thread.join()
    assert outcome.done == {0}
    assert remote.sums() == {0: 11}
    assert remote.began() == ["0.0.0", "0.0.1", "0.1.0", "0.1.1"]


def test_a_gang_that_can_not_be_placed_whole_does_not_start(
    placement: Placement, lease: Lease, s3_here: S3, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BROKEN_S", 10.0)
    remote = Together(s3_here.server.new_bucket())
    said: list[str] = []
    with queue(placement, "70m") as queued, pytest.raises(ClusterRefused) as caught:
        KubernetesRunner(queued, lease).run(
            Job("pretrain", (0, 1), remote.call, remote=remote), lambda event: said.append(event.message)
        )
    assert said[0].startswith("queue tests has not admitted the pods: ")
    assert "cpu" in said[0]
    assert str(caught.value).startswith("queue tests has not admitted the pods: ")
    assert remote.began() == [], "three of four pods would have fitted"
    names = [event["involvedObject"]["name"] for event in get(space, "events", "--field-selector", "reason=Scheduled")]
    assert not [name for name in names if name.startswith(f"{lease.run}-pretrain-")]


def test_a_gang_that_fits_is_admitted(placement: Placement, lease: Lease, s3_here: S3) -> None:
    remote = Together(s3_here.server.new_bucket())
    with queue(placement, "80m") as queued:
        outcome, _ = run(queued, lease, remote, (0, 1))
    assert outcome.done == {0, 1}
    assert remote.sums() == {0: 11, 1: 11}
