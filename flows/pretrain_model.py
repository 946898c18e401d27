"""An encoder, and what it learns from."""

from prefect import flow
from prefect.states import State

from eo_batch.entry.profiles import read_placement
from eo_batch.entry.run import Run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from flows.conduct import conduct
from flows.parameters import Engine, Price, Spec, StoreUrl
from flows.plain import plainly


@flow
@plainly
def pretrain_model(
    spec: Spec,
    store: StoreUrl,
    profile: str | None = None,
    engine: Engine = "prefect",
    cpu_hour_price: Price | None = None,
) -> State[None]:
    """Pretrain an encoder for each seed of a spec, on chips that are there or are made first.

    Args:
        spec: The run spec; with another section `pretrain` than a run of the same name, its chips are used as they are.
        store: Folder or URL that the run is kept in.
        profile: Path of a placement profile where the flow runs; none is that machine.
        engine: Who keeps the graph of stages: this flow, with a task for each, or one Argo workflow.
        cpu_hour_price: What a CPU hour costs, for the table of costs.
    """
    settings = Settings.from_env()
    run = Run(spec, parse_store(store, settings), settings)
    return conduct(run, read_placement(profile), engine, "pretrain", cpu_hour_price)
