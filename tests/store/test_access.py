"""Which files are asked for with which credentials: one table, rows that come before it, and refusals in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from obstore.store import AzureStore, HTTPStore, S3Store

from eo_batch.core.errors import StoreDenied, UsageError
from eo_batch.io import assets
from eo_batch.io.assets import _split, open_asset, renew_asset
from eo_batch.settings import Settings

BLOB = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/33/T/WN/B04.tif"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_clients", {})


@pytest.mark.parametrize(
    ("href", "how", "key"),
    [
        (BLOB, "planetary-computer", "33/T/WN/B04.tif"),
        (f"{BLOB}?se=2024&sig=a", "default", "sentinel2-l2/33/T/WN/B04.tif"),
        ("https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/B04.tif", "default", "a/B04.tif"),
        ("https://blob.core.windows.net.example.org/c/a.tif", "default", "c/a.tif"),
        ("http://sentinel2l2a01.blob.core.windows.net/c/a.tif", "default", "c/a.tif"),
        ("https://data.lpdaac.earthdatacloud.nasa.gov/lp/a.tif", "earthdata", "lp/a.tif"),
        ("https://datapool.asf.alaska.edu/RTC/a.tif", "earthdata", "RTC/a.tif"),
        (
            "s3://asf-cumulus-prod-opera-products/RTC/a.tif",
            "https://cumulus.asf.alaska.edu/s3credentials",
            "RTC/a.tif",
        ),
        ("s3://sentinel-s2-l2a/tiles/B04.jp2", "requester-pays", "tiles/B04.jp2"),
        ("s3://sentinel-cogs/a/B04.tif", "default", "a/B04.tif"),
        ("/data/a.tif", "default", "a.tif"),
    ],
)
def test_the_table(href: str, how: str, key: str) -> None:
    origin, found = _split(href, Settings())
    assert (origin.how, found) == (how, key)


def test_rows_of_the_environment_come_first() -> None:
    rows = "https://mine.blob.core.windows.net=unsigned, s3://sentinel-s2-l2a=requester-pays s3://a=signed"
    settings = Settings.from_env({"EO_BATCH_ASSETS_ACCESS": rows})
    assert _split("https://mine.blob.core.windows.net/c/a.tif", settings)[0].how == "unsigned"
    assert _split(BLOB, settings)[0].how == "planetary-computer"
    assert _split("s3://a/b.tif", settings)[0].how == "signed"


def test_a_row_may_name_a_part_of_a_host() -> None:
    settings = Settings(assets_access=(("http://127.0.0.1:1/account", "planetary-computer"),))
    origin, key = _split("http://127.0.0.1:1/account/box/x/a.tif", settings)
    assert (origin.place, origin.container, key) == ("127.0.0.1:1/account", "box", "x/a.tif")
    assert _split("http://127.0.0.1:1/accounts/box/a.tif", settings)[0].how == "default"


def test_amazons_buckets_are_not_those_of_another_server() -> None:
    elsewhere = Settings(assets=replace(Settings().assets, endpoint="http://127.0.0.1:1"))
    assert _split("s3://sentinel-s2-l2a/a.jp2", elsewhere)[0].how == "default"


@pytest.mark.parametrize("text", ["s3://a", "a=signed", "s3://a=open", "s3://a=", "=signed"])
def test_rows_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"EO_BATCH_ASSETS_ACCESS: .*is not origin=how"):
        Settings.from_env({"EO_BATCH_ASSETS_ACCESS": text})


@pytest.mark.parametrize("name", ["EO_BATCH_ASSETS_STALL_S", "EO_BATCH_ASSETS_PATIENCE_S"])
@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_seconds_that_are_none(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"{name}='{text}' is no number of seconds"):
        Settings.from_env({name: text})


def test_one_client_serves_a_container_and_renewing_gives_another() -> None:
    settings = Settings()
    first, _ = open_asset(BLOB, settings)
    assert isinstance(first, AzureStore)
    assert open_asset(BLOB.replace("B04", "B08"), settings)[0] is first
    assert open_asset(BLOB.replace("sentinel2-l2/", "other/"), settings)[0] is not first
    assert renew_asset(BLOB, settings, first)
    second, _ = open_asset(BLOB, settings)
    assert second is not first
    assert renew_asset(BLOB, settings, first), "somebody else has renewed it"
    assert open_asset(BLOB, settings)[0] is second


def test_what_nobody_signs_is_not_renewed() -> None:
    settings = Settings()
    client, _ = open_asset("https://example.org/a.tif", settings)
    assert isinstance(client, HTTPStore)
    assert not renew_asset("https://example.org/a.tif", settings, client)


def test_whoever_reads_pays_only_if_he_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    href = "s3://sentinel-s2-l2a/tiles/B04.jp2"
    with pytest.raises(StoreDenied, match=r"charges whoever reads it; set AWS_REQUEST_PAYER=requester"):
        open_asset(href, Settings.from_env())
    for name, value in {
        "AWS_REQUEST_PAYER": "requester",
        "EO_BATCH_ASSETS_ACCESS": "s3://sentinel-s2-l2a=requester-pays",
    }.items():
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            client, _ = open_asset(href, Settings.from_env())
            assert isinstance(client, S3Store)
            assert client.config["request_payer"] in (True, "true")
            assert "skip_signature" not in client.config


def test_earthdata_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    href = "https://data.lpdaac.earthdatacloud.nasa.gov/lp/a.tif"
    monkeypatch.delenv("EARTHDATA_TOKEN", raising=False)
    with pytest.raises(StoreDenied, match="set EARTHDATA_TOKEN"):
        open_asset(href, Settings())
    monkeypatch.setenv("EARTHDATA_TOKEN", "very-secret")
    client, _ = open_asset(href, Settings())
    assert "very-secret" not in repr(client)


def test_a_way_in_that_does_not_fit_its_origin() -> None:
    settings = Settings(assets_access=(("s3://a", "planetary-computer"),))
    with pytest.raises(UsageError, match=r"EO_BATCH_ASSETS_ACCESS: s3://a.* can't be read as planetary-computer"):
        open_asset("s3://a/box/b.tif", settings)
