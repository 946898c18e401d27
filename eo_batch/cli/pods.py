"""Commands that pods run. People can, too, to see what a pod would do.

A pod's exit code tells Kubernetes and Argo what to do next: see `runners.base`; 2, as for wrong input, is what all pods
of its kind would end with.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from eo_batch.core.errors import EoBatchError, UsageError

if TYPE_CHECKING:
    from types import FrameType

StoreOpt = Annotated[str, typer.Option("--store", "-s", envvar="EO_BATCH_STORE", help="Folder or URL of the store.")]


class _Stopped(KeyboardInterrupt):
    """SIGTERM. Event loops hold back whatever else a signal's handler raises."""


def slice_(
    key: Annotated[str, typer.Argument(help="Key of the list of shards in the store.", show_default=False)],
    number: Annotated[int, typer.Argument(help="Slice of the list to run.", min=0, show_default=False)],
    store: StoreOpt,
) -> None:
    """Run one slice of a frozen list of shards: what the pods of a Job do."""
    from eo_batch.entry.work import run_slice
    from eo_batch.io.store import parse_store
    from eo_batch.settings import Settings

    with _pod():
        if not run_slice(parse_store(store), key, number, Settings.from_env(), _say):
            from eo_batch.runners.base import DO_NOT_RETRY

            raise typer.Exit(DO_NOT_RETRY)


@contextmanager
def _pod() -> Iterator[None]:
    """End the process with POLITE_STOP when it is asked to end, and as on wrong input where neither this pod nor any
    other of its kind will do better.

    What runs inside sees a KeyboardInterrupt first, and has until the pod's grace period is over.
    """
    from eo_batch.runners.base import POLITE_STOP

    asked = False

    def stop(number: int, frame: "FrameType | None") -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked twice, it would not finish what it does to end well
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException as error:
        if asked:
            _say("asked to end: what is done stays done, and the rest runs again")
            sys.stdout.flush()
            os._exit(POLITE_STOP)  # a library's thread that still waits would keep the pod until it is killed
        if isinstance(error, EoBatchError) and not error.retryable:
            _say(f"error: {error}")
            raise typer.Exit(UsageError.exit_code) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
