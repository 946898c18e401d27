"""A store that is away for a while costs whoever drives a run nothing but time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eo_batch.core.errors import StoreError, StoreMissing
from eo_batch.entry import patience
from eo_batch.entry.drive import StageState, drive
from eo_batch.entry.patience import patiently
from eo_batch.entry.run import Run
from eo_batch.io.store import Store, parse_store
from eo_batch.runners.base import Event
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from tests.io.worlds import WEST, Watching, spec_of
from tests.servers.relay import Relay


@pytest.fixture
def relay(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """In front of the S3 server."""
    port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port
    assert port is not None
    relay = Relay(port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.port}")
    monkeypatch.setenv("EO_BATCH_RETRIES", "0")
    monkeypatch.setattr(patience, "_PAUSE_S", 0.1)
    monkeypatch.setattr(patience, "STORE_S", 60.0)
    yield relay
    relay.close()


class Cutting(Watching):
    """Takes the store away when chips begin, and brings it back when it is told that the run waits."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self.relay = relay

    def begin(self, state: StageState) -> None:
        super().begin(state)
        if state.stage == "chips":
            self.relay.close()

    def event(self, state: StageState, event: Event) -> None:
        super().event(state, event)
        if event.kind == "wait":
            self.relay.open()


def test_a_run_waits_for_its_store(planet: Path, s3_url: str, relay: Relay) -> None:
    relay.close()
    watching = Cutting(relay)
    run = Run(spec_of(planet / "items.json", WEST), parse_store(s3_url), Settings.from_env())
    drive(run, LocalRunner(0), watching, until="chips")
    waits = [(stage, event) for stage, event in watching.events if event.kind == "wait"]
    assert [stage for stage, _ in waits] == ["plan", "chips"], "once before a stage is known, once before its shards"
    assert all("the endpoint does not answer" in event.message for _, event in waits)
    assert watching.ran("chips") == 8


def failing(error: Exception) -> list[str]:
    told: list[str] = []

    def ask() -> None:
        told.append("asked")
        raise error

    with pytest.raises(type(error)):
        patiently(parse_store("s3://bucket"), ask, told.append)
    return told


def test_what_waiting_does_not_mend_is_raised_at_once() -> None:
    assert failing(StoreMissing("no bucket")) == ["asked"]
    assert failing(ValueError("a fault of ours")) == ["asked"]


def test_a_folder_that_fails_fails_at_once(tmp_path: Path) -> None:
    store = parse_store(str(tmp_path))
    with pytest.raises(StoreError):
        patiently(store, lambda: _full(store), pytest.fail)


def _full(store: Store) -> None:
    raise StoreError(f"{store.url}: the disk is full")


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_PAUSE_S", 0.01)
    monkeypatch.setattr(patience, "STORE_S", 0.05)
    told = failing(StoreError("away"))
    assert told.count("away") == 1, "the same reason is told once"
    assert told.count("asked") > 2
