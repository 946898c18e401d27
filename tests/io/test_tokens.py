"""Files behind tokens that expire while a shard is read: all pixels are right, and no token is to be found anywhere."""

from __future__ import annotations

import logging
import pickle
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from eo_batch.core.errors import ShardFailed
from eo_batch.io import assets, retries, tokens
from eo_batch.io.store import Store, parse_store
from eo_batch.runners.local import LocalRunner
from eo_batch.settings import Settings
from tests.io.web import Web, _Handler, serving, slow, status
from tests.io.worlds import WEST, chips_receipts, cube_objects, go, spec_of, upload
from tests.servers.azurite import ACCOUNT, KEY
from tests.servers.keys import EarthdataGiver, S3Gate, SasGiver, answering
from tests.servers.objects import ObjectServer

LIFE_S = 4.0
LATENCY_S = 0.4
BEARER = "an-earthdata-token-that-is-secret"
OTHER_KEY = "b3RoZXIga2V5"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return parse_store(str(tmp_path / "runs"))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client of another test, and short pauses."""
    monkeypatch.setattr(assets, "_clients", {})
    monkeypatch.setattr(retries, "_LONGEST_PAUSE_S", 0.2)


@pytest.fixture(scope="module")
def undisturbed(planet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run, _ = go(spec_of(planet / "items.json", WEST), parse_store(str(tmp_path_factory.mktemp("calm"))), "chips")
    return cube_objects(run)


@dataclass
class Blobs:
    """Azure's blobs behind a proxy and a giver of tokens."""

    web: Web
    giver: SasGiver
    container: str

    @property
    def catalog(self) -> str:
        return f"{self.web.url}/{ACCOUNT}/{self.container}/items.json"

    def secrets(self) -> set[str]:
        """Signatures of all tokens that were given out."""
        return {parse_qs(token)["sig"][0] for token in self.giver.given} | set(self.giver.given)


@pytest.fixture(scope="module")
def container(planet: Path, azurite: ObjectServer) -> str:
    return upload(planet, azurite).split("://", 1)[1]


