"""What every runner whose calls run in pods owes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from eo_batch.runners.base import Event, Job, Runner
from tests.cluster.kube import wait_for
from tests.runners.calls import Shelf, Sleeping
from tests.runners.contract import WorkerContract


class PodContract(WorkerContract):
    """The suite for them."""

    at_once: ClassVar[int] = 2
    """How many of three calls run at once."""

    @pytest.fixture
    def left(self) -> Callable[[], list[str]]:
        """What runs in the runner's namespace."""
        raise NotImplementedError

    def test_an_interrupt_stops_the_workers(
        self, runner: Runner, notes: Path | Shelf, left: Callable[[], list[str]]
    ) -> None:
        call, events = Sleeping(notes), list[Event]()
        assert isinstance(notes, Shelf)

        def interrupt() -> None:
            wait_for(lambda: len(notes.names()) == self.at_once, "the calls have begun")
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            runner.run(Job("test", (0, 1, 2), call), events.append)
        thread.join()
        assert events == []
        assert left() == []
