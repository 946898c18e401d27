"""A Dask scheduler and workers as processes of their own, as a cluster runs them: they can be killed and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.shared import free_ports

ROOT = Path(__file__).resolve().parents[2]


class Kept:
    """A process that is started again when it ends, as a kubelet does; `pid` is that of the present one."""

    def __init__(self, argv: Sequence[str], log: Path, again: bool = True) -> None:
        self._argv, self._log, self._again = argv, log, again
        self._lock, self._over = threading.Lock(), threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        with self._lock:
            return self._process.pid

    def signal(self, signum: int) -> None:
        """Send a signal to the process, not to its children."""
        with self._lock:
            self._process.send_signal(signum)

    def end(self) -> None:
        """Kill it, and keep it no longer."""
        self._over.set()
        with self._lock:
            if self._process.poll() is None:
                os.killpg(self._process.pid, 9)
        self._thread.join(10)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *self._argv], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def _keep(self) -> None:
        while True:
            self._process.wait()
            with self._lock:
                if self._over.is_set() or not self._again:
                    return
                self._process = self._start()


class Cluster:
    """A scheduler on loopback, and workers that come back."""

    def __init__(self, folder: Path) -> None:
        [self._port] = free_ports(1)
        self._folder = folder
        self.address = f"tcp://127.0.0.1:{self._port}"
        self.workers: list[Kept] = []
        self.scheduler: Kept | None = None

    def start_scheduler(self) -> None:
        """Start a scheduler; always at the same address."""
        argv = ("scheduler", "--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard", "--no-show")
        self.scheduler = Kept(argv, self._folder / "scheduler.log", again=False)

    def kill_scheduler(self) -> None:
        """The scheduler is gone at once, with all that it knew."""
        assert self.scheduler is not None
        self.scheduler.end()

    def start_worker(self) -> Kept:
        """Start a worker with one thread, and a nanny."""
        name = f"w{len(self.workers)}"
        argv = ("worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--memory-limit", "0")
        argv += ("--no-dashboard", "--name", name, "--local-directory", str(self._folder / name))
        self.workers.append(Kept(argv, self._folder / f"{name}.log"))
        return self.workers[-1]

    def end(self) -> None:
        """Kill everything."""
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            process.end()


@contextmanager
def dask_cluster(folder: Path, workers: int = 2, scheduler: bool = True) -> Iterator[Cluster]:
    """A scheduler, if wanted, and workers."""
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        if scheduler:
            cluster.start_scheduler()
        for _ in range(workers):
            cluster.start_worker()
        yield cluster
    finally:
        cluster.end()