@pytest.fixture
def blobs(container: str, azurite: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    giver = SasGiver(ACCOUNT, KEY, LIFE_S)
    parts = urlsplit(azurite.url)
    with serving(upstream=f"{parts.scheme}://{parts.netloc}") as web, answering(giver) as where:
        monkeypatch.setenv("EO_BATCH_ASSETS_SAS_URL", where)
        monkeypatch.setenv("EO_BATCH_ASSETS_ACCESS", f"{web.url}/{ACCOUNT}=planetary-computer")
        yield Blobs(web, giver, container)


def settings() -> Settings:
    found = Settings.from_env()
    return replace(found, assets=replace(found.assets, retries=0), assets_patience_s=1.0)


def assert_no_secret(secrets: set[str], store: Store, *texts: str) -> None:
    assert secrets
    written = [store.get(key) for key in store.list()]
    assert written
    for secret in secrets:
        for data in (*written, *(text.encode() for text in texts)):
            assert secret.encode() not in data


def test_azure_itself_refuses_what_has_expired(blobs: Blobs) -> None:
    def asked(token: str) -> int:
        try:
            with urllib.request.urlopen(f"{blobs.catalog}?{token}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    now = datetime.now(UTC)
    assert asked(blobs.giver.sign(blobs.container, now + timedelta(minutes=1))) == 200
    assert asked(blobs.giver.sign(blobs.container, now - timedelta(seconds=2))) == 403
    assert asked(SasGiver(ACCOUNT, OTHER_KEY, 60).sign(blobs.container, now + timedelta(minutes=1))) == 403


def test_tokens_are_renewed_before_they_expire(
    blobs: Blobs, store: Store, undisturbed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    go(spec_of(blobs.catalog, WEST), store, "plan", settings=settings())
    planned = len(blobs.giver.given)
    blobs.web.fault(".", slow(LATENCY_S))
    run, _ = go(spec_of(blobs.catalog, WEST), store, "chips", settings=settings())
    assert cube_objects(run) == undisturbed
    receipts = chips_receipts(run)
    assert sum(receipt.seconds for receipt in receipts) > 2 * LIFE_S, "longer than tokens live"
    assert len(blobs.giver.given) - planned >= 2
    assert not blobs.web.answers[403], "on a timer, not after a refusal"
    requests = sum(s.requests for receipt in receipts for s in receipt.sources)
    assert len(blobs.giver.given) < requests / 2, "one token for many files"
    assert_no_secret(blobs.secrets(), store, caplog.text, repr(run), pickle.dumps(run).decode("latin-1"))


def test_one_shard_outlives_its_token(blobs: Blobs, store: Store, undisturbed: dict[str, str]) -> None:
    # The claim is wrong by far: only the refusal in the middle of the shard tells that the token has expired.
    blobs.giver.life_s, blobs.giver.claimed_s = 2.0, 3600.0
    go(spec_of(blobs.catalog, WEST), store, "plan", settings=settings())
    blobs.web.fault(".", slow(LATENCY_S))
    run, watching = go(spec_of(blobs.catalog, WEST), store, "chips", settings=settings())
    assert cube_objects(run) == undisturbed
    assert not [event for _, event in watching.events if event.kind == "retry"], "within the shard"
    assert max(receipt.seconds for receipt in chips_receipts(run)) > 2.0
    assert blobs.web.answers[403] >= 1
    assert len(blobs.giver.given) >= 3
    assert {s.state for receipt in chips_receipts(run) for s in receipt.sources} == {"ok"}
    assert_no_secret(blobs.secrets(), store)


def test_a_token_refused_once_is_renewed_once(blobs: Blobs, store: Store, undisturbed: dict[str, str]) -> None:
    blobs.giver.life_s = 3600.0
    go(spec_of(blobs.catalog, WEST), store, "plan", settings=settings())
    blobs.web.fault("B04", status(403), after=3, times=1)
    run, _ = go(spec_of(blobs.catalog, WEST), store, "chips", settings=settings())
    assert cube_objects(run) == undisturbed
    assert len(blobs.giver.given) == 2


def test_workers_get_tokens_of_their_own(blobs: Blobs, store: Store, undisturbed: dict[str, str]) -> None:
    blobs.giver.life_s = 3600.0
    run, _ = go(spec_of(blobs.catalog, WEST), store, "chips", LocalRunner(2), settings())
    assert cube_objects(run) == undisturbed
    assert len(blobs.giver.given) == 3, "this process, which searches, and two workers"
    assert_no_secret(blobs.secrets(), store)


def test_what_stays_refused_is_forbidden(blobs: Blobs, store: Store) -> None:
    go(spec_of(blobs.catalog, WEST), store, "plan", settings=settings())
    blobs.giver.key = OTHER_KEY
    assets._clients.clear()
    asked = len(blobs.giver.asked)
    with pytest.raises(ShardFailed, match=r"forbidden.*check your credentials") as told:
        go(spec_of(blobs.catalog, WEST), store, "chips", settings=settings())
    assert len(blobs.giver.asked) - asked < 40, "every file asks for one new token at most"
    assert_no_secret(blobs.secrets(), store, str(told.value), repr(told.value.__cause__))


@pytest.mark.parametrize(
    ("code", "said"), [(503, "transient.*no token from"), (403, "forbidden.*no token from"), (404, "forbidden|missing")]
)
def test_a_giver_of_tokens_that_fails(
    blobs: Blobs, store: Store, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_TRIES", 1)
    go(spec_of(blobs.catalog, WEST), store, "plan", settings=settings())
    assets._clients.clear()
    blobs.giver.status = code
    blobs.web.queries.clear()
    with pytest.raises(ShardFailed, match=said):
        go(spec_of(blobs.catalog, WEST), store, "chips", settings=settings())
    assert not [query for query in blobs.web.queries if "sig=" in query]
    assert bool(blobs.web.queries) == (code == 404), "a container that nobody knows may be public"


def test_a_catalogue_behind_tokens_that_are_refused(blobs: Blobs, store: Store) -> None:
    blobs.giver.status = 403
    with pytest.raises(ShardFailed, match="refuses; check your credentials"):
        go(spec_of(blobs.catalog, WEST), store, "plan", settings=settings())


@dataclass
class Earthdata:
    """An S3 server behind a gate that knows keys that expire."""

    web: Web
    giver: EarthdataGiver
    gate: S3Gate
    catalog: str
    latency_s: float = 0.0


@pytest.fixture
def earthdata(planet: Path, seaweed: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Earthdata]:
    bucket = upload(planet, seaweed).split("://", 1)[1]
    giver = EarthdataGiver(BEARER, LIFE_S)
    gate = S3Gate(giver, seaweed.env["AWS_ACCESS_KEY_ID"], seaweed.env["AWS_SECRET_ACCESS_KEY"])

    def guard(handler: _Handler) -> bool:
        time.sleep(there.latency_s)
        passed = gate.check(handler.command, handler.path, {n.lower(): v for n, v in handler.headers.items()})
        if passed is None:
            return status(403, b"<Error><Code>ExpiredToken</Code></Error>")(handler)
        for name in list(handler.headers):
            del handler.headers[name]
        for name, value in passed.items():
            handler.headers[name] = value
        return False

    with ExitStack() as stack:
        web = stack.enter_context(serving(upstream=seaweed.url))
        there = Earthdata(web, giver, gate, f"s3://{bucket}/items.json")
        web.fault(".", guard)
        keys = stack.enter_context(answering(giver))
        monkeypatch.setenv("EO_BATCH_ASSETS_ENDPOINT", web.url)
        monkeypatch.setenv("EO_BATCH_ASSETS_ACCESS", f"s3://{bucket}={keys}/s3credentials")
        monkeypatch.setenv("EARTHDATA_TOKEN", BEARER)
        yield there


@pytest.mark.parametrize("claimed", ["the truth", "too long a life"])
def test_keys_of_earthdata_expire_in_the_middle_of_a_shard(
    earthdata: Earthdata, store: Store, undisturbed: dict[str, str], claimed: str
) -> None:
    spec = spec_of(earthdata.catalog, WEST)
    if claimed == "too long a life":
        earthdata.giver.life_s, earthdata.giver.claimed_s = 2.0, 3600.0
    go(spec, store, "plan", settings=settings())
    earthdata.latency_s = LATENCY_S
    run, _ = go(spec, store, "chips", settings=settings())
    assert cube_objects(run) == undisturbed
    assert len(earthdata.giver.given) >= 3
    assert set(earthdata.gate.refused) == (set() if claimed == "the truth" else {"expired"})
    secrets = {part for key in earthdata.giver.given.values() for part in key[:2]} | {BEARER}
    assert_no_secret(secrets, store, repr(run), pickle.dumps(run).decode("latin-1"))


def test_a_wrong_earthdata_token(earthdata: Earthdata, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", "another-token")
    with pytest.raises(ShardFailed, match="refuses; check your credentials") as told:
        go(spec_of(earthdata.catalog, WEST), store, "plan", settings=settings())
    assert "another-token" not in str(told.value)
