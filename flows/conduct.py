"""Run a run under Prefect, with either engine."""

from collections.abc import Callable

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from eo_batch.core.errors import UsageError
from eo_batch.core.placement import Placement
from eo_batch.entry.drive import drive_stage
from eo_batch.entry.estimates import Terms
from eo_batch.entry.launch import runner_of
from eo_batch.entry.quarantine import release
from eo_batch.entry.run import Run
from eo_batch.entry.stages import stages_of
from flows.cancelling import ending_if_cancelled
from flows.parameters import Engine
from flows.plain import plainly
from flows.progress import shown
from flows.turns import taken

FREE = Terms()
"""No price table and no limit."""


@task(task_run_name="{stage}", cache_policy=NO_CACHE)
@plainly
def run_stage(stage: str, drive: Callable[[], None]) -> None:
    """One stage with all its shards, on the profile's runner."""
    drive()


@task(task_run_name="workflow", cache_policy=NO_CACHE)
@plainly
def run_workflow(follow: Callable[[], None]) -> None:
    """All stages in one Argo workflow, followed by receipts."""
    follow()


def conduct(
    run: Run,
    placement: Placement,
    engine: Engine,
    until: str | None,
    price: float | None,
    terms: Terms = FREE,
    retry_quarantined: bool = False,
) -> State[None]:
    """Run all stages up to `until` (all of them if None); the state to end a flow with.

    A shard that has a receipt is not run again, so a flow run takes up what an earlier one left. Whatever this started
    elsewhere is gone when it returns or raises. Raises UsageError where a placement can't do what is asked, PlanError
    if the run would cost more than the terms allow.
    """
    stages = stages_of(run)
    if until is not None and until not in stages:
        raise UsageError(f"until={until} is no stage of this run; its stages are {', '.join(stages)}")
    if engine == "argo" and placement.cluster is None:
        raise UsageError("engine=argo needs a profile with a cluster and Argo's address; give its path as profile")
    skipped = taken(run)
    if skipped is not None:
        return skipped
    terms.admit(run)
    if retry_quarantined:
        release(run)
    run.submit()
    with ending_if_cancelled(), shown(run, price) as progress:
        if engine == "argo":
            from eo_batch.entry.follow import follow_run

            workflows = placement.model_copy(update={"runner": "argo"})
            submitted = progress.submitted
            state = run_workflow(
                lambda: follow_run(run, workflows, progress, until, on_submitted=submitted), return_state=True
            )
        else:
            with runner_of(run, placement) as runner:
                for stage in stages[: stages.index(until) + 1 if until else None]:
                    state = run_stage(
                        stage, lambda stage=stage: drive_stage(run, stage, runner, progress), return_state=True
                    )
                    if state.is_failed():
                        break
    if state.is_failed():
        return Failed(message=state.message)
    told = ", ".join(f"{stage} {tally.ran} ran and {tally.kept} kept" for stage, tally in progress.tallies.items())
    return Completed(message=f"{run.spec.name}: shards: {told}")
