"""The stores that one suite of tests runs on."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from eo_batch.io.store import Store, parse_store

BACKENDS = ("file", "memory", "s3", "az", "gs")
REMOTE = ("s3", "az", "gs")


def store_url(backend: str, request: pytest.FixtureRequest) -> str:
    """URL of an empty store of the kind `backend`; skips where its server is missing."""
    match backend:
        case "file":
            return str(request.getfixturevalue("tmp_path") / "a store")
        case "memory":
            return f"memory://{uuid.uuid4().hex}"
        case _:
            return str(request.getfixturevalue(f"{backend}_url"))


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """`work(0) … work(count - 1)`, all released at one moment; their results in order."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    barrier = Barrier(count)

    def run(number: int) -> object:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def open_store(backend: str, request: pytest.FixtureRequest) -> Store:
    return parse_store(store_url(backend, request)).at("run 1")
