"""Only the service accounts that reach the store are given anything, and only what a `Store` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra.conftest import Applied

WRITERS = {"driver", "runner", "workflow"}
"""Of the chart's service accounts, those whose pods write to the store. `sweeper` does not reach it; `web` reads."""
READERS = {"web"}


def test_aws_pods_are_trusted_by_service_account(applied: Applied) -> None:
    aws = applied("aws", name="mine")
    associations = aws.instances("aws_eks_pod_identity_association", "account")
    assert {(each.get("namespace"), each.get("service_account")) for each in associations.values()} == {
        ("eo-batch", f"eo-batch-{name}") for name in WRITERS | READERS
    }
    block = aws.module.one("data", "aws_iam_policy_document", "pod_trust")
    accounts = aws.evaluate(block.attributes["for_each"])
    assert set(accounts) == {*WRITERS, *READERS, "karpenter", "vpc-cni"}
    for name, account in accounts.items():
        (statement,) = aws.rendered(block, {"each": {"key": name, "value": account}})["statement"]
        assert statement["principals"] == [{"type": "Service", "identifiers": ["pods.eks.amazonaws.com"]}]
        assert {(c["test"], c["variable"]): c["values"] for c in statement["condition"]} == {
            ("StringEquals", "aws:RequestTag/eks-cluster-name"): ["mine"],
            ("StringEquals", "aws:RequestTag/kubernetes-namespace"): [account["namespace"]],
            ("StringEquals", "aws:RequestTag/kubernetes-service-account"): [account["service_account"]],
        }


def test_aws_rights_are_those_of_a_store(applied: Applied) -> None:
    aws = applied("aws", bucket="b")
    document = aws.rendered(aws.module.one("data", "aws_iam_policy_document", "store"))
    bucket, objects = ["<aws_s3_bucket.store.arn>"], ["<aws_s3_bucket.store.arn>/*"]
    assert granted(document) == {
        "s3:GetBucketLocation": bucket,
        "s3:ListBucket": bucket,
        "s3:ListBucketMultipartUploads": bucket,
        "s3:AbortMultipartUpload": objects,
        "s3:DeleteObject": objects,
        "s3:GetObject": objects,
        "s3:ListMultipartUploadParts": objects,
        "s3:PutObject": objects,
        "s3:PutObjectTagging": objects,
    }


def granted(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Resources of each action of a policy."""
    statements = document["statement"]
    return {action: [str(where) for where in each["resources"]] for each in statements for action in each["actions"]}


def test_aws_readers_may_not_write(applied: Applied) -> None:
    aws = applied("aws", bucket="b", store_kms_key_arn="arn:aws:kms:x:1:key/k")
    assert granted(aws.rendered(aws.module.one("data", "aws_iam_policy_document", "store_read"))) == {
        "s3:GetBucketLocation": ["<aws_s3_bucket.store.arn>"],
        "s3:ListBucket": ["<aws_s3_bucket.store.arn>"],
        "s3:GetObject": ["<aws_s3_bucket.store.arn>/*"],
        "kms:Decrypt": ["arn:aws:kms:x:1:key/k"],
    }
    attached = aws.instances("aws_iam_role_policy_attachment", "account")
    policies = {name: str(each.get("policy_arn")) for name, each in attached.items()}
    assert policies == dict.fromkeys(READERS, "<aws_iam_policy.store_read.arn>") | dict.fromkeys(
        WRITERS, "<aws_iam_policy.store.arn>"
    )


def test_aws_rights_include_the_key_of_the_store(applied: Applied) -> None:
    aws = applied("aws", store_kms_key_arn="arn:aws:kms:x:1:key/k")
    document = aws.rendered(aws.module.one("data", "aws_iam_policy_document", "store"))
    assert document["statement"][-1] == {
        "sid": "Key",
        "actions": ["kms:Decrypt", "kms:GenerateDataKey"],
        "resources": ["arn:aws:kms:x:1:key/k"],
    }


def test_karpenter_changes_only_what_is_its_own(applied: Applied) -> None:
    """What creates, tags or deletes is bound to this cluster's tags or to named resources; only reading is free."""
    aws = applied("aws", name="mine")
    document = aws.rendered(aws.module.one("data", "aws_iam_policy_document", "karpenter"))
    reading = ("Describe", "Get", "List")
    for statement in document["statement"]:
        verbs = [action.split(":")[1] for action in statement["actions"]]
        if all(verb.startswith(reading) for verb in verbs):
            continue
        assert "*" not in statement["resources"], statement["sid"]
        bound = {value for condition in statement.get("condition", []) for value in condition["variable"].split("/")}
        named = all("<" in str(resource) for resource in statement["resources"])
        # Images, snapshots, subnets and groups are used, not made.
        assert named or {"cluster", "mine"} <= bound or statement["sid"] == "LaunchFromWhatIsThere", statement["sid"]
    (passing,) = [s for s in document["statement"] if s["actions"] == ["iam:PassRole"]]
    assert [str(role) for role in passing["resources"]] == ['<aws_iam_role.node["karpenter"].arn>']


def test_google_cloud_names_service_accounts(applied: Applied) -> None:
    gcp = applied("gcp", project="my-project")
    members = gcp.instances("google_storage_bucket_iam_member", "account")
    pool = "principal://iam.googleapis.com/projects/123456789/locations/global/workloadIdentityPools"
    roles = dict.fromkeys(WRITERS, "objectUser") | dict.fromkeys(READERS, "objectViewer")
    assert {(each.get("role"), each.get("member")) for each in members.values()} == {
        (f"roles/storage.{role}", f"{pool}/my-project.svc.id.goog/subject/ns/eo-batch/sa/eo-batch-{name}")
        for name, role in roles.items()
    }


def test_azure_trusts_service_accounts_and_lets_them_tag(applied: Applied) -> None:
    azure = applied("azure")
    credentials = azure.instances("azurerm_federated_identity_credential", "account")
    assert {(each.get("subject"), *each.get("audience")) for each in credentials.values()} == {
        (f"system:serviceaccount:eo-batch:eo-batch-{name}", "api://AzureADTokenExchange") for name in WRITERS | READERS
    }
    role = azure.rendered(azure.module.one("resource", "azurerm_role_definition", "store"))
    blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/"
    assert [action.removeprefix(blobs) for action in role["permissions"][0]["data_actions"]] == [
        "add/action",
        "delete",
        "read",
        "tags/read",
        "tags/write",
        "write",
    ]
    assigned = azure.instances("azurerm_role_assignment", "store")
    assert set(assigned) == {*WRITERS, "operator"}
    assert {str(each.get("scope")) for each in assigned.values()} == {"<azurerm_storage_account.store.id>"}
    readers = azure.instances("azurerm_role_assignment", "store_read")
    assert set(readers) == READERS
    (reader,) = readers.values()
    assert str(reader.get("scope")) == "<azurerm_storage_account.store.id>"
    assert reader.get("role_definition_name") == "Storage Blob Data Reader"


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_no_secret_is_made(applied: Applied, cloud: str) -> None:
    """No keys, passwords or tokens are resources, so none is in the state or in an output."""
    kinds = {block.labels[0] for block in applied(cloud).module.blocks if block.kind in ("resource", "data")}
    secrets = ("access_key", "password", "secret", "token")
    assert [kind for kind in kinds if any(word in kind for word in secrets)] == []
