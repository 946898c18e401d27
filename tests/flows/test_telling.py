"""What Prefect is told beside the work: later if it has to be, once it can be, and never at the cost of the work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest
import requests
from prefect.exceptions import PrefectHTTPStatusError

from flows import telling
from flows.telling import Teller


@pytest.fixture
def teller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Teller]:
    monkeypatch.setattr(telling, "_AGAIN_S", 0.05)
    found = Teller(logging.getLogger("telling"))
    yield found
    found.close(0.0)


class Api:
    """An API that can be away; keeps what it is told."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.asked, self.got = 0, []

    def send(self, what: str) -> None:
        self.asked += 1
        if self.away.is_set():
            raise requests.ConnectionError("connection refused")
        self.got.append(what)


def test_the_last_word_under_each_key_arrives_after_an_outage(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "telling")
    api = Api()
    api.away.set()
    began_s = time.monotonic()
    for percent in (10, 20, 30):
        teller.tell("chips", lambda percent=percent: api.send(f"chips {percent}"))
    teller.tell("plan", lambda: api.send("plan 100"))
    assert time.monotonic() - began_s < 0.5, "the work does not wait"
    while api.asked < 4:
        time.sleep(0.01)
    api.away.clear()
    teller.close(10.0)
    assert sorted(api.got) == ["chips 30", "plan 100"]
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if "does not take" in line and "connection refused" in line]) == 1
    assert said[-1] == "Prefect's API answers again"


def test_what_is_never_told_is_named_in_the_end(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.away.set()
    teller.tell("killed-cost", lambda: api.send("cost"))
    began_s = time.monotonic()
    teller.close(0.3)
    assert 0.2 < time.monotonic() - began_s < 5.0, "patience is bounded"
    assert "Prefect was not told of killed-cost" in caplog.records[-1].getMessage()


def test_what_is_refused_is_not_sent_again(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    import httpx

    sent: list[str] = []

    def refused() -> None:
        sent.append("bad")
        response = httpx.Response(422, request=httpx.Request("POST", "http://127.0.0.1/artifacts/"))
        raise PrefectHTTPStatusError("no such key", request=response.request, response=response)

    teller.tell("bad", refused)
    teller.tell("good", lambda: sent.append("good"))
    teller.close(10.0)
    assert sent == ["bad", "good"]
    assert "refuses bad: no such key" in caplog.text
