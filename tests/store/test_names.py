"""How stores are named, and what the environment decides."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from eo_batch.core.errors import UsageError
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings, azure_secret


def test_a_plain_path_is_a_file_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_store("runs").url == (tmp_path / "runs").as_uri()
    assert parse_store("runs/") == parse_store(str(tmp_path / "runs")) == parse_store(f"file://{tmp_path}/runs/")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("az://container/a", "az://container/a"),
        ("memory://name/a", "memory://name/a"),
    ],
)
def test_urls_are_normalised(text: str, url: str) -> None:
    assert parse_store(text).url == url
    assert parse_store(text).href("k") == f"{url}/k"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "store is empty"),
        ("ftp://host/a", "use file, s3, gs, az or memory"),
        ("s3://", "malformed"),
        ("s3:///key", "malformed"),
        ("s3://bucket/a//b", "malformed"),
        ("file://host/a", "file:///absolute/path"),
        ("s3://KEY:hunter2@bucket/a", "credentials come from the environment"),
        ("az://container/a?sig=hunter2", "credentials come from the environment"),
    ],
)
def test_what_is_no_store_is_refused_with_the_remedy(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_store(text)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_memory_stores_of_one_name_share_and_others_do_not() -> None:
    parse_store("memory://shared-name/a").put("k", b"x")
    assert parse_store("memory://shared-name").get("a/k") == b"x"
    assert not parse_store("memory://another-name").exists("a/k")


def test_settings_come_from_the_environment_alone() -> None:
    env = {
        "AWS_ENDPOINT_URL": "https://general.example/",
        "AWS_ENDPOINT_URL_S3": "https://s3.example/",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_REQUEST_PAYER": "requester",
        "STORAGE_EMULATOR_HOST": "localhost:9023",
        "EO_BATCH_ASSETS_ENDPOINT": "https://s3.us-west-2.amazonaws.com",
        "EO_BATCH_ASSETS_REGION": "us-west-2",
        "EO_BATCH_WORKERS": "3",
    }
    settings = Settings.from_env(env)
    assert settings.store.endpoint == "https://s3.example"
    assert settings.store.region == "eu-central-1"
    assert settings.store.request_payer
    assert settings.store.gcs_endpoint == "http://localhost:9023"
    assert not settings.store.anonymous
    assert settings.assets.anonymous
    assert settings.assets.endpoint == "https://s3.us-west-2.amazonaws.com"
    assert settings.assets.region == "us-west-2"
    assert settings.workers == 3
    assert Settings.from_env({}) == Settings()
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("EO_BATCH_WORKERS", "many", "not a whole number"),
        ("EO_BATCH_WORKERS", "0", "too small"),
        ("EO_BATCH_ANONYMOUS", "maybe", "use 1 or 0"),
        ("AWS_ENDPOINT_URL", "localhost:9000", "http:// or https://"),
        ("AZURE_STORAGE_CONNECTION_STRING", "nonsense", "copy it whole"),
    ],
)
def test_wrong_settings_name_variable_and_remedy(name: str, value: str, says: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        Settings.from_env({name: value})
    assert says in str(caught.value)


def test_azure_connection_strings_are_taken_apart() -> None:
    portal = "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=a2V5PT0=;EndpointSuffix=core.windows.net"
    options = Settings.from_env({"AZURE_STORAGE_CONNECTION_STRING": portal}).store
    assert options.azure_account == "acct"
    assert options.azure_endpoint is None
    secret = azure_secret({"AZURE_STORAGE_CONNECTION_STRING": portal})
    assert secret.account_key == "a2V5PT0="
    assert "a2V5" not in repr(secret)
    china = portal.replace("core.windows.net", "core.chinacloudapi.cn")
    options = Settings.from_env({"AZURE_STORAGE_CONNECTION_STRING": china}).store
    assert options.azure_endpoint == "https://acct.blob.core.chinacloudapi.cn"


def test_settings_hold_no_secret() -> None:
    env = {
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AZURE_STORAGE_ACCOUNT_NAME": "a",
        "AZURE_STORAGE_ACCOUNT_KEY": "hunter2",
    }
    settings = Settings.from_env(env)
    assert "hunter2" not in repr(settings)
    assert b"hunter2" not in pickle.dumps(settings)


def test_a_zarr_store_by_url_is_opened_as_its_receiver_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EO_BATCH_ANONYMOUS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    sent = [pickle.dumps(parse_store("s3://bucket/runs").zarr("cube.zarr", by_url=chosen)) for chosen in (True, False)]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.2:2")
    endpoints = [pickle.loads(data)._source.options.endpoint for data in sent]
    assert endpoints == ["http://127.0.0.2:2", "http://127.0.0.1:1"]
    again = pickle.loads(pickle.dumps(pickle.loads(sent[0])))
    assert again._source == parse_store("s3://bucket/runs/cube.zarr")
