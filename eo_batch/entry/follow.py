"""A whole run as one Argo workflow: submit it, and follow the run by its receipts."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from eo_batch.core import layout
from eo_batch.core.errors import EoBatchError
from eo_batch.core.placement import Placement
from eo_batch.core.specfile import dump_spec
from eo_batch.entry.door import Door
from eo_batch.entry.drive import StageState, Watcher, known_state, shard_failed
from eo_batch.entry.run import Run
from eo_batch.entry.stages import stages_of
from eo_batch.entry.step import clean, identity_of, work_name
from eo_batch.entry.work import Work
from eo_batch.runners.argo import WatchedWorkflow, check_argo, stage_target
from eo_batch.runners.argo_server import Server
from eo_batch.runners.base import Job
from eo_batch.runners.book import Book
from eo_batch.runners.kube import Kube, connect
from eo_batch.runners.lease import Lease, held_lease
from eo_batch.runners.manifests import labels_of, object_name, slicing
from eo_batch.runners.preflight import preflight
from eo_batch.runners.watch import Watch
from eo_batch.runners.workflow import FAN_OUTS, RUNNER, run_workflow


def follow_run(
    run: Run,
    placement: Placement,
    watcher: Watcher,
    until: str | None = None,
    on_submitted: Callable[[str], None] | None = None,
) -> None:
    """Run all stages up to `until` (all of them if None) as one workflow, and watch it.

    `on_submitted` is told the address of the workflow's page. A run of which nothing is missing takes no workflow.
    Raises ShardFailed naming what could not be done, ClusterError where the cluster is in the way, StoreError. The
    workflow and all it created are gone when this returns or raises; if this process is killed, the sweeper sees to it.
    """
    stages = _stages(run, until)
    first = _first_missing(run, stages, watcher)
    if first is None:
        return
    name = _name(run)
    with _tidy(run, name) as works, held_lease(placement, run.spec.name) as lease:
        server = Server(lease.kube, placement.argo)
        _check(lease.kube, placement, stages)
        given = _parameters(run, _put_spec(run, name), until) | {"lease": lease.name}
        works.append(server.submit(run_workflow(placement, name, lease.labels, lease.owner, **given)))
        try:
            if on_submitted is not None:
                on_submitted(server.url(name))
            followed = _Followed(run, placement, watcher, lease, server, name, works[0])
            for stage in stages[stages.index(first.stage) :]:
                followed.stage(first if stage == first.stage else known_state(run, stage, watcher))
        except BaseException as error:
            try:
                server.delete(name)
            except EoBatchError as left:
                error.add_note(str(left))
            raise


def detach_run(run: Run, placement: Placement, until: str | None = None) -> None:
    """Submit a run's workflow, say where to look for it, and leave it to itself. Its deadline ends it, and its time to
    live deletes it. Raises ClusterError, UsageError, StoreError."""
    assert placement.cluster is not None
    stages = _stages(run, until)
    kube = connect(placement.cluster)
    server = Server(kube, placement.argo)
    _check(kube, placement, stages)
    name = _name(run)
    given = _parameters(run, _put_spec(run, name), until)
    server.submit(run_workflow(placement, name, labels_of(run.spec.name), None, **given))
    where = f"-n {kube.namespace} {name}"
    print(f"submitted: {server.url(name)}")
    print(f"look at it: eo-batch status --run {run.spec.name} --store {run.store.url}; argo get {where}")
    print(f"cancel it:  kubectl delete workflow {where}")


@dataclass(frozen=True)
class _Followed:
    """A workflow that was submitted."""

    run: Run
    placement: Placement
    watcher: Watcher
    lease: Lease
    server: Server
    name: str
    uid: str

    def stage(self, state: StageState) -> None:
        """Watch one stage until it is complete. Raises ShardFailed."""
        run, stage = self.run, state.stage
        self.watcher.begin(state)
        if state.missing:
            remote = Work(run, stage, RUNNER, self.uid)
            remote.expect(state.missing)
            job = Job(stage, state.missing, Door(run, stage, RUNNER), remote=remote)
            book = Book(job, partial(self.watcher.event, state))
            Watch(self.lease, remote, book, self._target(stage), self._slice_of(state)).follow()
            failed = book.outcome().failed
            if failed:
                raise shard_failed(state, failed)
        self.watcher.end(state)

    def _target(self, stage: str) -> WatchedWorkflow:
        kind = "JobSet" if self.placement.at(stage).nodes > 1 else "Job"
        return stage_target(self.server, self.name, self.lease, stage, work_name(self.run, stage, self.uid), kind)

    def _slice_of(self, state: StageState) -> dict[int, int | None]:
        if state.stage not in FAN_OUTS:
            return dict.fromkeys(state.missing)
        per_pod, _ = slicing(self.placement, state.stage, len(state.missing))
        return {index: position // per_pod for position, index in enumerate(state.missing)}


def _stages(run: Run, until: str | None) -> list[str]:
    stages = stages_of(run)
    return stages[: stages.index(until) + 1] if until is not None else stages


def _first_missing(run: Run, stages: list[str], watcher: Watcher) -> StageState | None:
    """The first stage of which something is missing, if there is one; the watcher is told of those before it."""
    for stage in stages:
        state = known_state(run, stage, watcher)
        if state.missing:
            return state
        watcher.begin(state)
        watcher.end(state)
    return None


def _check(kube: Kube, placement: Placement, stages: list[str]) -> None:
    check_argo(kube, placement)
    for stage in stages:
        preflight(kube, placement, stage)


def _name(run: Run) -> str:
    return object_name(run.spec.name, uuid.uuid4().hex[:8])


@contextmanager
def _tidy(run: Run, workflow: str) -> Iterator[list[str]]:
    """Delete in the end what a workflow had in the store for its own use: its spec, and the lists named here."""
    works: list[str] = []
    try:
        yield works
    except BaseException as error:
        try:
            _delete_notes(run, workflow, works)
        except EoBatchError as left:
            error.add_note(str(left))  # why the run ended matters more
        raise
    _delete_notes(run, workflow, works)


def _delete_notes(run: Run, workflow: str, works: Sequence[str]) -> None:
    for work in (*works, workflow):
        clean(run, work)


def _put_spec(run: Run, workflow: str) -> str:
    """Write down the spec for the steps of a workflow, whatever is submitted meanwhile; the key."""
    key = layout.workflow_spec(run.spec.name, workflow)
    run.store.put(key, dump_spec(run.spec).encode(), expires=True)
    return key


def _parameters(run: Run, spec_at: str, until: str | None) -> dict[str, str]:
    given = {"run": run.spec.name, "store": run.store.url, "spec_at": spec_at, "until": until or ""}
    return given | {"refresh": "true" if run.refresh else "false", "identity": identity_of(run)}
