"""Ends a flow run that was cancelled though its worker does not end it.

A worker does so within half a minute. It may be gone, though, and one whose server was away for half a minute stops
listening for good (3.8). So a flow looks at its own state, too, and ends itself as a worker would: by SIGTERM, which
Prefect turns into an exception that passes through everything that holds something.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

LOOK_EVERY_S = 15.0
WORKER_S = 45.0
"""What a worker is granted: half a minute, and the time until it has heard of it."""


@contextmanager
def ending_if_cancelled() -> Iterator[None]:
    """Watch this flow run's state until the end of the block."""
    over = threading.Event()
    log = get_run_logger()

    def watch(own: UUID) -> None:
        cancelled_s: float | None = None
        while not over.wait(LOOK_EVERY_S):
            try:
                with get_client(sync_client=True) as client:
                    state = client.read_flow_run(own).state
            except Exception as error:
                log.debug("the state of this flow run is not known now: %s", error)
                continue
            if state is None or not (state.is_cancelling() or state.is_cancelled()):
                continue
            cancelled_s = cancelled_s or time.monotonic()
            if time.monotonic() - cancelled_s >= WORKER_S:
                log.warning("this flow run is cancelled, and no worker ends it; it ends itself")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, args=(UUID(flow_run.get_id()),), daemon=True).start()
    try:
        yield
    finally:
        over.set()
