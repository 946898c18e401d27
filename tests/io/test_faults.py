"""Shards read from a real S3 server through a proxy that disturbs: the same bytes, or a loss with its class.

Nothing hangs: what the proxy holds back is asked for again, and what it holds back for ever is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from eo_batch.core.errors import ReadError, ShardFailed
from eo_batch.core.receipts import LOST
from eo_batch.entry.run import Run
from eo_batch.io import retries
from eo_batch.io.store import Store, parse_store
from eo_batch.settings import Settings
from tests.io.web import Answer, Web, changed, reset_in_body, serving, slow, status, trickle
from tests.io.worlds import WEST, chips_receipts, cube_objects, go, spec_of, upload
from tests.servers.objects import ObjectServer

BAND = r"20230608.*/B04\.tif"
"""A file without a spare."""


@pytest.fixture(scope="module")
def bucket(planet: Path, seaweed: ObjectServer) -> str:
    return upload(planet, seaweed)


@pytest.fixture(scope="module")
def _proxy(seaweed: ObjectServer) -> Iterator[Web]:
    with serving(upstream=seaweed.url) as web:
        yield web


@pytest.fixture
def proxy(_proxy: Web, seaweed: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """In front of the S3 server; only files that a catalogue names are read through it."""
    for name, value in {
        **seaweed.env,
        "EO_BATCH_ASSETS_ENDPOINT": _proxy.url,
        "EO_BATCH_ASSETS_ANONYMOUS": "0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "_LONGEST_PAUSE_S", 0.2)
    _proxy.mend()
    yield _proxy
    _proxy.mend()


def quick(**changes: float) -> Settings:
    """This test's environment, with little patience and none of the client's own retries."""
    found = Settings.from_env()
    assets = replace(found.assets, retries=0, connect_timeout_s=1.0, read_timeout_s=1.0)
    return replace(found, assets=assets, **{"assets_stall_s": 1.0, "assets_patience_s": 15.0, **changes})


@pytest.fixture(scope="module")
def undisturbed(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The cube's objects without any proxy."""
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path_factory.mktemp("calm"))), "chips")
    return cube_objects(run)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return parse_store(str(tmp_path))


