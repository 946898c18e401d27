"""Plans in the store: written once, whoever writes them; the cube's axes only grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import obstore
import pytest

from benchmarks import continent_items
from eo_batch.core import layout
from eo_batch.core.errors import DataError, UsageError
from eo_batch.core.identity import Identity
from eo_batch.core.plan import make_plan
from eo_batch.core.spec import RunSpec
from eo_batch.core.specfile import parse_spec
from eo_batch.io.axes import extend_axes, load_axes
from eo_batch.io.plans import (
    PAGE_SHARDS,
    has_scenes,
    load_all_scenes,
    load_plan,
    load_scenes,
    load_scenes_of,
    load_shard,
    save_plan,
    save_scenes,
)
from eo_batch.io.scenetable import usable
from eo_batch.io.store import Store, parse_store
from eo_batch.stages import plan
from eo_batch.stages.plan import find_scenes
from tests.io.worlds import QUICK, WEST, go, spec_of

T = TypeVar("T")


def at_once(calls: list[Callable[[], T]]) -> list[T]:
    """Results of calls that begin together."""
    gate = threading.Barrier(len(calls))

    def begun(call: Callable[[], T]) -> T:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begun, calls))


def test_a_plan_reads_back_as_it_was_and_is_the_same_bytes(planet: Path, tmp_path: Path) -> None:
    spec = spec_of(planet / "items.json")
    store = parse_store(str(tmp_path))
    found = usable(find_scenes(spec, QUICK), spec)
    made = make_plan(spec, found.columns(), Identity(spec).prefix("chips"))
    assert not has_scenes(store, "p")
    frozen = save_scenes(store, "p", found, made.scenes)
    assert frozen.columns == made.scenes
    assert has_scenes(store, "p")
    assert load_scenes(store, "p") == frozen
    assert load_all_scenes(store, "p") == found.scenes()
    sizes = save_plan(store, "p", made, frozen.pages)
    assert load_plan(store, "p") == made
    assert {name: store.size(f"p/{name}") for name in sizes} == sizes
    before = {key: store.get(key) for key in store.list()}
    save_scenes(store, "p", found, made.scenes)
    save_plan(store, "p", made, frozen.pages)
    assert {key: store.get(key) for key in store.list()} == before


@pytest.mark.parametrize("place", ["file", "s3", "memory"])
def test_of_planners_that_race_one_wins(
    planet: Path, tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    urls = {"file": str(tmp_path / "store"), "memory": "memory://race"}
    url = request.getfixturevalue("s3_url") if place == "s3" else urls[place]
    # The catalogue changes while they search: each planner finds other scenes.
    every = find_scenes(spec_of(planet / "items.json"), QUICK)
    found = [every.take(np.arange(n, len(every))) for n in range(4)]
    columns = [one.columns() for one in found]
    views = at_once([lambda n=n: save_scenes(parse_store(url), "p", found[n], columns[n]) for n in range(4)])  # type: ignore[misc]
    assert all(view == views[0] for view in views), "all go on with the winner's scenes"
    winner = columns.index(views[0].columns)
    assert load_scenes(parse_store(url), "p") == views[winner]
    assert load_all_scenes(parse_store(url), "p") == found[winner].scenes()


def test_whole_planners_that_race_leave_one_plan(planet: Path, tmp_path: Path) -> None:
    spec, store = spec_of(planet / "items.json"), parse_store(str(tmp_path))
    receipts = at_once([lambda: plan.run(spec, parse_store(str(tmp_path)), QUICK)] * 4)
    assert len({receipt.to_bytes() for receipt in receipts}) == 1
    identity = Identity(spec)
    found = load_plan(store, identity.prefix("plan"))
    axes = load_axes(store, identity.prefix("chips"))
    assert axes.blocks == tuple(block.key for block in found.blocks)
    assert axes.bins == ("2023-06", "static")


def test_axes_that_many_extend_at_once_agree(tmp_path: Path) -> None:
    for round_number in range(5):
        prefix = f"chips-{round_number}"
        calls = [
            lambda number=number, prefix=prefix: extend_axes(  # type: ignore[misc]
                parse_store(str(tmp_path)), prefix, [f"b{number}", f"b{number + 1}", "all"], [f"t{number % 2}"]
            )
            for number in range(6)
        ]
        seen = at_once(calls)
        final = load_axes(parse_store(str(tmp_path)), prefix)
        assert sorted(final.blocks) == sorted({"all", *(f"b{number}" for number in range(7))})
        assert sorted(final.bins) == ["t0", "t1"]
        for axes in seen:
            assert final.blocks[: len(axes.blocks)] == axes.blocks, "nobody was told a place that moved"
            assert final.bins[: len(axes.bins)] == axes.bins


def test_extending_by_what_is_there_writes_nothing(tmp_path: Path) -> None:
    store = parse_store(str(tmp_path))
    first = extend_axes(store, "chips", ["a", "b"], ["t"])
    keys = list(store.list())
    assert extend_axes(store, "chips", ["b"], ["t"]) == first
    assert list(store.list()) == keys
    assert extend_axes(store, "chips", ["0"], []).blocks == ("a", "b", "0"), "order of arrival, not of names"


REGION = """
name: region
area: {bbox: [8.0, 46.0, 13.0, 48.6]}
time: {start: 2020-01-01, end: 2024-01-01, step: month}
sensors:
  s2: {kind: s2-l2a}
