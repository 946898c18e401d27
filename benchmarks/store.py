"""`python -m benchmarks.store URL`: how fast a store takes and gives objects."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from eo_batch.io.store import Store, parse_store

_CASES = ((4 * 2**10, 256, 8), (2**20, 64, 8), (16 * 2**20, 8, 2))
"""Bytes of an object, number of objects, threads: receipts, small shards, large shards."""


@dataclass(frozen=True)
class Throughput:
    """Objects per second of one kind of traffic."""

    object_bytes: int
    threads: int
    puts_per_s: float
    gets_per_s: float


def measure(store: Store) -> list[Throughput]:
    """Write and read random objects below `store`, and delete them."""
    figures = []
    for object_bytes, count, threads in _CASES:
        data = os.urandom(object_bytes)
        keys = [f"{object_bytes}/{number}" for number in range(count)]
        puts_per_s = _rate(keys, threads, lambda key, data=data: store.put(key, data))
        gets_per_s = _rate(keys, threads, store.get)
        _rate(keys, threads, store.delete)
        figures.append(Throughput(object_bytes, threads, puts_per_s, gets_per_s))
    return figures


def _rate(keys: list[str], threads: int, work: Callable[[str], object]) -> float:
    """Keys per second with which `threads` do `work`."""
    with ThreadPoolExecutor(threads) as pool:
        began_s = time.perf_counter()
        for _ in pool.map(work, keys):
            pass
        return len(keys) / (time.perf_counter() - began_s)


def main() -> None:
    print(f"{'object':>10} {'threads':>8} {'put/s':>9} {'get/s':>9}")
    for row in measure(parse_store(sys.argv[1]).at("eo-batch-benchmark")):
        size = f"{row.object_bytes / 2**10:.0f} KiB"
        print(f"{size:>10} {row.threads:>8} {row.puts_per_s:>9.1f} {row.gets_per_s:>9.1f}")


if __name__ == "__main__":
    main()
