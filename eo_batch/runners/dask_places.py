"""Where a Dask cluster is, and what belongs to it: one of a known address, or processes of this machine.

The clusters of the Dask operator are in `dask_cluster`.
"""

import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from eo_batch.runners.base import Job

if TYPE_CHECKING:
    from distributed import LocalCluster, Worker

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment of workers: sums in several threads have another order, and so other last bits."""


class Place(Protocol):
    """A Dask cluster, wherever it is."""

    def address(self, job: Job | None) -> str:
        """Address at which the scheduler answers now. Starts the cluster if it does not run, or does not suit the job;
        with None whatever runs suits.

        Raises OSError saying why if there is none yet, EoBatchError if there will be none.
        """
        ...

    def want(self, workers: int) -> None:
        """Tell, every few seconds, how many workers could be busy now. The place knows how many it may have.

        Raises EoBatchError if the cluster is taken from us.
        """
        ...

    def disrupted(self, worker: str) -> bool:
        """Whether others took away a worker (named by its address) that is gone; False if nobody knows."""
        ...

    def waiting(self) -> str:
        """Why no worker may have come, and where to look, for a person. Raises EoBatchError if none ever will."""
        ...

    def close(self) -> bool:
        """End everything that was started here; False if nothing was, so that calls that run go on."""
        ...


@dataclass(frozen=True)
class AtAddress:
    """A cluster that somebody else started, and ends."""

    scheduler: str
    """Such as tcp://scheduler:8786."""

    def address(self, job: Job | None) -> str:
        """See `Place`."""
        return self.scheduler

    def want(self, workers: int) -> None:
        """See `Place`. How many workers there are is not ours to say."""

    def disrupted(self, worker: str) -> bool:
        """See `Place`."""
        return False

    def waiting(self) -> str:
        """See `Place`."""
        return f"start some with: OMP_NUM_THREADS=1 dask worker {self.scheduler} --nthreads 1"

    def close(self) -> bool:
        """See `Place`."""
        return False


@dataclass
class LocalProcesses:
    """Processes of this machine, each with one thread, which start at the first job and end with `close`.

    They are spawned, never forked: obstore's threads do not survive a fork. Each has a nanny in this process that
    starts another worker when one dies; that hides nothing, since the scheduler reports each death.
    """

    workers: int
    _cluster: "LocalCluster | None" = field(default=None, repr=False)
    _belongings: ExitStack = field(default_factory=ExitStack, repr=False)

    def address(self, job: Job | None) -> str:
        """See `Place`."""
        if self._cluster is None:
            self._cluster = self._start()
        return str(self._cluster.scheduler_address)

    def _start(self) -> "LocalCluster":
        import logging

        import dask
        from distributed import LocalCluster

        # Nannies read these whenever they start a process; a person's own configuration must not change results.
        self._belongings.enter_context(
            dask.config.set(
                {
                    "distributed.worker.multiprocessing-method": "spawn",
                    "distributed.worker.daemon": True,
                    "distributed.nanny.pre-spawn-environ": ONE_THREAD,
                }
            )
        )
        scratch = self._belongings.enter_context(
            TemporaryDirectory(prefix="eo-batch-dask-", ignore_cleanup_errors=True)
        )
        return LocalCluster(
            n_workers=self.workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,  # a paused worker would take no more work; the machine's own limit holds
            local_directory=scratch,
            silence_logs=logging.CRITICAL,  # deaths and retries are told by events
            preload=[__name__],
        )

    def want(self, workers: int) -> None:
        """See `Place`. There are as many as were asked for."""

    def disrupted(self, worker: str) -> bool:
        """See `Place`."""
        return False

    def waiting(self) -> str:
        """See `Place`."""
        return "worker processes do not start on this machine; is its memory used up?"

    def close(self) -> bool:
        """See `Place`."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()
        self._belongings.close()
        return True


def dask_setup(worker: "Worker") -> None:
    """Called by Dask in each worker process: Ctrl-C reaches the whole process group, and is not for workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
