"""The door: run one shard of one stage, then write its receipt. Everything that runs shards comes through here."""

import platform
import resource
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from eo_batch.core.layout import receipt_key
from eo_batch.core.receipts import Receipt
from eo_batch.entry.run import Run
from eo_batch.entry.stages import counts, joined, perform, shard_inputs, shard_of

if TYPE_CHECKING:
    from eo_batch.models.world import World

T = TypeVar("T")

_PACKAGES = ("eo-batch", "numpy", "zarr", "numcodecs", "pyproj", "pyarrow", "async-geotiff", "torch")


@dataclass(frozen=True)
class Door:
    """Runs shards of one stage by index; pickles, so that it can be sent to workers."""

    run: Run
    stage: str
    runner: str
    """Name of the runner, for the receipt."""

    def __call__(self, index: int) -> Receipt:
        """Run a shard unless its receipt is there. Raises EoBatchError.

        Where torchrun started several processes, each calls it with the same index, and all return the same receipt.
        """
        with joined(self.run, self.stage) as world:
            return self.within(world, index)

    def within(self, world: "World | None", index: int) -> Receipt:
        """Run a shard together with the processes of `world`, which each call this; None is this process alone.

        The first of them alone looks for the receipt, so that none waits for one that found it already written; it
        alone writes the receipt, and the others do not return before.
        """
        run = _kept(self.run)
        shard, inputs = shard_of(run, self.stage, index), shard_inputs(run, self.stage, index)
        if world is not None:
            world.agree("shard", f"{self.stage} {shard} of {inputs}")
        existing = lead(world, lambda: run.receipt(self.stage, shard))
        if existing is not None and counts(run, existing, inputs):
            return existing
        wall, cpu = time.perf_counter(), _cpu_seconds()
        receipt = perform(run, self.stage, index, world)
        receipt = receipt.model_copy(
            update={
                "shard": shard,
                "inputs": inputs,
                "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "host": socket.gethostname(),
                "runner": self.runner,
                "software": {**_software(), **receipt.software},
            }
        )
        receipt = receipt.model_copy(
            update={
                "seconds": round(time.perf_counter() - wall, 3),
                "cpu_seconds": round(_cpu_seconds() - cpu, 3),
                "peak_mb": round(_peak_mb(), 1),
            }
        )
        return lead(world, partial(_write, run, self.stage, receipt))


def lead(world: "World | None", act: Callable[[], T]) -> T:
    """What `act` returns in the first process of `world`, in all of them."""
    return act() if world is None else world.lead(act)


def _write(run: Run, stage: str, receipt: Receipt) -> Receipt:
    run.store.put(receipt_key(run.identity.prefix(stage), receipt.shard), receipt.to_bytes())
    return receipt


def done(run: Run, stage: str, index: int) -> bool:
    """Whether a shard has a receipt that counts."""
    return counts(run, run.receipt(stage, shard_of(run, stage, index)), shard_inputs(run, stage, index))


@lru_cache(maxsize=1)
def _cache() -> dict[tuple[str, str, str, bool], Run]:
    return {}


def _kept(run: Run) -> Run:
    """One Run per worker and plan: what is sent to a worker arrives without the plan, for every shard anew."""
    if not run.sent:
        return run
    key = (run.store.url, run.identity.prefix("plan"), run.identity.prefix("report"), run.refresh)
    kept = _cache().get(key)
    if kept is None:
        _cache().clear()
        _cache()[key] = kept = run
    return kept


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mb() -> float:
    """Largest resident memory of this process; on Linux `ru_maxrss` would begin with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@lru_cache(maxsize=1)
def _software() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return found
