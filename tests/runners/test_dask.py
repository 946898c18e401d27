"""The runner `dask` keeps the contract on a cluster of processes, and loses schedulers and workers without loss."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import get_task_stream

import eo_batch
from eo_batch.core.errors import EoBatchError
from eo_batch.io.store import parse_store
from eo_batch.runners.base import Event, Job
from eo_batch.runners.dask import DaskRunner
from eo_batch.runners.dask_link import connected
from eo_batch.runners.dask_places import AtAddress, LocalProcesses
from eo_batch.runners.dask_shift import Patience, Queue
from tests.bad_input.test_interrupts import members, wait_for
from tests.io.worlds import WEST, cube_objects, go, planet, spec_of
from tests.runners.contract import RUNNERS, Fine, WorkerContract, agree, run
from tests.runners.dask_processes import ROOT, Cluster, dask_cluster
from tests.runners.receipted import Receipted

__all__ = ["planet"]


class TestDask(WorkerContract):
    runner_name = "dask"

    @pytest.fixture
    def runner(self) -> Iterator[DaskRunner]:
        runner = RUNNERS["dask"]()
        assert isinstance(runner, DaskRunner)
        with runner:
            yield runner


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with dask_cluster(tmp_path / "dask") as cluster:
        yield cluster


def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def test_an_address_that_takes_connections_and_says_nothing_is_no_scheduler() -> None:
    """As where a forwarded port leads to a node that is lost: distributed's client alone waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(OSError, match="takes connections, and does not answer"):
            connected(f"127.0.0.1:{silent.getsockname()[1]}", 0.5)
        assert time.monotonic() - begun < 10


def test_an_index_that_failed_is_not_ready_before_its_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the pause doubles: a store that restarts for half a minute must not cost all tries."""
    now = 100.0
    monkeypatch.setattr("eo_batch.runners.dask_shift.time.monotonic", lambda: now)
    queue = Queue((7, 8), retry_s=10)
    assert (queue.take(), queue.take(), queue.take()) == (7, 8, None)
    queue.add_failed(7)
    queue.add_interrupted(8)
    assert (queue.take(), queue.take(), len(queue)) == (8, None, 1)
    now += 10
    assert queue.take() == 7
    queue.add_failed(7)
    now += 19
    assert queue.take() is None
    now += 1
    assert (queue.take(), len(queue)) == (7, 0)


@pytest.mark.slow
def test_a_scheduler_that_dies_costs_only_what_was_in_flight(cluster: Cluster, tmp_path: Path) -> None:
    call, indices = Receipted(notes(tmp_path)), tuple(range(10))
    events: list[Event] = []
    kept: set[int] = set()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 4:
            cluster.kill_scheduler()
            kept.update(call.receipts())
            cluster.start_scheduler()

    outcome = DaskRunner(AtAddress(cluster.address)).run(Job("test", indices, call, attempts=1), on_event)
    agree(outcome, events, indices)
    assert outcome.done == set(indices), "a lost scheduler costs no try"
    assert len(kept) >= 4
    assert all(call.begun(index) == 1 for index in kept), "what was done is not done again"
    again = [event.index for event in events if event.kind == "retry"]
    assert 1 <= len(again) <= 2, "what was in flight"
    assert sum(call.begun(index) - 1 for index in indices) <= len(again)


def test_a_scheduler_that_stays_away_is_an_error_in_time(cluster: Cluster, tmp_path: Path) -> None:
    call, events = Receipted(notes(tmp_path)), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 1:
            cluster.kill_scheduler()

    runner = DaskRunner(AtAddress(cluster.address), Patience(scheduler_s=4, tell_s=1))
    begun = time.monotonic()
    with pytest.raises(EoBatchError, match=rf"no Dask scheduler has answered for \d+ s: .*{cluster.address}"):
        runner.run(Job("test", tuple(range(20)), call), on_event)
    assert time.monotonic() - begun < 40
    [told] = [event for event in events if event.kind == "wait"]
    assert told.message.startswith("no Dask scheduler answers yet: ")


def test_a_job_without_workers_says_what_it_waits_for_and_ends_in_time(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", workers=0) as cluster:
        events: list[Event] = []
        runner = DaskRunner(AtAddress(cluster.address), Patience(tell_s=1, worker_s=3))
        runner.client().close()
        with pytest.raises(
            EoBatchError, match=r"no Dask worker has come for \d s: start some with: .* dask worker tcp"
        ):
            runner.run(Job("test", (0, 1), Fine(notes(tmp_path))), events.append)
        assert {(event.index, event.kind) for event in events} == {(None, "wait")}
        assert events[-1].message.startswith("no Dask worker has come for ")


def test_workers_that_come_late_are_used(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", workers=0) as cluster:
        events: list[Event] = []

        def on_event(event: Event) -> None:
            events.append(event)
            if event.kind == "wait":
                cluster.start_worker()

        runner = DaskRunner(AtAddress(cluster.address), Patience(tell_s=1))
        runner.client().close()
        outcome = runner.run(Job("test", (0, 1, 2), Fine(notes(tmp_path))), on_event)
    assert outcome.done == {0, 1, 2}
    assert [event.kind for event in events] == ["wait", "done", "done", "done"]


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "costs"), [(signal.SIGTERM, 0), (signal.SIGKILL, 1)])
def test_a_worker_that_is_told_to_go_costs_no_try(
    cluster: Cluster, tmp_path: Path, signum: signal.Signals, costs: int
) -> None:
    """As when its pod is deleted; that a worker is killed can as well be the fault of what it ran."""
    call, events, indices = Receipted(notes(tmp_path), takes_s=1.5), list[Event](), tuple(range(6))

    def disturb() -> None:
        wait_for("an index on each worker", lambda: call.running() == 2)
        victim = cluster.workers[0].pid
        # The SIGTERM that asks a container to end reaches its first process only.
        os.kill(victim, signum) if signum == signal.SIGTERM else os.killpg(victim, signum)

    disturbance = threading.Thread(target=disturb)
    disturbance.start()
    outcome = DaskRunner(AtAddress(cluster.address)).run(Job("test", indices, call, attempts=1), events.append)
    disturbance.join()
    agree(outcome, events, indices)
    assert len(outcome.failed) == costs
    assert all("worker process died" in failure.message for failure in outcome.failed.values())
    assert sum(event.kind == "retry" for event in events) == 1 - costs


def test_the_scheduler_never_knows_more_tasks_than_there_are_workers(cluster: Cluster, tmp_path: Path) -> None:
    """However large the job: what is queued there would be lost with it, and can't be told from what runs."""
    call, most = Fine(notes(tmp_path)), 0
    runner = DaskRunner(AtAddress(cluster.address))
    with runner.client() as client:

        def on_event(_: Event) -> None:
            nonlocal most
            most = max(most, client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))

        outcome = runner.run(Job("test", tuple(range(100)), call), on_event)
    assert len(outcome.done) == 100
    assert most == 2


