"""One step of a workflow: run a stage of one shard, then say what is to be done next.

| the pod dies | what happens |
|---|---|
| while it runs its shard | the next try runs it again, and after enough deaths gives it up with a note |
| after the receipt, before it has said what is next | the shard is skipped; lists that are frozen stay as they are |
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eo_batch.core import layout
from eo_batch.core.digest import digest
from eo_batch.core.errors import StoreMissing, UsageError
from eo_batch.core.placement import Placement
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import dump_spec, parse_spec
from eo_batch.entry.drive import StageState, memory_mb, state_of
from eo_batch.entry.run import Run
from eo_batch.entry.stages import prepare, stages_of
from eo_batch.entry.work import Work, other_version, run_slice
from eo_batch.io.store import Store
from eo_batch.runners.manifests import LEASE_LABEL, Manifest, labels_of, object_name, slicing, work_manifest
from eo_batch.runners.workflow import FAN_OUTS, RUNNER, success_of
from eo_batch.settings import Settings

_NAME_CHARS = 10


@dataclass(frozen=True)
class Step:
    """A run as the steps of one workflow see it."""

    run: Run
    placement: Placement
    """Where fan-outs run."""
    work: str
    """What tells the workflow from all others: its uid."""
    until: str | None = None
    """Last stage that is wanted; None is all of them."""
    lease: str = ""
    """Name of the Lease that owns the workflow, if one does."""

    @property
    def wanted(self) -> list[str]:
        """The run's stages as far as they are wanted. Raises UsageError if `until` is none of them."""
        stages = stages_of(self.run)
        if self.until is None:
            return stages
        if self.until not in stages:
            raise UsageError(f"until={self.until} is no stage of this run; its stages are {', '.join(stages)}")
        return stages[: stages.index(self.until) + 1]

    def perform(self, stage: str, say: Callable[[str], None]) -> bool:
        """Run a stage of one shard unless it is done or not wanted; False if it failed for good, as a note says."""
        if stage not in self.wanted or not state_of(self.run, stage).missing:
            say(f"{stage}: nothing to do")
            return True
        work = Work(self.run, stage, RUNNER, self.work)
        key = work.freeze([0], 1)[2]
        return run_slice(self.run.store, key, 0, self.run.settings, say)

    def following(self, stages: Sequence[str]) -> dict[str, str]:
        """Output parameters that say what is to be done in stages whose upstream is done: see `runners.workflow`."""
        found: dict[str, str] = {}
        for stage in stages:
            found |= self._outputs(stage)
        return found

    def _outputs(self, stage: str) -> Mapping[str, str]:
        state = state_of(self.run, stage) if stage in self.wanted else None
        missing = state.missing if state is not None else ()
        if stage not in FAN_OUTS:
            return {f"{stage}-slices": str(len(missing))}
        if state is None or not missing:
            return {f"{stage}-slices": "0", f"{stage}-manifest": "", f"{stage}-success": ""}
        manifest, slices = self._manifest(state)
        return {
            f"{stage}-slices": str(slices),
            f"{stage}-manifest": json.dumps(manifest),
            f"{stage}-success": success_of(manifest),
        }

    def _manifest(self, state: StageState) -> tuple[Manifest, int]:
        """The object that runs the missing shards of a stage, and the number of its slices. However often it is asked
        for, it has the same name and works on the same list."""
        stage = state.stage
        prepare(self.run, stage)
        work = Work(self.run, stage, RUNNER, self.work)
        argv = work.freeze(state.missing, slicing(self.placement, stage, len(state.missing))[0])
        listed = work.frozen()
        per_pod, slices = listed.shards_per_pod, -(-len(listed.indices) // listed.shards_per_pod)
        name = work_name(self.run, stage, self.work)
        labels = labels_of(self.run.spec.name) | ({LEASE_LABEL: self.lease} if self.lease else {})
        needed_mb = memory_mb(self.run, state)
        return work_manifest(self.placement, stage, name, argv, slices, per_pod, labels, needed_mb), slices


def identity_of(run: Run) -> str:
    """What tells whether two versions of eo-batch see the same stages in a run."""
    return digest([run.identity.prefix(stage) for stage in stages_of(run)])


def work_name(run: Run, stage: str, work: str) -> str:
    """Name of the object that runs a stage's shards in the workflow `work`."""
    return object_name(run.spec.name, stage, digest(work, _NAME_CHARS))


def clean(run: Run, work: str) -> None:
    """Delete what the workflow `work` left in the store for its own use; notes on failures stay."""
    for stage in stages_of(run):
        Work(run, stage, RUNNER, work).forget()
    run.store.delete(layout.workflow_spec(run.spec.name, work))


def open_step_run(
    store: Store,
    name: str,
    work: str,
    settings: Settings,
    refresh: bool = False,
    spec: str = "",
    spec_at: str = "",
    identity: str = "",
) -> Run:
    """The run called `name`, as all steps of the workflow `work` see it.

    `spec_at` is the key of its spec, which nobody changes. Without it the first step to ask settles what the spec is:
    `spec` (YAML, which is then submitted), or else the one that was submitted last. `identity` is that of the run where
    it was submitted. Raises SpecError, UsageError, StoreError.
    """
    run = Run(_spec(store, name, work, settings, spec, spec_at), store, settings, refresh)
    if identity and identity != identity_of(run):
        raise other_version(run)
    return run


def _spec(store: Store, name: str, work: str, settings: Settings, spec: str, spec_at: str) -> RunSpec:
    if spec_at:
        return parse_spec(_text(store, spec_at), where=store.href(spec_at))
    key = layout.workflow_spec(name, work)
    if not store.exists(key):
        where = f"{name}/{layout.RUN_SPEC}"
        wanted = parse_spec(spec, where="spec") if spec else parse_spec(_text(store, where), where=store.href(where))
        if wanted.name != name:
            raise UsageError(
                f"the workflow's parameters do not agree: run={name}, and the spec's name is {wanted.name}"
            )
        if spec:
            Run(wanted, store, settings).submit()
        store.put_if_absent(key, dump_spec(wanted).encode())
    return parse_spec(_text(store, key), where=store.href(key))


def _text(store: Store, key: str) -> str:
    try:
        return store.get(key).decode()
    except StoreMissing as error:
        raise UsageError(
            f"{store.href(key)} is not there; give the workflow a spec, or submit the run first"
        ) from error
