"""`init_bucket` on SeaweedFS, and on moto for the settings that SeaweedFS lacks."""

from __future__ import annotations

import socket
import time
import urllib.parse

import pytest

from eo_batch.core.errors import StoreDenied, StoreError, UsageError
from eo_batch.io.aws import BucketPlan, init_bucket
from eo_batch.io.store import parse_store
from eo_batch.settings import Settings
from tests.servers.objects import ObjectServer
from tests.servers.seaweed import READER

ABORT = {"DaysAfterInitiation": 7}
TAG = {"Key": "eo-batch-expires", "Value": "yes"}


def _outcomes(url: str, plan: BucketPlan | None = None) -> dict[str, str]:
    report = init_bucket(url, Settings.from_env(), plan)
    return {step.name: step.outcome for step in report.steps}


def _bucket(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def test_a_new_bucket_has_all_settings_and_a_second_time_changes_nothing(moto: ObjectServer, moto_url: str) -> None:
    url = f"{moto_url}-new"
    names = ("bucket", "encryption", "public access", "life cycle")
    assert _outcomes(url) == dict.fromkeys(names, "done")
    client, bucket = moto.boto(), _bucket(url)
    (rule,) = client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    block = client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert len(block) == 4
    rules = {r["ID"]: r for r in client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    assert set(rules) == {"eo-batch-unfinished-uploads", "eo-batch-expires"}
    assert rules["eo-batch-unfinished-uploads"]["AbortIncompleteMultipartUpload"] == ABORT
    assert rules["eo-batch-unfinished-uploads"]["Filter"] == {"Prefix": ""}
    assert rules["eo-batch-expires"]["Filter"] == {"Tag": TAG}
    assert rules["eo-batch-expires"]["Expiration"]["Days"] == 30
    assert client.get_bucket_location(Bucket=bucket)["LocationConstraint"] == "eu-central-1"
    assert _outcomes(url) == dict.fromkeys(names, "unchanged")


def test_rules_of_others_and_of_other_prefixes_stay(moto: ObjectServer, moto_url: str) -> None:
    client, bucket = moto.boto(), _bucket(moto_url)
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [theirs]})
    _outcomes(f"{moto_url}/one")
    _outcomes(f"{moto_url}/two/deep", BucketPlan(expire_after_days=None))
    _outcomes(f"{moto_url}/one", BucketPlan(expire_after_days=9))
    rules = {r["ID"]: r for r in client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    assert set(rules) == {
        "theirs",
        "eo-batch-unfinished-uploads-one",
        "eo-batch-expires-one",
        "eo-batch-unfinished-uploads-two-deep",
    }
    assert rules["theirs"] == theirs
    assert rules["eo-batch-expires-one"]["Filter"] == {"And": {"Prefix": "one/", "Tags": [TAG]}}
    assert rules["eo-batch-expires-one"]["Expiration"]["Days"] == 9


def test_encryption_with_a_kms_key(moto: ObjectServer, moto_url: str) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    assert _outcomes(moto_url, BucketPlan(kms_key_id=key))["encryption"] == "done"
    (rule,) = moto.boto().get_bucket_encryption(Bucket=_bucket(moto_url))["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    assert rule["BucketKeyEnabled"]
    assert _outcomes(moto_url, BucketPlan(kms_key_id=key))["encryption"] == "unchanged"
    assert _outcomes(moto_url)["encryption"] == "done", "back to SSE-S3 when asked for"


@pytest.mark.parametrize("megabytes", [0, 10], ids=["one request", "multipart"])
@pytest.mark.parametrize("server", ["seaweed", "moto"])
def test_objects_that_expire_carry_the_tag_of_the_rule(
    server: str, megabytes: int, request: pytest.FixtureRequest
) -> None:
    client = request.getfixturevalue(server).boto()
    url = request.getfixturevalue("s3_url" if server == "seaweed" else "moto_url")
    store = parse_store(url)
    data = bytes(megabytes * 2**20)
    store.put("run/pretrain-1/checkpoints/1.pt", data, expires=True)
    store.put("run/pretrain-1/model.json", data)
    tags = client.get_object_tagging(Bucket=_bucket(url), Key="run/pretrain-1/checkpoints/1.pt")["TagSet"]
    assert tags == [TAG]
    assert client.get_object_tagging(Bucket=_bucket(url), Key="run/pretrain-1/model.json")["TagSet"] == []
    assert store.get("run/pretrain-1/checkpoints/1.pt") == data


@pytest.mark.parametrize("fixture", ["az_url", "gs_url"])
def test_expiry_is_accepted_by_every_store(fixture: str, request: pytest.FixtureRequest) -> None:
    store = parse_store(request.getfixturevalue(fixture))
    store.put("key", b"x", expires=True)
    assert store.get("key") == b"x"


def test_seaweed_gets_a_usable_bucket_and_says_what_it_lacks(seaweed: ObjectServer, s3_url: str) -> None:
    url = f"{s3_url}-new"
    report = init_bucket(url, Settings.from_env())
    outcomes = {step.name: step.outcome for step in report.steps}
    assert outcomes["bucket"] == outcomes["life cycle"] == "done"
    assert outcomes["public access"] == "unsupported"
    # It takes the setting, and then fails every write for want of a key of its own.
    assert outcomes["encryption"] == "unsupported"
    assert "taken back" in str(report)
    store = parse_store(url)
    store.put("key", b"x")
    assert store.get("key") == b"x"
    rules = seaweed.boto().get_bucket_lifecycle_configuration(Bucket=_bucket(url))["Rules"]
    assert {rule["ID"] for rule in rules} == {"eo-batch-unfinished-uploads", "eo-batch-expires"}
    assert not report.complete
    assert list(store.list()) == ["key"], "the probe is gone"
    assert _outcomes(url)["bucket"] == "unchanged"


def test_a_user_who_may_not_create_buckets_is_told(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreDenied):
        init_bucket(f"{s3_url}-mine", Settings.from_env())


def test_settings_that_are_not_permitted_are_reported_and_the_rest_still_runs(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    report = init_bucket(s3_url, Settings.from_env())
    assert report.steps[0].outcome == "unchanged"
    assert len(report.steps) == 4
    assert not report.complete
    assert "refused" in str(report)


def test_wrong_credentials_and_a_dead_endpoint(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreDenied, match="AWS_PROFILE"):
        init_bucket(s3_url, Settings.from_env())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        began_s = time.monotonic()
        with pytest.raises(StoreError, match="check endpoint and network"):
            init_bucket("s3://bucket", Settings.from_env())
    assert time.monotonic() - began_s < 20


def test_other_stores_name_their_own_tools(tmp_path) -> None:
    settings = Settings()
    with pytest.raises(UsageError, match="gcloud storage buckets create gs://bucket"):
        init_bucket("gs://bucket/a", settings)
    with pytest.raises(UsageError, match="az storage container create --name box"):
        init_bucket("az://box", settings)
    report = init_bucket(str(tmp_path / "new"), settings)
    assert report.complete
    assert (tmp_path / "new").is_dir()


def test_ages_below_a_day_are_refused() -> None:
    with pytest.raises(UsageError, match="expire_after_days=0"):
        BucketPlan(expire_after_days=0)
