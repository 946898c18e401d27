"""One store used from several processes at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from eo_batch.core.errors import StoreError
from eo_batch.io.store import Store, open_asset, parse_store
from eo_batch.settings import Settings
from tests.store.backends import open_store


def _write_and_read(store: Store, number: int) -> bytes:
    store.put(f"from/{number}", b"%d" % number)
    return store.get("before")


@pytest.mark.parametrize(("backend", "method"), [("file", "spawn"), ("file", "forkserver"), ("s3", "spawn")])
def test_children_of_a_process_that_used_the_store_can_use_it(
    backend: str, method: str, request: pytest.FixtureRequest
) -> None:
    store = open_store(backend, request)
    store.put("before", b"the parent")
    with multiprocessing.get_context(method).Pool(2) as pool:
        waiting = [pool.apply_async(_write_and_read, (store, number)) for number in range(4)]
        assert [one.get(timeout=60) for one in waiting] == [b"the parent"] * 4
    assert list(store.list("from")) == [f"from/{number}" for number in range(4)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_is_told_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    store = parse_store(str(tmp_path))
    store.put("before", b"the parent")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with pytest.raises(StoreError, match="`spawn`"):
            pool.apply_async(_write_and_read, (store, 0)).get(timeout=60)
        with pytest.raises(StoreError, match="`spawn`"):
            pool.apply_async(open_asset, (str(tmp_path / "before"), Settings())).get(timeout=60)


def _put_if_absent(store: Store, number: int) -> bool:
    return store.put_if_absent("only", b"%d" % number)


@pytest.mark.parametrize("backend", ["file", "s3", "az", "gs"])
def test_of_racing_processes_exactly_one_writes(backend: str, request: pytest.FixtureRequest) -> None:
    store = open_store(backend, request)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        waiting = [pool.apply_async(_put_if_absent, (store, number)) for number in range(6)]
        won = [one.get(timeout=60) for one in waiting]
    assert won.count(True) == 1
    assert store.get("only") == b"%d" % won.index(True)
