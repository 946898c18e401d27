"""Commands that pods run. People can, too, to see what a pod would do.

A pod's exit code tells Kubernetes and Argo what to do next: see `runners.base`; 2, as for wrong input, is what all pods
of its kind would end with.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eo_batch.core import layout
from eo_batch.core.errors import EoBatchError, UsageError
from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP

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
            raise typer.Exit(DO_NOT_RETRY)


def step(
    stage: Annotated[str, typer.Argument(help="Stage of one shard.", show_default=False)],
    store: StoreOpt,
    run: Annotated[str, typer.Option("--run", "-r", help="Name of the run.")],
    work: Annotated[str, typer.Option(help="What tells the workflow from all others, such as its uid.")],
    profile: Annotated[str, typer.Option(help="Where what comes next runs: a profile, YAML.")],
    following: Annotated[str, typer.Option("--next", help="Stages to say of what is missing, with commas.")] = "",
    outputs: Annotated[Path | None, typer.Option(help="Folder for that, a file each.", show_default=False)] = None,
    spec: Annotated[str, typer.Option(help="Run spec, YAML.", show_default="as submitted last")] = "",
    spec_at: Annotated[str, typer.Option(help="Key of a run spec in the store, instead.")] = "",
    until: Annotated[str, typer.Option(help="Last stage that is wanted.", show_default="all")] = "",
    refresh: Annotated[str, typer.Option(help="Make chips again whose scenes have changed: true or false.")] = "false",
    lease: Annotated[str, typer.Option(help="Lease that owns the workflow.", show_default="none")] = "",
    identity: Annotated[str, typer.Option(help="What the run's stages have to be.", show_default="any")] = "",
) -> None:
    """Run a stage of one shard, then say what its workflow is to do next."""
    from eo_batch.core.placement import parse_placement
    from eo_batch.entry.step import Step, clean, open_step_run
    from eo_batch.io.store import parse_store
    from eo_batch.settings import Settings

    with _pod():
        if refresh not in ("true", "false"):
            raise UsageError(f"refresh={refresh!r} is neither true nor false")
        settings = Settings.from_env()
        opened = open_step_run(parse_store(store), run, work, settings, refresh == "true", spec, spec_at, identity)
        this = Step(opened, parse_placement(profile), work, until or None, lease)
        if not this.perform(stage, _say):
            raise typer.Exit(DO_NOT_RETRY)
        told = this.following([name for name in following.split(",") if name])
        for name, text in told.items():
            if outputs is not None:
                outputs.mkdir(parents=True, exist_ok=True)
                (outputs / name).write_text(text)
            else:
                typer.echo(f"{name}: {text}")
        if stage == layout.STAGES[-1]:
            clean(opened, work)


@contextmanager
def _pod() -> Iterator[None]:
    """End the process with POLITE_STOP when it is asked to end, and as on wrong input where neither this pod nor any
    other of its kind will do better.

    What runs inside sees a KeyboardInterrupt first, and has until the pod's grace period is over.
    """
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
