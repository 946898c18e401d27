"""The stores are what eo-batch expects: on S3 exactly what `eo-batch store init` sets up, elsewhere the counterpart."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from eo_batch.core import layout
from eo_batch.io.aws import BucketPlan, init_bucket
from eo_batch.io.store import EXPIRES_TAG
from eo_batch.settings import Settings
from tests.infra.conftest import Applied


def _s3_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule of the life cycle as S3's own API writes it."""
    done: dict[str, Any] = {"ID": rule["id"], "Status": rule["status"]}
    (chosen,) = rule["filter"]
    if "tag" in chosen:
        (tag,) = chosen["tag"]
        done["Filter"] = {"Tag": {"Key": tag["key"], "Value": tag["value"]}}
    else:
        done["Filter"] = {"Prefix": chosen["prefix"]}
    for abort in rule.get("abort_incomplete_multipart_upload", []):
        done["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": abort["days_after_initiation"]}
    for expiration in rule.get("expiration", []):
        done["Expiration"] = {"Days": expiration["days"]}
    return done


@pytest.mark.parametrize(
    ("variables", "plan"),
    [
        ({}, BucketPlan()),
        ({"expire_after_days": None}, BucketPlan(expire_after_days=None)),
        ({"expire_after_days": 3, "abort_uploads_after_days": 2}, BucketPlan(2, 3)),
        ({"store_kms_key_arn": "arn:aws:kms:x:1:key/k"}, BucketPlan(kms_key_id="arn:aws:kms:x:1:key/k")),
    ],
)
def test_store_init_has_nothing_left_to_do(
    applied: Applied, moto_url: str, variables: dict[str, Any], plan: BucketPlan
) -> None:
    """A bucket set up as `infra/aws` says, on a server that checks its settings: `store init` finds all done."""
    aws = applied("aws", **variables)
    bucket = urlsplit(moto_url).netloc
    client = boto3.client("s3", endpoint_url=Settings.from_env().store.endpoint, region_name="us-east-1")

    life_cycle = aws.rendered(aws.module.one("resource", "aws_s3_bucket_lifecycle_configuration", "store"))
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [_s3_rule(rule) for rule in life_cycle["rule"]]}
    )
    block = aws.rendered(aws.module.one("resource", "aws_s3_bucket_public_access_block", "store"))
    names = ("block_public_acls", "ignore_public_acls", "block_public_policy", "restrict_public_buckets")
    client.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={"".join(map(str.capitalize, name.split("_"))): block[name] for name in names},
    )
    encryption = aws.rendered(aws.module.one("resource", *_ENCRYPTION))["rule"][0]
    default = encryption["apply_server_side_encryption_by_default"][0]
    algorithm = {"SSEAlgorithm": default["sse_algorithm"], "KMSMasterKeyID": default["kms_master_key_id"]}
    rule: dict[str, Any] = {
        "ApplyServerSideEncryptionByDefault": {key: value for key, value in algorithm.items() if value is not None}
    }
    if encryption["bucket_key_enabled"] is not None:
        rule["BucketKeyEnabled"] = encryption["bucket_key_enabled"]
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})

    report = init_bucket(moto_url, Settings.from_env(), plan)
    assert {step.name: step.outcome for step in report.steps} == {
        "bucket": "unchanged",
        "encryption": "unchanged",
        "public access": "unchanged",
        "life cycle": "unchanged",
    }


_ENCRYPTION = ("aws_s3_bucket_server_side_encryption_configuration", "store")


def test_on_google_cloud_checkpoints_expire_by_their_ending(applied: Applied) -> None:
    """No tags there: the ending has to be that of every checkpoint, and of no other key that eo-batch writes."""
    gcp = applied("gcp")
    bucket = gcp.rendered(gcp.module.one("resource", "google_storage_bucket", "store"))
    rules = {rule["action"][0]["type"]: rule["condition"][0] for rule in bucket["lifecycle_rule"]}
    assert rules == {
        "AbortIncompleteMultipartUpload": {"age": BucketPlan().abort_uploads_after_days},
        "Delete": {"age": BucketPlan().expire_after_days, "matches_suffix": [".ckpt"]},
    }
    assert layout.checkpoint("pretrain-0", 0, "data", 7).endswith(".ckpt")
    assert bucket["public_access_prevention"] == "enforced"
    assert bucket["uniform_bucket_level_access"] is True
    assert bucket["versioning"] == [{"enabled": False}]
    assert bucket["soft_delete_policy"] == [{"retention_duration_seconds": 0}]


def test_no_other_key_ends_like_a_checkpoint() -> None:
    """The rule above deletes whatever ends so, hence nothing else may."""
    import inspect

    text = inspect.getsource(layout)
    assert text.count(".ckpt") == inspect.getsource(layout.checkpoint).count(".ckpt") > 0


def test_on_azure_checkpoints_expire_by_their_tag(applied: Applied) -> None:
    azure = applied("azure")
    (policy,) = azure.instances("azurerm_storage_management_policy", "store").values()
    (rule,) = azure.rendered(policy.block)["rule"]
    (chosen,) = rule["filters"]
    name, value = EXPIRES_TAG
    assert chosen["match_blob_index_tag"] == [{"name": name, "operation": "==", "value": value}]
    assert chosen["prefix_match"] == ["runs/"]
    assert rule["actions"][0]["base_blob"] == [
        {"delete_after_days_since_modification_greater_than": BucketPlan().expire_after_days}
    ]
    account = azure.rendered(azure.module.one("resource", "azurerm_storage_account", "store"))
    # Tags of blobs do not work in hierarchical namespaces.
    assert account["is_hns_enabled"] is False
    assert account["shared_access_key_enabled"] is False
    assert account["allow_nested_items_to_be_public"] is False
    assert account["network_rules"][0]["default_action"] == "Deny"
    assert account["network_rules"][0]["ip_rules"] == ["203.0.113.7"]


@pytest.mark.parametrize("cloud", ["azure", "gcp"])
def test_expiry_can_be_off(applied: Applied, cloud: str) -> None:
    world = applied(cloud, expire_after_days=None)
    if cloud == "azure":
        assert world.instances("azurerm_storage_management_policy", "store") == {}
    else:
        bucket = world.rendered(world.module.one("resource", "google_storage_bucket", "store"))
        assert [rule["action"][0]["type"] for rule in bucket["lifecycle_rule"]] == ["AbortIncompleteMultipartUpload"]
