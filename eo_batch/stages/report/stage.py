"""The stage: gather, draw, write one page."""

from eo_batch.core.identity import Identity
from eo_batch.core.layout import REPORT_PAGE
from eo_batch.core.receipts import Receipt
from eo_batch.core.spec import RunSpec
from eo_batch.io.store import Store
from eo_batch.stages.report.page import render
from eo_batch.stages.report.results import Results


def run(spec: RunSpec, store: Store) -> Receipt:
    """Write `index.html` of a run that is published; what later stages have not written is said in words.

    The same results give the same bytes. Raises DataError if the run is not published, StoreError.
    """
    prefix = Identity(spec).prefix("report")
    page = render(Results(spec, store)).encode()
    store.put(f"{prefix}/{REPORT_PAGE}", page)
    return Receipt(stage="report", shard="report", inputs=prefix, outputs={REPORT_PAGE: len(page)})
