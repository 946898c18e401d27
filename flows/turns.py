"""One flow run at a time for each run in a store.

Two at once would do nobody's shards wrong, but some of them twice. So this asks, rather than holds slots of Prefect's
concurrency limits: their leases live in the server's memory unless it is told otherwise, and after a restart a slot
stays taken, or the flow that holds it is ended for having lost it.
"""

from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.runtime import flow_run
from prefect.states import Cancelled

from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store


def taken(run: Run) -> State[None] | None:
    """Mark this flow run as one of a run; where an earlier flow run is at it, the state to end this one with."""
    tag = f"run:{run.spec.name}"
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(flow_run.get_id()))
        client.update_flow_run(own.id, tags=[*own.tags, tag])
        marked = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[tag]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
        )
        others = client.read_flow_runs(flow_run_filter=marked)
    same = [other for other in others if parse_store(other.parameters["store"], run.settings).url == run.store.url]
    rivals = [other for other in same if _age(other) < _age(own)]
    if not rivals:
        return None
    first = min(rivals, key=_age)
    where = run.store.href(run.spec.name)
    return Cancelled(
        name="Skipped",
        message=(
            f"{where} is being worked on by flow run {first.name!r} since {first.start_time:%F %T} UTC; "
            f"wait for its end, or end it: prefect flow-run cancel {first.id}"
        ),
    )


def _age(run: FlowRun) -> tuple[datetime, UUID]:
    assert run.start_time is not None  # it is running
    return run.start_time, run.id
