"""Ctrl-C and SIGTERM stop a run alike, wherever in it they arrive."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from eo_batch.core.errors import EoBatchError, Interrupted


@contextmanager
def stoppable(again: str) -> Iterator[None]:
    """Within the block both signals end what runs, and raise Interrupted, which names the command to go on with."""
    asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        # What is cut in two, such as an event loop in the making, complains when it is thrown away: to nobody's use.
        sys.unraisablehook = lambda unraisable: None
        raise KeyboardInterrupt

    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    except EoBatchError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        # Out of the middle of an import, what was raised as KeyboardInterrupt may come as any other error.
        if not asked and not isinstance(error, KeyboardInterrupt):
            raise
        stopped = Interrupted(f"stopped; what is done stays done. Go on with: {again}")
        for note in getattr(error, "__notes__", ()):
            stopped.add_note(note)
        raise stopped from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
