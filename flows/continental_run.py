"""A whole run, from plan to report."""

from prefect import flow
from prefect.states import State

from eo_batch.entry.estimates import read_terms
from eo_batch.entry.profiles import read_placement
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from flows.conduct import conduct
from flows.parameters import Engine, Price, Spec, Stage, StoreUrl
from flows.plain import plainly


@flow
@plainly
def continental_run(
    spec: Spec,
    store: StoreUrl,
    profile: str | None = None,
    engine: Engine = "prefect",
    until: Stage | None = None,
    refresh: bool = False,
    retry_quarantined: bool = False,
    cpu_hour_price: Price | None = None,
    prices: str | None = None,
    calibration: str | None = None,
    max_cost: Price | None = None,
) -> State[None]:
    """Run a spec, or go on with a run that was interrupted: only what has no receipt yet is done.

    Args:
        spec: The run spec.
        store: Folder or URL that the run is kept in.
        profile: Path of a placement profile where the flow runs; none is that machine.
        engine: Who keeps the graph of stages: this flow, with a task for each, or one Argo workflow.
        until: Stop after this stage.
        refresh: Make chips again whose scenes have changed.
        retry_quarantined: Try shards again that run after run has given up.
        cpu_hour_price: What a CPU hour costs, for the table of costs.
        prices: Path of a price table where the flow runs, for the estimate.
        calibration: Path of a calibration there; none is the built-in one.
        max_cost: Refuse to begin a run that would cost more, in the currency of the price table.
    """
    settings, terms = Settings.from_env(), read_terms(prices, calibration, max_cost)
    run = Run(spec, parse_store(store, settings), settings, refresh)
    return conduct(run, read_placement(profile), engine, until, cpu_hour_price, terms, retry_quarantined)
