"""A run that grows: what was listed since last time, in new time bins of the same cube."""

from datetime import UTC, date

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import State

from eo_batch.entry.estimates import read_terms
from eo_batch.entry.profiles import read_placement
from eo_batch.entry.run import Run
from eo_batch.entry.update import last_submitted, updated
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from flows.conduct import conduct
from flows.parameters import Days, Engine, Price, Spec, Stage, StoreUrl
from flows.plain import plainly


@flow
@plainly
def scheduled_update(
    spec: Spec,
    store: StoreUrl,
    profile: str | None = None,
    engine: Engine = "prefect",
    until: Stage | None = "publish",
    day: date | None = None,
    settle_days: Days = 5,
    look_again: bool = False,
    retry_quarantined: bool = False,
    cpu_hour_price: Price | None = None,
    prices: str | None = None,
    calibration: str | None = None,
    max_cost: Price | None = None,
) -> State[None]:
    """Move the dates of a run on to the day for which this is scheduled, and make the bins that are new.

    Bins that were there keep their chips and receipts. Only whole bins are made, `settle_days` after their end, so that
    scenes that are listed late are in them.

    Args:
        spec: The run spec, with the dates of the first run.
        store: Folder or URL that the run is kept in.
        profile: Path of a placement profile where the flow runs; none is that machine.
        engine: Who keeps the graph of stages: this flow, with a task for each, or one Argo workflow.
        until: Stop after this stage. Later ones learn from all bins, so they are done anew for every new one.
        day: The day to update to; none is that for which the flow run is scheduled.
        settle_days: Days that a bin's scenes have to be listed in.
        look_again: Search the old bins again, too, and make those chips again whose scenes have changed.
        retry_quarantined: Try shards again that run after run has given up.
        cpu_hour_price: What a CPU hour costs, for the table of costs.
        prices: Path of a price table where the flow runs, for the estimate.
        calibration: Path of a calibration there; none is the built-in one.
        max_cost: Refuse to begin a run that would cost more, in the currency of the price table.
    """
    settings, terms = Settings.from_env(), read_terms(prices, calibration, max_cost)
    place = parse_store(store, settings)
    last = last_submitted(place, spec.name, settings)
    upto = day or flow_run.get_scheduled_start_time().astimezone(UTC).date()
    run = Run(updated(spec, last, upto, settle_days, look_again), place, settings, refresh=look_again)
    return conduct(run, read_placement(profile), engine, until, cpu_hour_price, terms, retry_quarantined)