def flipped(data: bytes) -> bytes:
    """A byte in the middle of a tile is another."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


LATER = {"Retry-After": "1"}
PASSING: dict[str, tuple[Answer, str, int, int | None]] = {
    "latency": (slow(0.2), ".", 0, None),
    "reset in a body": (reset_in_body, BAND, 1, 2),
    "a body cut short": (changed(half), BAND, 1, 2),
    "a body cut short, header": (changed(half), BAND, 0, 1),
    "corrupted on its way": (changed(flipped), BAND, 1, 1),
    "refused once": (status(403), BAND, 1, 1),
    "unauthorised once": (status(401), BAND, 0, 1),
    "429 burst": (status(429, headers=LATER), ".", 3, 12),
    "503 burst": (status(503, headers=LATER), ".", 3, 12),
    "slow loris": (trickle(0.4), BAND, 1, 1),
    "another range": (changed(bytes, {"Content-Range": "bytes 7-1006/9999"}), BAND, 1, 1),
    "a range that is none": (changed(bytes, {"Content-Range": "bytes"}), BAND, 1, 1),
}
"""Fault, path, requests before it, requests that it hits."""


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_leaves_no_trace_in_the_pixels(
    bucket: str, proxy: Web, store: Store, undisturbed: dict[str, str], name: str
) -> None:
    fault, pattern, after, times = PASSING[name]
    catalog = f"{bucket}/items.json"
    run = Run(spec_of(catalog, WEST), store, quick())
    go(spec_of(catalog, WEST), store, "plan", settings=run.settings)
    proxy.fault(pattern, fault, after=after, times=times)
    run, watching = go(spec_of(catalog, WEST), store, "chips", settings=run.settings)
    assert cube_objects(run) == undisturbed
    assert not [event for _, event in watching.events if event.kind == "retry"], "within the shard"
    sources = [source for receipt in chips_receipts(run) for source in receipt.sources]
    assert {source.state for source in sources} == {"ok"}
    if name != "latency":
        assert sum(proxy.met.values()) >= 1, "the fault was met"


LASTING: dict[str, tuple[Answer, str]] = {
    "reset in a body": (reset_in_body, "transient"),
    "a body cut short": (changed(half), "transient"),
    "slow loris": (trickle(0.4), "transient: stalled"),
    "another range": (changed(bytes, {"Content-Range": "bytes 7-1006/9999"}), "transient"),
    "refused from now on": (status(403), "forbidden"),
    "429": (status(429, headers=LATER), "transient"),
    "silence": (slow(30), "transient"),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_fails_its_shards_and_no_others(bucket: str, proxy: Web, store: Store, name: str) -> None:
    fault, said = LASTING[name]
    catalog = f"{bucket}/items.json"
    settings = quick(assets_patience_s=0.3)
    go(spec_of(catalog, WEST), store, "plan", settings=settings)
    proxy.fault(BAND, fault, after=1)
    begun = time.monotonic()
    with pytest.raises(ShardFailed, match=rf"B04\.tif: {said}"):
        go(spec_of(catalog, WEST, "limits.max_missing=1"), store, "chips", settings=settings)
    assert time.monotonic() - begun < 90, "given up"
    done = Run(spec_of(catalog, WEST), store, settings).receipts("chips")
    assert {shard.split("/")[0] for shard in done} == {"labels"}
    proxy.mend()
    run, _ = go(spec_of(catalog, WEST, "limits.max_missing=1"), store, "chips", settings=settings)
    assert not [s for r in chips_receipts(run) for s in r.sources if s.state in LOST]


def test_what_is_broken_in_the_bucket_is_lost_with_its_class(bucket: str, proxy: Web, store: Store) -> None:
    catalog = f"{bucket}/items.json"
    go(spec_of(catalog, WEST), store, "plan", settings=quick())
    proxy.fault(BAND, changed(flipped), after=1)
    with pytest.raises(ShardFailed, match=r"B04\.tif: corrupt.*limits\.max_missing"):
        go(spec_of(catalog, WEST), store, "chips", settings=quick())
    run, _ = go(spec_of(catalog, WEST, "limits.max_missing=1"), store, "chips", settings=quick())
    lost = [s for r in chips_receipts(run) for s in r.sources if s.state in LOST]
    assert {(s.state, s.band, s.tries) for s in lost} == {("corrupt", "B04", 2)}


def test_a_source_that_is_away_is_waited_for(
    bucket: str, proxy: Web, store: Store, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_TRIES", 2)
    catalog = f"{bucket}/items.json"
    settings = quick(assets_patience_s=20.0)
    go(spec_of(catalog, WEST), store, "plan", settings=settings)
    back = time.monotonic() + 4

    def away(handler: object) -> bool:
        return time.monotonic() < back and status(503)(handler)  # type: ignore[arg-type]

    proxy.fault(".", away)
    run, watching = go(spec_of(catalog, WEST), store, "chips", settings=settings)
    assert time.monotonic() > back
    assert cube_objects(run) == undisturbed
    assert not [event for _, event in watching.events if event.kind == "retry"]
    most = max(s.tries for r in chips_receipts(run) for s in r.sources)
    assert most > 3, "more often than a file that fails by itself is tried"


Clock = Callable[[], float]


def spent(patience_s: float, others_are_read: bool) -> tuple[int, float]:
    """Tries and seconds until a file that fails for ever is given up; each try takes 0.1 s."""
    now = 0.0
    budget = retries.RetryBudget(patience_s, lambda: now)
    file = budget.failing()
    for tries in range(1, 10_000):
        now += 0.1
        if others_are_read:
            budget.answered()
        pause_s = budget.pause_s(file)
        if pause_s is None:
            return tries, now
        now += pause_s
    raise AssertionError("for ever")


def test_a_file_that_fails_alone_is_given_up_soon_and_a_source_that_is_away_later() -> None:
    tries, _ = spent(120.0, others_are_read=True)
    assert tries == 4
    tries, seconds = spent(120.0, others_are_read=False)
    assert 115 < seconds < 125, "the patience of a shard"
    assert tries > 10
    tries, seconds = spent(1e9, others_are_read=False)
    assert tries == 501, "repeats are bounded even without a bound on time"


def test_what_a_shard_waits_adds_up() -> None:
    now = 0.0
    budget = retries.RetryBudget(10.0, lambda: now)
    for _ in range(2):  # twice away, for 4.5 s each
        file = budget.failing()
        assert budget.pause_s(file) is not None
        now += 4.5
        assert budget.pause_s(file) is not None
        budget.answered()
        now += 100
    file = budget.failing()
    assert budget.pause_s(file) is not None
    now += 1.5
    assert budget.pause_s(file) is None, "9 s were spent before"


def test_errors_name_no_query() -> None:
    assert "sig" not in str(ReadError("https://h/a.tif?sig=1", "transient", "x"))
