"""Embeddings of all chips of a run."""

from prefect import flow
from prefect.states import State

from eo_batch.entry.profiles import read_placement
from eo_batch.entry.run import open_run
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from flows.conduct import conduct
from flows.parameters import Engine, Price, RunName, StoreUrl
from flows.plain import plainly


@flow
@plainly
def generate_embeddings(
    name: RunName,
    store: StoreUrl,
    profile: str | None = None,
    engine: Engine = "prefect",
    cpu_hour_price: Price | None = None,
) -> State[None]:
    """Embed all chips of a run that is in the store, with its encoders; what they need and is not there is made first.

    Args:
        name: Name of the run.
        store: Folder or URL that the run is kept in.
        profile: Path of a placement profile where the flow runs; none is that machine.
        engine: Who keeps the graph of stages: this flow, with a task for each, or one Argo workflow.
        cpu_hour_price: What a CPU hour costs, for the table of costs.
    """
    settings = Settings.from_env()
    run = open_run(parse_store(store, settings), name, settings)
    return conduct(run, read_placement(profile), engine, "embed", cpu_hour_price)
