"""What every store does, whichever it is."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator

import pytest

from eo_batch.core.errors import DataError, StoreError, StoreMissing
from eo_batch.io.store import Store, parse_store
from tests.store.backends import BACKENDS, in_threads, open_store


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store below a prefix that needs quoting."""
    return open_store(request.param, request)


def test_what_was_put_is_got_whole_and_in_ranges(store: Store) -> None:
    data = random.Random(0).randbytes(1000)
    store.put("plan-1/shards.parquet", data)
    assert store.get("plan-1/shards.parquet") == data
    assert store.size("plan-1/shards.parquet") == 1000
    assert store.get_range("plan-1/shards.parquet", 10, 7) == data[10:17]
    assert store.get_range("plan-1/shards.parquet", 993, 7) == data[993:]
    assert store.get_range("plan-1/shards.parquet", 5, 0) == b""


def test_many_come_in_the_order_of_their_keys(store: Store) -> None:
    keys = [f"many/{number:04d}" for number in range(600)]
    store.put_many((key, key.encode()) for key in keys)
    assert list(store.get_many(keys[::-1])) == [key.encode() for key in reversed(keys)]
    assert list(store.get_many([])) == []
    with pytest.raises(StoreMissing, match="many/none"):
        list(store.get_many([*keys, "many/none"]))


def test_what_goes_wrong_while_many_are_written_is_told(store: Store) -> None:
    def objects() -> Iterator[tuple[str, bytes]]:
        yield "many/first", b"1"
        yield "many//wrong", b"2"
        for number in range(100):
            yield f"many/{number}", b"3"

    with pytest.raises(ValueError, match="many//wrong"):
        store.put_many(objects())
    assert store.get("many/first") == b"1"


def test_put_replaces(store: Store) -> None:
    store.put("key", b"a long first value")
    store.put("key", b"second")
    assert store.get("key") == b"second"


def test_objects_larger_than_one_part_arrive_whole(store: Store) -> None:
    data = random.Random(1).randbytes(20 * 2**20 + 1)
    store.put("large", data)
    assert store.size("large") == len(data)
    assert store.get("large") == data


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.exists("empty")
    assert store.size("empty") == 0
    assert store.get("empty") == b""


def test_list_is_sorted_and_keeps_to_folders(store: Store) -> None:
    keys = ["b/2", "b/10", "a/x/y", "ab/1", "a-1"]
    for key in keys:
        store.put(key, b"x")
    assert list(store.list()) == sorted(keys)
    assert list(store.list("a")) == ["a/x/y"]
    assert list(store.list("b/")) == ["b/10", "b/2"]
    assert list(store.list("nothing/here")) == []


def test_list_goes_past_one_page(store: Store) -> None:
    keys = [f"many/{number:05d}" for number in range(1100)]
    in_threads(8, lambda worker: [store.put(key, b"") for key in keys[worker::8]])
    assert list(store.list("many")) == keys


def test_a_store_that_nobody_wrote_to_is_empty(store: Store) -> None:
    assert list(store.list()) == []
    assert not store.exists("key")


def test_at_narrows_and_href_is_whole(store: Store) -> None:
    below = store.at("chips-1/receipts")
    below.put("0.json", b"{}")
    assert store.get("chips-1/receipts/0.json") == b"{}"
    assert list(below.list()) == ["0.json"]
    assert below.href("0.json") == store.href("chips-1/receipts/0.json") == f"{below.url}/0.json"
    assert store.at("") == store


def test_missing_objects(store: Store) -> None:
    store.put("there/key", b"x")
    assert not store.exists("missing")
    assert not store.exists("there"), "a folder is not an object"
    for read in (store.get, store.size, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(StoreMissing, match="missing: it is not there"):
            read("missing")


def test_delete_twice(store: Store) -> None:
    store.put("key", b"x")
    store.delete("key")
    assert not store.exists("key")
    store.delete("key")


@pytest.mark.parametrize(("start", "length"), [(2, 5), (3, 1), (50, 1)])
def test_a_range_past_the_end_is_an_object_cut_short(store: Store, start: int, length: int) -> None:
    store.put("key", b"abc")
    with pytest.raises(DataError, match="cut short"):
        store.get_range("key", start, length)


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    assert store.put_if_absent("key", b"first") is True
    assert store.put_if_absent("key", b"second") is False
    assert store.get("key") == b"first"


def test_of_racing_puts_if_absent_exactly_one_wins(store: Store) -> None:
    for number in range(5):
        won = in_threads(4, lambda worker, key=f"race/{number}": store.put_if_absent(key, b"%d" % worker))
        assert won.count(True) == 1
        assert store.get(f"race/{number}") == b"%d" % won.index(True)


def test_a_pickled_store_is_the_same_store(store: Store) -> None:
    store.put("key", b"x")
    copy: Store = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert hash(copy) == hash(store)
    assert copy.get("key") == b"x"


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\\b", "a?b", "a#1", "a\n"])
def test_malformed_keys_are_our_mistake(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        store.put(key, b"x")


def test_address_leads_obstore_to_the_object(store: Store) -> None:
    import obstore

    store.put("a/key", b"x")
    client, key = store.address("a/key")
    assert bytes(obstore.get(client, key).bytes()) == b"x"


def test_obs_has_the_keys_of_the_store(store: Store) -> None:
    import obstore

    store.put("a/key", b"x")
    if store.url.startswith("memory:"):
        with pytest.raises(StoreError, match="use `address"):
            _ = store.obs
    else:
        assert bytes(obstore.get(store.obs, "a/key").bytes()) == b"x"


def test_a_zarr_group_round_trips_through_xarray(store: Store) -> None:
    import numpy as np
    import xarray as xr

    pixels = np.arange(64, dtype="uint16").reshape(8, 8)
    dataset = xr.Dataset({"s2_10m": (("y", "x"), pixels)})
    layout = {"chunks": (2, 2), "shards": (4, 4)}
    dataset.to_zarr(store.zarr("chips-1/cube.zarr"), zarr_format=3, encoding={"s2_10m": layout})
    shards = [key for key in store.list("chips-1/cube.zarr") if "/c/" in key]
    assert shards == [f"chips-1/cube.zarr/s2_10m/c/{row}/{col}" for row in (0, 1) for col in (0, 1)]
    read = pickle.loads(pickle.dumps(store.zarr("chips-1/cube.zarr", read_only=True)))
    np.testing.assert_array_equal(xr.open_zarr(read)["s2_10m"].values, pixels)


def test_zarr_overwrites_and_refuses_when_read_only(store: Store) -> None:
    import numpy as np
    import zarr

    for value in (1, 2):
        array = zarr.create_array(store.zarr("a.zarr"), data=np.full((4, 4), value), overwrite=True)
    store.put("a.zarr.json", b"a neighbour, not a child")
    group = zarr.open_array(store.zarr("a.zarr", read_only=True), mode="r")
    assert (group[:] == 2).all()
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(store.zarr("a.zarr", read_only=True), mode="r+")[0] = 3
    assert array.shape == (4, 4)


def test_two_names_of_one_place_are_equal(store: Store) -> None:
    twin = parse_store(store.url)
    twin.put("key", b"x")
    assert store.get("key") == b"x"
    assert twin.url == store.url