limits: {shard_memory_gb: 1000}
"""


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A run over 17,000 chips and 25,000 scenes."""
    path = tmp_path_factory.mktemp("region") / "items.parquet"
    spec = parse_spec(REGION, [f"catalog={path}"])
    continent_items.write(path, spec.area.polygon(), spec.time.start, spec.time.end)
    return spec


def test_planning_a_region_takes_seconds(region: RunSpec, tmp_path: Path) -> None:
    """26,000 items, 17,000 chips and 15,000 shards: about 2 CPU seconds on a quiet machine."""
    began = time.process_time()
    plan.run(region, parse_store(str(tmp_path)), QUICK)
    assert time.process_time() - began < 15


@pytest.fixture
def planned(region: RunSpec, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The region's plan below `p` on a real S3 server."""
    store = parse_store(s3_url)
    found = usable(find_scenes(region, QUICK), region)
    made = make_plan(region, found.columns(), "chips")
    save_plan(store, "p", made, save_scenes(store, "p", found, made.scenes).pages)
    return store


@pytest.mark.parametrize("name", ["scenes", "cells", "shards/00000"])
def test_a_damaged_plan_is_named(planet: Path, tmp_path: Path, name: str) -> None:
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path)), until="plan")
    prefix = run.identity.prefix("plan")
    key = f"{prefix}/{name}.parquet"
    whole = run.store.get(key)
    run.store.put(key, whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{name}\\.parquet is not a whole Parquet file"):
        load_plan(run.store, prefix)
    run.store.delete(key)
    with pytest.raises(DataError, match=f"{name}\\.parquet is missing; run the stage"):
        load_plan(run.store, prefix)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"blocks": []}'])
def test_a_damaged_axes_entry_is_named(tmp_path: Path, damage: bytes) -> None:
    store = parse_store(str(tmp_path))
    store.put(layout.axis_entry("chips", 0), damage)
    with pytest.raises(DataError, match=r"000000\.json is not an axes entry"):
        load_axes(store, "chips")


def test_a_worker_reads_the_pages_of_its_shard_and_nothing_else(
    planned: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a real S3 server: requests and bytes do not grow with the plan."""
    everything = sum(planned.size(key) for key in planned.list())
    asked: list[int] = []
    get = obstore.get

    def counted(*args: object, **more: object) -> object:
        answer = get(*args, **more)  # type: ignore[arg-type]
        asked.append(int(answer.meta["size"]))
        return answer

    monkeypatch.setattr(obstore, "get", counted)
    for name in ("get_range", "get_ranges", "head", "list"):
        monkeypatch.setattr(obstore, name, None)  # an error to whoever calls them
    whole = load_plan(planned, "p")
    assert len(whole.scenes) >= 25_000
    assert len(whole.cells) >= 15_000
    found = 0
    for index in range(0, len(whole.shards), len(whole.shards) // 50):
        asked.clear()
        one = load_shard(planned, "p", index)
        scenes = load_scenes_of(planned, "p", one)
        found += len(scenes)
        assert one.shard == whole.shards[index]
        assert tuple(scene.scene_id for scene in scenes) == whole.scene_ids(one.shard)
        assert len(asked) == 1 + len(one.pages) <= 12
        assert sum(asked) < everything / 5
    assert found > 1000


def test_shards_that_are_not_there(planned: Store) -> None:
    count = len(load_plan(planned, "p").shards)
    for index in (-1, count, count + 10 * PAGE_SHARDS):
        with pytest.raises(UsageError, match=f"chips has no shard {index}; it has 0 to {count - 1}"):
            load_shard(planned, "p", index)
    with pytest.raises(DataError, match="is missing; run the stage"):
        load_shard(planned, "elsewhere", 0)