def test_ctrl_c_on_a_cluster_of_others_begins_nothing_more(cluster: Cluster, tmp_path: Path) -> None:
    call, events = Receipted(notes(tmp_path), takes_s=1.0), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if event.kind == "done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DaskRunner(AtAddress(cluster.address)).run(Job("test", tuple(range(20)), call), on_event)
    # Where the other one that ran has ended by then, there is nothing to wait for.
    assert [event.kind for event in events] in (["done", "wait"], ["done"])
    assert all(event.message.startswith("stopped; 1 call still runs on the cluster's workers") for event in events[1:])
    time.sleep(2.5)
    assert len(call.receipts()) == 2, "the other one that ran has ended by itself, and no more began"


CTRL_C = """
import sys, time
from pathlib import Path
from eo_batch.runners.base import Job
from eo_batch.runners.dask import DaskRunner
from eo_batch.runners.dask_places import LocalProcesses
from tests.runners.receipted import Receipted

if __name__ == "__main__":
    with DaskRunner(LocalProcesses(2)) as runner:
        runner.run(Job("test", tuple(range(20)), Receipted(Path(sys.argv[1]), takes_s=5.0)), print)
"""


def test_ctrl_c_ends_everything_without_noise(tmp_path: Path) -> None:
    folder = notes(tmp_path)
    (tmp_path / "job.py").write_text(CTRL_C)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "job.py", folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for("two indices", lambda: len(list(folder.glob("*.0"))) == 2 or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert told.splitlines()[-1] == "KeyboardInterrupt"
        assert told.count("Traceback") == 1, told
        wait_for("the end of all workers", lambda: not members(process.pid), 5.0)
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    assert not list(folder.glob("receipt-*"))


def test_workers_are_spawned_and_have_one_thread(tmp_path: Path) -> None:
    def about() -> tuple[str, str, str]:
        import multiprocessing
        import os

        started = type(multiprocessing.process.current_process()).__name__
        return os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"], started

    with DaskRunner(LocalProcesses(2)) as runner:
        run(runner, Fine(notes(tmp_path)), tuple(range(6)))
        with runner.client() as client:
            answers = client.run(about)
            assert set(client.nthreads().values()) == {1}
    assert list(answers.values()) == [("1", "1", "SpawnProcess")] * 2


def test_a_run_and_a_view_of_its_cube_on_the_same_cluster(planet: Path, tmp_path: Path) -> None:
    """The same bytes as without Dask; and what is lazy computes on the workers, to the same number."""
    spec = spec_of(planet / "items.json", WEST)
    alone, _ = go(spec, parse_store(str(tmp_path / "alone")))
    with DaskRunner(LocalProcesses(2)) as runner:
        together, _ = go(spec, parse_store(str(tmp_path / "together")), runner=runner)
        assert cube_objects(together) == cube_objects(alone)
        assert {receipt.runner for receipt in together.receipts("chips").values()} == {"dask"}
        for each in (alone, together):
            each.submit()
        here = float(eo_batch.open_cube(str(tmp_path / "alone/t")).s2_10m.mean().compute(scheduler="synchronous"))
        with runner.client() as client, get_task_stream(client) as stream:
            there = float(eo_batch.open_cube(str(tmp_path / "together/t")).s2_10m.mean().compute())
            workers = set(client.nthreads())
    assert 0 < here < 1
    assert there == pytest.approx(here, rel=1e-6)
    assert {task["worker"] for task in stream.data} == workers
